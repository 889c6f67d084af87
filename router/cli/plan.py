"""`edgewise plan`: what would happen to a prompt, without sending anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import EdgewiseError
from .ending import ExitCode, error_as_dict, examples, exit_code
from .options import (
    config_option,
    format_option,
    generate_options,
    offline_option,
    prompt_argument,
    read_prompt,
    request_options,
)

if TYPE_CHECKING:
    from ...policies.plan import Plan, Step
    from ..options import GenerateOptions


@click.command(
    epilog=examples(
        "edgewise plan 'Why is the sky blue?'",
        "edgewise plan --data-class health --latency-budget 2s 'Summarise this note: …'",
        "edgewise plan --offline --format json 'Hello'",
    )
)
@prompt_argument
@config_option
@request_options
@offline_option
@format_option
@click.pass_context
def plan(
    ctx: click.Context, /, prompt: str, path: Path, offline: bool, output: str, system: str | None, **given: Any
) -> None:
    """Show where a prompt would go, when each step would start, and why every other backend is left out.

    Nothing is sent. Backends are started, so that the plan knows which are ready. PROMPT may be - for standard input.
    Exits with 3 where nothing is permitted.
    """
    from .running import run

    try:
        made = run(_plan(path, read_prompt(prompt), system, offline, generate_options(given)))
    except EdgewiseError as error:
        if output == "json":
            click.echo(json.dumps(error_as_dict(error), indent=2))
            ctx.exit(exit_code(error))
        raise
    if output == "json":
        click.echo(json.dumps(as_dict(made), indent=2))
    else:
        _show(made)
    ctx.exit(ExitCode.OK if made.steps else ExitCode.NOTHING_PERMITTED)


async def _plan(path: Path, prompt: str, system: str | None, offline: bool, options: GenerateOptions) -> Plan:
    from .opening import conversation, open_router

    async with open_router(path, offline=offline) as router:
        return await router.plan(conversation(prompt, system), **options)


def _show(made: Plan) -> None:
    from rich.table import Table
    from rich.text import Text

    from ...core.duration import format_duration
    from .terminal import console

    on = console()
    on.print(Text(f"data class: {' + '.join(made.data_classes) or 'none'}"))
    budget = format_duration(made.latency_budget)
    if made.first_token_budget is not None:
        budget += f", first token {format_duration(made.first_token_budget)}"
    on.print(Text(f"budget: {budget}"))
    if made.steps:
        table = Table("", "backend", "starts", "first token, p95", "whole, p95", "in time", "why")
        for number, step in enumerate(made.steps, 1):
            table.add_row(
                str(number),
                step.backend,
                _starts(made, step),
                format_duration(step.prediction.first.quantile_95()),
                format_duration(step.prediction.total.quantile_95()),
                f"{step.p_done:.0%}",
                step.reason,
            )
        on.print(table)
    else:
        on.print(Text("no backend may take it", "bold red"))
    for refusal in made.refusals:
        on.print(Text.assemble(("not ", "red"), (refusal.backend, "bold"), f": {refusal.sentence} ({refusal.code})"))
    for rule in made.matched_rules:
        on.print(Text(f"rule {rule!r} matched"))
    for note in made.notes:
        on.print(Text(f"note: {note}"))


def _starts(made: Plan, step: Step) -> str:
    from ...core.duration import format_duration

    if step.starts_at is not None:
        when = f"at {format_duration(step.starts_at)}" if step.starts_at > 0 else "now"
        return f"{when}, as the last resort"
    return "now" if step is made.steps[0] else "when the one before fails"


def as_dict(made: Plan) -> dict[str, Any]:
    """A plan as plain values that JSON takes."""
    return {
        "policy_version": made.policy_version,
        "data_classes": list(made.data_classes),
        "latency_budget": made.latency_budget,
        "first_token_budget": made.first_token_budget,
        "reason": made.reason,
        "steps": [
            {
                "backend": step.backend,
                "last_resort": step.last_resort,
                "starts_at": step.starts_at,
                "first_token_p95": step.prediction.first.quantile_95(),
                "total_p95": step.prediction.total.quantile_95(),
                "p_done": step.p_done,
                "reason": step.reason,
            }
            for step in made.steps
        ],
        "refusals": [
            {"backend": refusal.backend, "code": refusal.code.value, "sentence": refusal.sentence}
            for refusal in made.refusals
        ],
        "matched_rules": list(made.matched_rules),
        "notes": list(made.notes),
    }
