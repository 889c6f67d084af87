"""`edgewise policy diff`: what a new version of a file opens, closes and changes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .ending import ExitCode, examples
from .options import format_option

if TYPE_CHECKING:
    from ...policies.difference import Change


@click.command(
    epilog=examples(
        "edgewise policy diff edgewise.yaml new.yaml", "edgewise policy diff old.yaml new.yaml --format json"
    )
)
@click.argument("old", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("new", type=click.Path(dir_okay=False, path_type=Path))
@format_option
@click.pass_context
def diff(ctx: click.Context, old: Path, new: Path, output: str) -> None:
    """Compare two configurations: which content may now go where it could not go before, then what else changes.

    No such change of walls, places or refusing rules is missed; one that other facts rule out may be told too.
    Exits with 1 where something is opened.
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
    if output == "json":
        opened, closed = ([asdict(each) for each in changes] for changes in (found.opened, found.closed))
        versions = {"old_version": before.policy.version, "new_version": after.policy.version}
        click.echo(json.dumps({**versions, "opened": opened, "closed": closed, "changed": keys}, indent=2))
    else:
        _show(found.opened, found.closed, keys)
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


def _content(change: Change) -> str:
    return f"content of class {' + '.join(change.data_classes)}" if change.data_classes else "content without a class"
