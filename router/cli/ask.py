"""`edgewise ask`: route a prompt and print the answer as it comes."""

from __future__ import annotations

import json
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import EdgewiseError
from .ending import decision_of, error_as_dict, examples, exit_code
from .options import (
    config_option,
    format_option,
    generate_options,
    offline_option,
    prompt_argument,
    read_prompt,
    request_options,
    sampling_options,
)

if TYPE_CHECKING:
    from ...core.answer import Answer
    from ...core.content import Message
    from ...core.decision import Decision, Seam
    from ..client.async_router import AsyncRouter
    from ..options import GenerateOptions


@click.command(
    epilog=examples(
        "edgewise ask 'Why is the sky blue?'",
        "edgewise ask --data-class health --explain 'Summarise this note: …'",
        "cat letter.txt | edgewise ask --system 'Summarise in one sentence.' -",
        "edgewise ask --latency-budget 2s --format json 'Hello' | jq .backend",
    )
)
@prompt_argument
@config_option
@request_options
@sampling_options
@offline_option
@click.option("--explain", is_flag=True, help="Say on stderr afterwards why the answer came from where it came.")
@format_option
@click.pass_context
def ask(
    ctx: click.Context,
    /,
    prompt: str,
    path: Path,
    offline: bool,
    explain: bool,
    output: str,
    system: str | None,
    **given: Any,  # the options that `generate_options` reads
) -> None:
    """Answer a prompt. The text goes to stdout as it comes; everything else goes to stderr.

    PROMPT may be - for standard input. Where the answering backend changes within the answer, stderr says so.
    """
    from .opening import conversation, open_router
    from .running import run

    options = generate_options(given)
    messages = conversation(read_prompt(prompt), system)

    async def work() -> Answer:
        async with open_router(path, offline=offline) as router:
            if output == "json":
                return await _collect(router, messages, options)
            return await _print_as_it_comes(router, messages, options)

    try:
        answer = run(work())
    except EdgewiseError as error:
        if explain:
            _explain(decision_of(error))
        if output == "json":
            click.echo(json.dumps(error_as_dict(error), indent=2))
            ctx.exit(exit_code(error))
        raise
    if explain:
        _explain(answer.decision)
    if output == "json":
        click.echo(json.dumps(_as_dict(answer), indent=2))


async def _print_as_it_comes(router: AsyncRouter, messages: list[Message], options: GenerateOptions) -> Answer:
    answer: Answer | None = None
    last = "\n"
    try:
        async with aclosing(router.stream(messages, **options)) as chunks:
            async for chunk in chunks:
                if chunk.seam is not None:
                    _show_seam(chunk.seam)
                click.echo(chunk.text, nl=False)
                last = chunk.text or last
                answer = chunk.answer
    finally:
        if not last.endswith("\n"):
            click.echo()
    assert answer is not None, "a stream ends with its answer or an error"
    return answer


async def _collect(router: AsyncRouter, messages: list[Message], options: GenerateOptions) -> Answer:
    return await router.generate(messages, **options)


def _show_seam(seam: Seam) -> None:
    from rich.text import Text

    from .terminal import console

    console(stderr=True).print(Text(seam_mark(seam), "bold yellow"), soft_wrap=True)


def seam_mark(seam: Seam) -> str:
    """A seam as it is shown within a text."""
    anew = ", begun anew" if seam.restarts else ""
    return f"⟦seam: {seam.from_backend} → {seam.to_backend}{anew}, {seam.reason}⟧"


def _explain(decision: Decision | None) -> None:
    if decision is not None:
        click.echo(decision.explain(), err=True)


def _as_dict(answer: Answer) -> dict[str, Any]:
    return {
        "text": answer.text,
        "backend": answer.backend,
        "model": answer.model,
        "finish_reason": answer.finish_reason.value,
        "usage": {"prompt_tokens": answer.usage.prompt_tokens, "output_tokens": answer.usage.output_tokens},
        "cost": answer.cost,
        "data_classes": list(answer.data_classes),
        "decision": answer.decision.to_dict(),
    }
