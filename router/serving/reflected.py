"""The schemas that the server describes to whoever asks, in one pool: our own, health's, and the foreign protocol's."""

from __future__ import annotations

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from ...protos.foreign import oip_pb2
from ...protos.v1 import model_service_pb2


def described() -> DescriptorPool:
    """A new pool with all of them."""
    pool = DescriptorPool()
    for module in (model_service_pb2, oip_pb2, health_pb2, reflection_pb2):
        _add(pool, module.DESCRIPTOR)
    return pool


def _add(pool: DescriptorPool, file: FileDescriptor) -> None:
    for needed in file.dependencies:
        _add(pool, needed)
    pool.AddSerializedFile(file.serialized_pb)
