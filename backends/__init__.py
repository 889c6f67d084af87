"""Adapters that do the work. They know nothing of policies."""

from .backend import Backend, BackendHealth, CallContext, Capabilities, HealthState

__all__ = ["Backend", "BackendHealth", "CallContext", "Capabilities", "HealthState"]
