"""Adapters that do the work. They know nothing of policies."""

from .backend import Backend, BackendHealth, CallContext, Capabilities, HealthState, ModelSignature, TensorSpec

__all__ = [
    "Backend",
    "BackendHealth",
    "CallContext",
    "Capabilities",
    "HealthState",
    "ModelSignature",
    "TensorSpec",
]
