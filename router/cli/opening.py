"""Opens a router for one command's request."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...core.content import Message
from ...core.errors import EdgewiseError

if TYPE_CHECKING:
    from ..client.async_router import AsyncRouter


@asynccontextmanager
async def open_router(path: Path, *, offline: bool = False) -> AsyncIterator[AsyncRouter]:
    """A router whose backends are ready or have failed to be.

    An application keeps its router, so its models are loaded when a request comes; a command's request finds the same.
    Of a configuration's warnings `edgewise check` tells, not every request.
    """
    from ..client.async_router import AsyncRouter
    from ..config import load
    from .loading import bars, loading_of
    from .terminal import console

    with _told_once():
        async with AsyncRouter(load(path)) as router:
            if offline:
                router.connectivity.force("offline")
            async with bars(console(stderr=True), loading_of(router)):
                await router.ready()
            yield router


class _Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)


@contextmanager
def _told_once() -> Iterator[None]:
    """Say at the end what was logged meanwhile: each reason once, and none that the command's error gives anyway."""
    log = logging.getLogger("edgewise")
    kept = _Kept()
    log.addHandler(kept)
    told = ""
    try:
        yield
    except EdgewiseError as error:
        told = str(error)
        raise
    finally:
        log.removeHandler(kept)
        for record in kept.records:
            reason = str(record.args[-1]) if isinstance(record.args, tuple) and record.args else record.getMessage()
            if reason not in told:
                click.echo(record.getMessage(), err=True)
                told += f"\n{reason}"


def conversation(prompt: str, system: str | None) -> list[Message]:
    """The messages of a command's request."""
    above = [] if system is None else [Message.system(system)]
    return [*above, Message.user(prompt)]
