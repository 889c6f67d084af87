"""Who calls: by what they proved, never by where they call from, because a client that reconnects may have moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import grpc
import grpc.aio

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller's token and certificate, as far as it has shown them. All that showed nothing are one caller."""

    token: str = field(default="", repr=False)
    certificate: tuple[bytes, ...] = ()


def caller_of(context: grpc.aio.ServicerContext[Q, R]) -> Caller:
    """Who makes this call. A token counts where it was let in, so one that nobody checks makes no difference."""
    metadata = context.invocation_metadata() or ()
    token = next((value for key, value in metadata if key == "authorization" and isinstance(value, str)), "")
    return Caller(token, tuple(context.peer_identities() or ()))
