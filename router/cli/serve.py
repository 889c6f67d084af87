"""`edgewise serve`: offer this device's backends to other routers over gRPC."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...core.failure import AttemptError
from .ending import CommandError, ExitCode, examples
from .options import config_option

if TYPE_CHECKING:
    from ...backends import Backend
    from ..config import Configuration
    from ..serving import ServeSettings


@click.command(
    epilog=examples(
        "edgewise serve",
        "edgewise serve --listen unix:/run/user/1000/edgewise.sock",
        "edgewise serve --config gateway.yaml --place site:praxis",
    )
)
@config_option
@click.option(
    "--listen", metavar="HOST:PORT", help="Where to listen, instead of `serve.listen`; port 0 is any free one."
)
@click.option("--place", metavar="PLACE", help="Where this device is, told to clients: NL, or site:praxis.")
@click.pass_context
def serve(ctx: click.Context, path: Path, listen: str | None, place: str | None) -> None:
    """Offer the backends that run on this device to other routers, until SIGTERM or Ctrl-C.

    Prints one line when it is ready. When stopped it takes no more calls and lets running ones end within
    `serve.drain`; a second signal ends them at once. Nothing is forwarded to remote backends.
    """
    from ..config import load

    configuration = load(path)
    settings = configuration.serve
    if listen is not None:
        settings = replace(settings, listen=listen)
    if place is not None:
        settings = replace(settings, place=place)
    ctx.exit(asyncio.run(_serve(configuration, settings)))


async def _serve(configuration: Configuration, settings: ServeSettings) -> ExitCode:
    from ..serving.server import ModelServer, judge_address

    judge_address(settings)  # loading models takes its time
    stop = _Stop()
    backends = _on_device(configuration)
    async with _started(backends, stop) as ready:
        if not ready:
            return ExitCode.OK
        server = ModelServer(settings, backends)
        await server.start()
        click.echo(f"serving {', '.join(backends)} on {server.address}")
        if not settings.place:
            warning = "calls that may not be processed everywhere are refused: set `serve.place`, or give --place"
            click.echo(warning, err=True)
        await stop.first.wait()
        click.echo("stopping: running calls may end; signal again to end them now", err=True)
        drained = asyncio.create_task(server.stop())
        second = asyncio.create_task(stop.second.wait())
        await asyncio.wait({drained, second}, return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            drained.cancel()
            return ExitCode.INTERRUPTED
        second.cancel()
        await drained
    return ExitCode.OK


class _Stop:
    """The signals that ask to stop: the first one asks to drain, the second to end at once."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


def _on_device(configuration: Configuration) -> dict[str, Backend]:
    entries = [entry for entry in configuration.backends.values() if entry.terms.location.on_device]
    if not entries:
        raise CommandError(
            f"{configuration.file} has no backend that runs on this device", "add one of kind llama_cpp or onnx"
        )
    return {entry.name: entry.build(configuration.models) for entry in entries}


def _loading(backend: Backend) -> dict[str, float | None]:
    return {backend.name: backend.health().progress}


@asynccontextmanager
async def _started(backends: Mapping[str, Backend], stop: _Stop) -> AsyncIterator[bool]:
    """Start the backends, one after the other; whether all were, before a signal came. Stops them at the end."""
    from .loading import bars
    from .terminal import console

    try:
        for backend in backends.values():
            click.echo(f"loading {backend.name} …", err=True)
            starting = asyncio.create_task(backend.start())
            stopping = asyncio.create_task(stop.first.wait())
            async with bars(console(stderr=True), partial(_loading, backend)):
                await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not starting.done():
                starting.cancel()
                yield False
                return
            try:
                await starting
            except AttemptError as error:
                raise CommandError(f"{backend.name} did not start: {error.sentence}", "nothing is served") from None
        yield True
    finally:
        await asyncio.gather(*(backend.stop() for backend in backends.values()))
