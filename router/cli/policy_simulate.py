"""`edgewise policy simulate`: recorded decisions judged again by another policy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...core.duration import format_duration, parse_duration
from .ending import examples
from .options import config_option, format_option
from .recorded import Reading, counted, judged

if TYPE_CHECKING:
    from ...policies import Policy
    from ...policies.replay import Moves, Totals

_MOST_MOVES = 20


@click.command(
    epilog=examples(
        "edgewise policy simulate decisions.jsonl                  # by the policy in edgewise.yaml",
        "edgewise policy simulate -c cheaper.yaml decisions.jsonl.1 decisions.jsonl",
        "edgewise policy simulate -c new.yaml decisions.jsonl --assume gateway=800ms --format json",
    )
)
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@config_option
@click.option(
    "--assume",
    multiple=True,
    metavar="NAME=TIME",
    help="How long a backend typically takes that the log does not know; may be repeated.",
)
@format_option
def simulate(logs: Sequence[Path], path: Path, assume: Sequence[str], output: str) -> None:
    """Replay a decision log by the policy of a configuration: where would the requests have gone?

    Each recorded decision is judged again by the facts of its time: labels, link, device, hour, spending, and each
    backend's readiness and predicted time. Told are the first choices, how long they would likely take, and what they
    would cost by the configuration's prices, if answers were as long as they were. A backend that the log does not know
    is left out unless `--assume` says how long it takes.
    """
    from ...policies.replay import Totals, count_move, judge
    from ..config import load

    policy = load(path).policy
    assumed = _assumed(assume, policy)
    reading, before, after, took = Reading(), Totals(), Totals(), list[float]()
    moved: Moves = {}
    for recorded, (facts,) in judged(logs, [policy], assumed, reading):
        verdict = judge(policy, facts, recorded.prompt_tokens, recorded.output_tokens)
        before.add(recorded.choice)
        after.add(verdict.choice)
        count_move(moved, None if recorded.choice is None else recorded.choice.backend, verdict)
        if recorded.ended is not None:
            took.append(recorded.ended)
    unknown = [each.name for each in policy.terms if each.name not in reading.backends | assumed.keys()]
    if output == "json":
        told = {
            "policy_version": policy.version,
            **reading.as_dict(),
            "recorded": {**as_dict(before), "took": _quantiles(took)},
            "simulated": as_dict(after),
            "moved": moves_as_list(moved),
            "not_in_the_log": unknown,
        }
        click.echo(json.dumps(told, indent=2))
        return
    reading.show()
    show_totals({"as recorded": before, f"by {path.name}": after})
    if took:
        p50, p95 = (_shown(each) for each in _quantiles(took).values())
        click.echo(f"recorded answers really took {p50}, and 95 % of them at most {p95}")
    show_moves(moved)
    if unknown:
        names = ", ".join(unknown)
        click.echo(f"not in the log, so left out: {names}; `--assume {unknown[0]}=1s` says how long it takes")


def _assumed(texts: Sequence[str], policy: Policy) -> dict[str, float]:
    assumed: dict[str, float] = {}
    names = [each.name for each in policy.terms]
    for text in texts:
        name, _, time = text.partition("=")
        try:
            assumed[name] = parse_duration(time)
        except ValueError:
            raise click.BadParameter("write NAME=TIME, such as gateway=800ms", param_hint="--assume") from None
        if name not in names:
            raise click.BadParameter(f"there is no backend {name!r}: {', '.join(names)}", param_hint="--assume")
        if assumed[name] <= 0:
            raise click.BadParameter("nothing takes no time", param_hint="--assume")
    return assumed


def show_totals(totals: Mapping[str, Totals]) -> None:
    """The totals side by side."""
    from rich.table import Table

    from .terminal import console

    table = Table("", *totals)
    columns = list(totals.values())
    for name in sorted(set[str]().union(*(each.first for each in columns))):
        table.add_row(f"first: {name}", *[f"{each.first[name]:,}" for each in columns])
    table.add_row("nobody permitted", *[f"{each.nobody:,}" for each in columns])
    table.add_row("US dollars", *[f"{each.cost:.4f}" for each in columns])
    quantiles = [_quantiles(each.seconds) for each in columns]
    table.add_row("predicted time, median", *[_shown(each["p50"]) for each in quantiles])
    table.add_row("predicted time, 95 %", *[_shown(each["p95"]) for each in quantiles])
    shares = [each.likely_in_time for each in columns]
    table.add_row("expected in time", *["–" if each is None else f"{each:.1%}" for each in shares])
    console().print(table)


def show_moves(moved: Moves) -> None:
    """Whose first choice changes, the most frequent first."""
    if not moved:
        click.echo("no first choice changes")
    ordered = _sorted(moved)
    for (before, after), move in ordered[:_MOST_MOVES]:
        click.echo(f"{counted(move.count, 'decision')}: {before or 'nobody'} -> {after or 'nobody'}, such as")
        click.echo(f"  {move.example}: {move.why}")
    if len(ordered) > _MOST_MOVES:
        click.echo(f"and {counted(len(ordered) - _MOST_MOVES, 'other change')} of first choices")


def as_dict(totals: Totals) -> dict[str, Any]:
    """Totals as JSON takes them."""
    return {
        "first": dict(sorted(totals.first.items())),
        "nobody": totals.nobody,
        "cost": totals.cost,
        "predicted": _quantiles(totals.seconds),
        "in_time": totals.likely_in_time,
    }


def moves_as_list(moved: Moves) -> list[dict[str, Any]]:
    """Moves as JSON takes them, the most frequent first."""
    return [
        {"from": before, "to": after, "count": move.count, "example": move.example, "why": move.why}
        for (before, after), move in _sorted(moved)
    ]


def _sorted(moved: Moves) -> list[tuple[tuple[str | None, str | None], Any]]:
    return sorted(moved.items(), key=lambda each: -each[1].count)


def _shown(seconds: float | None) -> str:
    return "–" if seconds is None else format_duration(seconds)


def _quantiles(seconds: Sequence[float]) -> dict[str, float | None]:
    from ...policies.replay import quantile

    return {"p50": quantile(seconds, 0.5), "p95": quantile(seconds, 0.95)}
