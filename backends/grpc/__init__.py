"""Remote model services over gRPC. Importing this imports no gRPC; building a backend does."""

from __future__ import annotations

from collections.abc import Mapping

from ..backend import Backend
from ..models import ModelFile
from ..registry import BackendKind
from .settings import GrpcSettings, TlsSettings, check

__all__ = ["KIND", "GrpcSettings", "TlsSettings"]


def _build(name: str, settings: GrpcSettings, models: Mapping[str, ModelFile]) -> Backend:
    from .backend import GrpcBackend

    return GrpcBackend(name, settings)


KIND = BackendKind("grpc", GrpcSettings, on_device=False, build=_build, check=check)
