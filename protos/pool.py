"""Where the schemas of other people's services live, under their true names.

The same names may come a second time into the process, with a vendor's client or a server's own package; one pool
refuses that. This pool is nobody else's.
"""

from __future__ import annotations

from google.protobuf import struct_pb2
from google.protobuf.descriptor_pool import DescriptorPool

PRIVATE_POOL = DescriptorPool()
"""Holds what the generated modules below ``foreign/`` add to it."""

PRIVATE_POOL.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
