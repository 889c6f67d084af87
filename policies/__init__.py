"""Decides. Pure: facts in, plan out; nothing here reads a file, a clock or a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compilation import compile_policy
    from .planner import Policy

__all__ = ["Policy", "compile_policy"]


def __getattr__(name: str) -> Any:
    # Facts and plans are needed by every import of the router, the compiler by whoever reads a policy.
    if name == "compile_policy":
        from .compilation import compile_policy

        return compile_policy
    if name == "Policy":
        from .planner import Policy

        return Policy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
