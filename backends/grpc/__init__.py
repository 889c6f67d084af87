"""Remote model services over gRPC. Importing this imports no gRPC; building a backend does."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..backend import Backend
from ..models import ModelFile
from ..registry import BackendKind
from .settings import GrpcSettings, TlsSettings, check, placeless, sends_keys

# gRPC's C core writes what servers say as they close a connection to stderr, and a server may say anything. The core
# reads this once, as it is first used. `router/serving` imports from here too, before it imports gRPC.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

__all__ = ["KIND", "GrpcSettings", "TlsSettings"]


def _build(name: str, settings: GrpcSettings, models: Mapping[str, ModelFile]) -> Backend:
    from .backend import GrpcBackend

    return GrpcBackend(name, settings)


KIND = BackendKind(
    "grpc", GrpcSettings, on_device=False, build=_build, check=check, placeless=placeless, sends_keys=sends_keys
)
