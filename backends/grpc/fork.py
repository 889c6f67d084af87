"""gRPC does not survive a fork while it is in use: its threads stay in the parent, and every call in the child hangs.

A channel that the parent holds open is enough, whoever calls in the child. It is noticed as the process forks, so that
the child's backends say so at once instead of waiting for each deadline. After a parent that has closed its routers,
or never opened one, the child may use gRPC.
"""

from __future__ import annotations

import os
from weakref import WeakSet

import grpc.aio

from ...core.failure import AttemptError, FailureKind

_open_channels: WeakSet[grpc.aio.Channel] = WeakSet()
_left_behind = False


def opened(channel: grpc.aio.Channel) -> None:
    """A channel begins to be in use."""
    _open_channels.add(channel)


def closed(channel: grpc.aio.Channel) -> None:
    """A channel is in use no more."""
    _open_channels.discard(channel)


def refuse_after_fork() -> None:
    """Raises `AttemptError` in a process that was forked while gRPC was in use."""
    if _left_behind:
        raise AttemptError(
            FailureKind.UNSUPPORTED,
            "this process was forked while gRPC was in use, which gRPC does not survive; "
            "fork before the first router is used, close the routers first, or start processes by `spawn`",
        )


def _in_child() -> None:
    global _left_behind
    _left_behind = _left_behind or bool(_open_channels)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
