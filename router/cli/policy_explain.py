"""`edgewise policy explain`: one request's labels in, the whole reasoning out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .ending import ExitCode, examples
from .options import config_option, format_option
from .plan import as_dict

if TYPE_CHECKING:
    from ...policies.explanation import Explanation

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@click.command(
    epilog=examples(
        "edgewise policy explain --data-class health",
        "edgewise policy explain --data-class personal --metered --battery 15 --discharging",
        "edgewise policy explain --down gateway --link offline --format json",
    )
)
@config_option
@click.option(
    "--task",
    type=click.Choice(["generate", "embed", "classify", "infer", "count_tokens"]),
    default="generate",
    show_default=True,
)
@click.option("--data-class", multiple=True, metavar="NAME", help="The content's data class; may be repeated.")
@click.option("--prompt-tokens", type=click.IntRange(0), default=100, show_default=True, help="The prompt's length.")
@click.option("--max-output-tokens", type=click.IntRange(0), default=256, show_default=True)
@click.option("--priority", type=click.Choice(["low", "normal", "high"]), default="normal", show_default=True)
@click.option("--tag", multiple=True, metavar="NAME=VALUE", help="A tag that the policy declares.")
@click.option("--backend", multiple=True, metavar="NAME", help="None but this backend; may be repeated.")
@click.option("--process-in", multiple=True, metavar="PLACE", help="Process nowhere but here; may be repeated.")
@click.option("--stream/--whole", default=False, help="Whether the answer is streamed.")
@click.option("--link", type=click.Choice(["online", "limited", "offline"]), default="online", show_default=True)
@click.option("--metered/--unmetered", default=False, help="Whether the link costs by volume.")
@click.option("--battery", type=click.IntRange(0, 100), default=100, show_default=True, help="The charge in percent.")
@click.option("--charging/--discharging", default=True, help="Whether the device is on power.")
@click.option("--spent-today", type=click.IntRange(0), default=0, show_default=True, help="In US cents.")
@click.option("--spent-month", type=click.IntRange(0), default=0, show_default=True, help="In US cents.")
@click.option("--at", "time", default="12:00", show_default=True, metavar="HH:MM", help="The local time.")
@click.option("--weekday", type=click.Choice(_DAYS), default="monday", show_default=True)
@click.option("--down", multiple=True, metavar="NAME", help="A backend that cannot be reached; may be repeated.")
@format_option
@click.pass_context
def explain(ctx: click.Context, /, path: Path, output: str, **given: Any) -> None:
    """Show the whole reasoning for a request with these labels: every backend, every rule, every reason.

    No content is asked for: a policy sees labels and facts alone. Every backend takes a second here; `edgewise plan`
    asks the real ones. Exits with 3 where nothing is permitted.
    """
    from ...policies.explanation import explain as explained
    from ..config import load
    from ..config.cases import facts_of

    policy = load(path).policy
    explanation = explained(policy, facts_of(_given(given), policy))
    if output == "json":
        click.echo(json.dumps(_as_dict(explanation), indent=2))
    else:
        _show(explanation)
    ctx.exit(ExitCode.OK if explanation.plan.steps else ExitCode.NOTHING_PERMITTED)


def _given(given: dict[str, Any]) -> Any:
    from ...core.request import Priority, Task
    from ...policies.facts import LinkState
    from ..config.cases import GivenSettings, clock

    if clock(given["time"]) is None:
        raise click.BadParameter("write HH:MM, such as 22:30", param_hint="--at")
    return GivenSettings(
        task=Task(given["task"]),
        data_class=given["data_class"],
        prompt_tokens=given["prompt_tokens"],
        max_output_tokens=given["max_output_tokens"],
        priority=Priority(given["priority"]),
        tags=dict(_tag(each) for each in given["tag"]),
        backend=given["backend"],
        process_in=given["process_in"] or None,
        streaming=given["stream"],
        link=LinkState(given["link"]),
        metered=given["metered"],
        battery_percent=given["battery"],
        charging=given["charging"],
        spent_today_cents=given["spent_today"],
        spent_month_cents=given["spent_month"],
        time=given["time"],
        weekday=given["weekday"],
        down=given["down"],
    )


def _tag(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (separator and name):
        raise click.BadParameter("write NAME=VALUE", param_hint="--tag")
    return name, value


def _show(explanation: Explanation) -> None:
    from ...core.duration import format_duration

    plan = explanation.plan
    first = "" if plan.first_token_budget is None else f", first token {format_duration(plan.first_token_budget)}"
    click.echo(f"data class: {' + '.join(plan.data_classes) or 'none'}")
    click.echo(f"budget: {format_duration(plan.latency_budget)}{first}; hedged: {'yes' if plan.hedge else 'no'}")
    click.echo(f"policy: {plan.policy_version}")
    click.echo("\nbackends")
    for backend in explanation.backends:
        if backend.step is None:
            click.echo(f"  {backend.name}: refused")
        else:
            place = 1 + next(at for at, step in enumerate(plan.steps) if step.backend == backend.name)
            part = ", the last resort" if backend.step.last_resort else ""
            click.echo(f"  {backend.name}: number {place}{part}, {backend.step.reason}")
        for line in (*backend.against, *backend.rules):
            click.echo(f"    - {line}")
    click.echo("\nrules")
    words = {True: "matches", False: "does not match", None: "failed: its deny and only apply, nothing else of it"}
    for rule in explanation.rules:
        click.echo(f"  {rule.name}: {words[rule.holds]}")
        if rule.when is not None:
            click.echo(f"    when {rule.when}")
        click.echo(f"    {'; '.join(rule.does)}")
    for note in plan.notes:
        click.echo(f"note: {note}")
    click.echo(f"\n{plan.reason}")


def _as_dict(explanation: Explanation) -> dict[str, Any]:
    return {
        **as_dict(explanation.plan),
        "hedge": explanation.plan.hedge,
        "backends": [
            {
                "backend": each.name,
                "permitted": each.step is not None,
                "reason": None if each.step is None else each.step.reason,
                "against": list(each.against),
                "rules": list(each.rules),
            }
            for each in explanation.backends
        ],
        "rules": [
            {"name": each.name, "when": each.when, "holds": each.holds, "does": list(each.does)}
            for each in explanation.rules
        ],
    }
