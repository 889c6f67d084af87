"""`edgewise queue`: look at what waits, send it, give it up, take it elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import OutboxError
from .ending import Commands, examples
from .options import config_option, format_option

if TYPE_CHECKING:
    from ..outbox import Entry, Store, Tally

_DIGITS_SHOWN = 8

content_option = click.option("--content", "with_content", is_flag=True, help="Show prompts and answers too.")
receipts_argument = click.argument("receipts", nargs=-1, metavar="RECEIPT…")


@click.group(
    cls=Commands,
    short_help="Look after queued requests.",
    epilog=examples(
        "edgewise queue list",
        "edgewise queue flush",
        "edgewise queue show --content 1f0c",
        "edgewise queue export --content > queue.jsonl",
    ),
)
def queue() -> None:
    """Look after the requests that an application has submitted.

    They are in the file that `policy.offline.outbox` names. A receipt may be shortened to its first digits. No content
    is shown unless --content asks for it.
    """


@queue.command("list", epilog=examples("edgewise queue list", "edgewise queue list --state dead --format json"))
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(["queued", "answered", "dead"]),
    help="None but these; may be repeated.",
)
@config_option
@format_option
def list_entries(states: tuple[str, ...], path: Path, output: str) -> None:
    """List requests: what waits, what was answered, what was given up."""
    from ..outbox import State

    with _store(path) as store:
        entries = store.all(time.time(), [State(state) for state in states] or tuple(State))
    if output == "json":
        click.echo(json.dumps([_as_dict(entry, with_content=False) for entry in entries], indent=2))
    else:
        _show_table(entries)


@queue.command(epilog=examples("edgewise queue show 1f0c", "edgewise queue show --content 1f0c"))
@click.argument("receipt")
@content_option
@config_option
@format_option
def show(receipt: str, with_content: bool, path: Path, output: str) -> None:
    """Show all that is known of one request."""
    with _store(path) as store:
        [entry] = _chosen(store, [receipt])
    described = _as_dict(entry, with_content=with_content)
    if output == "json":
        click.echo(json.dumps(described, indent=2))
        return
    for key, value in described.items():
        click.echo(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")


@queue.command(epilog=examples("edgewise queue flush", "edgewise queue flush --format json"))
@config_option
@format_option
def flush(path: Path, output: str) -> None:
    """Try every queued request once, now, and wait for the answers.

    Exits with 1 where another process replays the same outbox.
    """
    from .running import run

    with _store(path) as store:
        store.count_queued()  # for a router there is nothing to send where there is no outbox: here that is a mistake
    tally = run(_flush(path))
    if output == "json":
        click.echo(json.dumps({"answered": tally.answered, "waiting": tally.waiting, "dead": tally.dead}))
    else:
        click.echo(_sentence(tally))


@queue.command(epilog=examples("edgewise queue retry 1f0c 77ab", "edgewise queue retry --all && edgewise queue flush"))
@receipts_argument
@click.option("--all", "everything", is_flag=True, help="All dead letters whose content is still there.")
@config_option
@format_option
def retry(receipts: tuple[str, ...], everything: bool, path: Path, output: str) -> None:
    """Queue dead letters again, or end the wait of queued requests. Sends nothing itself."""
    from ..outbox import State, expiry

    if everything == bool(receipts):
        raise click.UsageError("name receipts, or give --all")
    with _store(path) as store:
        entries = store.all(time.time(), [State.DEAD]) if everything else _chosen(store, receipts)
        lifetime = _lifetime(path)
        revived = [entry.receipt for entry in entries if store.revive(entry.receipt, expiry(time.time(), lifetime))]
    _report("queued again", revived, output)
    if not everything and len(revived) < len(entries):
        raise OutboxError("the others were answered, or their content is erased: submit them anew")


@queue.command(epilog=examples("edgewise queue drop 1f0c 77ab"))
@receipts_argument
@config_option
@format_option
def drop(receipts: tuple[str, ...], path: Path, output: str) -> None:
    """Erase requests, whatever their state: prompt and answer go, a dead letter stays."""
    if not receipts:
        raise click.UsageError("name at least one receipt")
    with _store(path) as store:
        entries = _chosen(store, receipts)
        dropped = [entry.receipt for entry in entries if store.drop(entry.receipt, time.time())]
    _report("dropped", dropped, output)


@queue.command(epilog=examples("edgewise queue export > queue.jsonl", "edgewise queue export --content > queue.jsonl"))
@content_option
@config_option
def export(with_content: bool, path: Path) -> None:
    """Write all requests as lines of JSON, with the keys that `show --format json` has.

    With --content, an encrypted outbox's prompts and answers are written as they are: keep the file accordingly.
    """
    with _store(path) as store:
        for entry in store.all(time.time()):
            click.echo(json.dumps(_as_dict(entry, with_content=with_content)))


@contextmanager
def _store(path: Path) -> Iterator[Store]:
    from ..config import load
    from ..outbox import Store

    settings = load(path).policy_settings.offline
    if settings.outbox is None:
        raise OutboxError("no outbox is configured; name its file in `policy.offline.outbox`")
    store = Store(Path(settings.outbox), settings.encryption)
    try:
        yield store
    finally:
        store.close()


def _lifetime(path: Path) -> float:
    from ..config import load

    return load(path).policy_settings.offline.queue_ttl


def _chosen(store: Store, receipts: Sequence[str]) -> list[Entry]:
    """The entries whose receipts begin so. Raises `OutboxError` for none, or several."""
    entries = store.all(time.time())
    chosen = []
    for receipt in receipts:
        matching = [entry for entry in entries if entry.receipt.startswith(receipt)]
        if len(matching) != 1:
            count = "no request" if not matching else f"{len(matching)} requests"
            raise OutboxError(f"{count} with a receipt that begins with {receipt!r}; see `edgewise queue list`")
        chosen += matching
    return chosen


async def _flush(path: Path) -> Tally:
    from .opening import open_router
    from .terminal import console

    on = console(stderr=True)
    async with open_router(path) as router:
        if not on.is_terminal:
            return await router.flush()
        with on.status("replaying the queue") as status:
            return await router.flush(lambda tally: status.update(_progress(tally)))


def _progress(tally: Tally) -> str:
    tried = tally.answered + tally.waiting + tally.dead
    return f"{tried} of {tally.total} tried: {_sentence(tally)}"


def _sentence(tally: Tally) -> str:
    return f"{tally.answered} answered, {tally.waiting} still waiting, {tally.dead} given up"


def _report(what: str, receipts: Sequence[str], output: str) -> None:
    if output == "json":
        click.echo(json.dumps({"receipts": list(receipts)}))
    else:
        click.echo(f"{len(receipts)} {what}")


def _show_table(entries: Sequence[Entry]) -> None:
    from rich.table import Table
    from rich.text import Text

    from .terminal import console

    on = console()
    if not entries:
        on.print(Text("the outbox is empty"))
        return
    table = Table("receipt", "state", "priority", "submitted", "sends", "bytes", "why")
    for entry in entries:
        table.add_row(
            entry.receipt[:_DIGITS_SHOWN],
            entry.ending or entry.state,
            entry.priority,
            _time(entry.submitted_at),
            str(entry.sends),
            str(entry.bytes),
            entry.sentence,
        )
    on.print(table)


def _as_dict(entry: Entry, *, with_content: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "receipt": entry.receipt,
        "state": entry.state.value,
        "ending": None if entry.ending is None else entry.ending.value,
        "why": entry.sentence,
        "priority": entry.priority.value,
        "order_key": entry.order_key,
        "submitted_at": _time(entry.submitted_at),
        "expires_at": _time(entry.expires_at),
        "ended_at": None if entry.ended_at is None else _time(entry.ended_at),
        "sends": entry.sends,
        "bytes": entry.bytes,
        "labels": _as_json(entry.labels),
    }
    if with_content:
        described["content"] = _as_json(entry.content)
        described["answer"] = _as_json(entry.answer)
    return described


def _as_json(stored: str | None) -> Any:
    """What is stored, or ``None`` where it was erased or cannot be read."""
    try:
        return None if stored is None else json.loads(stored)
    except (ValueError, RecursionError):
        return None


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
