"""`edgewise policy diff`: what a new version of a file opens, closes and changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .ending import ExitCode, examples
from .options import format_option
from .policy_simulate import as_dict, moves_as_list, show_moves, show_totals
from .recorded import Reading, counted, judged

if TYPE_CHECKING:
    from ...policies import Policy
    from ...policies.difference import Change
    from ...policies.replay import Changes, Totals


@click.command(
    epilog=examples(
        "edgewise policy diff edgewise.yaml new.yaml",
        "edgewise policy diff edgewise.yaml new.yaml decisions.jsonl   # and what changes for recorded requests",
        "edgewise policy diff old.yaml new.yaml --format json",
    )
)
@click.argument("old", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("new", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("logs", metavar="[LOG...]", nargs=-1, type=click.Path(dir_okay=False, path_type=Path))
@format_option
@click.pass_context
def diff(ctx: click.Context, old: Path, new: Path, logs: Sequence[Path], output: str) -> None:
    """Compare two configurations: which content may now go where it could not go before, then what else changes.

    No such change of walls, places or refusing rules is missed; one that other facts rule out may be told too. With
    decision logs, the recorded requests are judged by both, and what changes for them is told. Exits with 1 where
    something is opened.
    """
    from ...policies.compilation import canonical
    from ...policies.difference import changed_keys, compare
    from ..config import load

    before, after = load(old), load(new)
    found = compare(before.policy, after.policy)
    written_before, written_after = (
        canonical({"policy": each.policy_settings, "backends": {terms.name: terms for terms in each.policy.terms}})
        for each in (before, after)
    )
    keys = changed_keys(written_before, written_after)
    replayed = _replayed(before.policy, after.policy, logs)
    if output == "json":
        opened, closed = ([asdict(each) for each in changes] for changes in (found.opened, found.closed))
        versions = {"old_version": before.policy.version, "new_version": after.policy.version}
        recorded = None if replayed is None else replayed.as_dict()
        told = {**versions, "opened": opened, "closed": closed, "changed": keys, "recorded": recorded}
        click.echo(json.dumps(told, indent=2))
    else:
        _show(found.opened, found.closed, keys)
        if replayed is not None:
            replayed.show()
    ctx.exit(ExitCode.FAILED if found.opened else ExitCode.OK)


def _show(opened: tuple[Change, ...], closed: tuple[Change, ...], keys: list[str]) -> None:
    for each in opened:
        click.secho(f"OPENED: {_content(each)} MAY NOW GO TO {each.backend}", fg="red", bold=True, nl=False)
        click.echo(f" ({each.why})")
    for each in closed:
        click.echo(f"closed: {_content(each)} may no longer go to {each.backend} ({each.why})")
    for key in keys:
        click.echo(f"changed: {key}")
    if not keys:
        click.echo("nothing changes")
    elif not opened:
        click.echo("nothing may go where it could not go before")


@dataclass(frozen=True, slots=True)
class _Replayed:
    """Recorded requests by both policies."""

    reading: Reading
    changes: Changes
    old: Totals
    new: Totals

    def show(self) -> None:
        self.reading.show()
        for what, moves in (("may now go", self.changes.opened), ("may no longer go", self.changes.closed)):
            for backend, move in sorted(moves.items()):
                click.echo(f"{counted(move.count, 'recorded request')} {what} to {backend}, such as")
                click.echo(f"  {move.example}: {move.why}")
        show_totals({"old": self.old, "new": self.new})
        show_moves(self.changes.moved)
        click.echo(f"only those that follow the first choice differ: {counted(self.changes.reordered, 'decision')}")
        click.echo(f"budgets, hedging, retries or failover differ: {counted(self.changes.handled, 'decision')}")

    def as_dict(self) -> dict[str, Any]:
        opened, closed = (
            {backend: asdict(move) for backend, move in sorted(moves.items())}
            for moves in (self.changes.opened, self.changes.closed)
        )
        return {
            **self.reading.as_dict(),
            "old": as_dict(self.old),
            "new": as_dict(self.new),
            "opened": opened,
            "closed": closed,
            "moved": moves_as_list(self.changes.moved),
            "reordered": self.changes.reordered,
            "handled": self.changes.handled,
        }


def _replayed(old: Policy, new: Policy, logs: Sequence[Path]) -> _Replayed | None:
    from ...policies.replay import Changes, Totals, judge

    if not logs:
        return None
    replayed = _Replayed(Reading(), Changes(), Totals(), Totals())
    for recorded, facts in judged(logs, [old, new], {}, replayed.reading):
        before, after = (
            judge(policy, each, recorded.prompt_tokens, recorded.output_tokens)
            for policy, each in zip((old, new), facts, strict=True)
        )
        replayed.old.add(before.choice)
        replayed.new.add(after.choice)
        replayed.changes.add(before, after)
    return replayed


def _content(change: Change) -> str:
    return f"content of class {' + '.join(change.data_classes)}" if change.data_classes else "content without a class"
