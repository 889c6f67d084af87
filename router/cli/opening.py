"""Opens a router for one command's request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.content import Message

if TYPE_CHECKING:
    from ..client.async_router import AsyncRouter


@asynccontextmanager
async def open_router(path: Path, *, offline: bool = False) -> AsyncIterator[AsyncRouter]:
    """A router whose backends are ready or have failed to be.

    An application keeps its router, so its models are loaded when a request comes; a command's request finds the same.
    """
    from ..client.async_router import AsyncRouter
    from .terminal import busy, console

    async with AsyncRouter.from_yaml(path) as router:
        if offline:
            router.connectivity.force("offline")
        with busy(console(stderr=True), "loading the models of this device"):
            await router.ready()
        yield router


def conversation(prompt: str, system: str | None) -> list[Message]:
    """The messages of a command's request."""
    above = [] if system is None else [Message.system(system)]
    return [*above, Message.user(prompt)]
