"""Decides. Pure: facts in, plan out; nothing here reads a file, a clock or a socket."""

from .compilation import compile_policy
from .planner import Policy

__all__ = ["Policy", "compile_policy"]
