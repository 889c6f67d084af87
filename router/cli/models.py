"""`edgewise models`: the files of models, before anything needs them. The one command that fetches any."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...backends.models import ModelFile, ModelSettings, store_folder
from ...backends.models.sources import has_control, parse_source
from ...core.errors import ModelUnavailable
from .ending import CommandError, ExitCode, examples, show
from .options import DEFAULT_FILE, format_option
from .terminal import console

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from ...backends.models.download import Progress
    from ...backends.models.store import ModelStore, StoredModel

_SHORT = 12

_config_option = click.option(
    "-c",
    "--config",
    "path",
    envvar="EDGEWISE_CONFIG",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"The configuration file. [default: {DEFAULT_FILE}, where there is one]",
)


def _without_control(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and has_control(value):
        raise click.BadParameter("it has control characters")
    return value


@click.group(short_help="List, fetch, prove and remove the files of models.")
def models() -> None:
    """List, fetch, prove and remove the files of models.

    Fetched files lie in a store that all applications of this user share: the folder EDGEWISE_MODELS, or one in the
    user's cache. Nothing else ever fetches a model: what is not here when it is needed is an error at once.
    """


@models.command("list", epilog=examples("edgewise models list", "edgewise models list --format json"))
@_config_option
@format_option
def list_(path: Path | None, output: str) -> None:
    """List the models of the configuration, whether each is here, and what else the store holds or began to fetch."""
    configured = _configured(path)
    named = [_account(model) for model in configured.values()]
    sums = {model.settings.sha256 and model.settings.sha256.lower() for model in configured.values()}
    others = [_entry_as_dict(entry) for entry in _store().entries() if entry.sha256 not in sums]
    unfinished = [_entry_as_dict(entry) for entry in _store().unfinished()]
    if output == "json":
        whole = {"store": str(store_folder()), "models": named, "others": others, "unfinished": unfinished}
        click.echo(json.dumps(whole, indent=2))
        return
    for account in named:
        _show(account["name"], account, "here" if account["here"] else account["why_not"])
    for entry in others:
        _show(entry["sha256"][:_SHORT], entry, "in the store, and not in this configuration")
    for entry in unfinished:
        _show(entry["sha256"][:_SHORT], entry, "its fetch goes on when it is pulled or added again; `remove` drops it")
    if not named and not others and not unfinished:
        click.echo(f"no configuration here, and nothing in {store_folder()}")


@models.command(epilog=examples("edgewise models pull", "edgewise models pull smollm2"))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_config_option
@format_option
@click.pass_context
def pull(ctx: click.Context, names: tuple[str, ...], path: Path | None, output: str) -> None:
    """Fetch what the configuration needs and is not here: all of it, or the models named.

    A fetch that was cut goes on where it ended. A file whose sha256 is not the configuration's is thrown away. One
    that cannot be fetched does not keep the others from it.
    """
    chosen = _chosen(names, path)
    missing = 0
    for model in chosen:
        try:
            _pull(model, say=click.echo if output == "text" else _to_stderr)
        except ModelUnavailable as error:
            missing += 1
            show(error)
    if output == "json":
        click.echo(json.dumps({"models": [_account(model) for model in chosen]}, indent=2))
    ctx.exit(ExitCode.FAILED if missing else ExitCode.OK)


def _pull(model: ModelFile, say: Callable[[str], None]) -> None:
    if not model.fetched:
        say(f"{model.name} lies at {model.locate()}")
        return
    say(f"{model.name}: {model.settings.source}, licence {_licence(model.settings.license)}")
    if model.pinned is None:
        model.locate()  # raises: it says how to get the sum
    with _shown(model.name) as progress:
        entry = _store().add(model, progress)
    say(f"{model.name} is here: {entry.path}, {_size(entry.size)}")


@models.command(
    epilog=examples(
        "edgewise models add hf:owner/name/model.gguf@v1.0 --license apache-2.0",
        "edgewise models add https://models.example.com/small.onnx",
        "edgewise models add file:/media/usb/model.gguf      # also for a device without a network",
        "edgewise models add hf:owner/name/onnx/@v1.0        # a folder: all files that lie in it",
    )
)
@click.argument("source")
@click.option("--sha256", metavar="HEX", help="What the file must have; without it, what comes is believed.")
@click.option(
    "--license", "license_", metavar="SPDX", callback=_without_control, help="The licence, kept beside the file."
)
@click.option("--name", default="model", show_default=True, metavar="NAME", help="The name in the lines to copy.")
@format_option
def add(source: str, sha256: str | None, license_: str | None, name: str, output: str) -> None:
    """Bring a model into the store, and print the lines for the configuration's `models:`.

    SOURCE is file:PATH, package:IMPORT_NAME/FILE, https://… or hf:OWNER/NAME/FILE@REVISION. With a / at its end (before
    the @) it is all files of a folder, and so is the sha256.
    """
    if parse_source(source) is None:
        raise click.BadParameter("it is none of those that the help lists", param_hint="SOURCE")
    model = ModelFile(name, ModelSettings(source, sha256, license_), Path.cwd())
    with _shown(name) as progress:
        entry = _store().add(model, progress)
    click.echo(f"in the store: {entry.path}, {_size(entry.size)}, licence {_licence(entry.license)}", err=True)
    written = source if model.fetched else f"store:{Path(source.partition(':')[2]).name}{'/' * source.endswith('/')}"
    lines = {"source": written, "sha256": entry.sha256}
    if entry.license is not None:
        lines["license"] = entry.license
    section = {"models": {name: lines}}
    if output == "json":
        click.echo(json.dumps({**section, "path": str(entry.path), "size": entry.size}, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(section, sort_keys=False, allow_unicode=True, width=4096), nl=False)
    try:
        ModelFile(name, ModelSettings(written, entry.sha256), Path.cwd()).locate()
    except ModelUnavailable as error:
        # A folder with several models: which of them is meant, only its user can say.
        click.echo(str(error), err=True)


@models.command(epilog=examples("edgewise models verify", "edgewise models verify smollm2"))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_config_option
@format_option
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...], path: Path | None, output: str) -> None:
    """Read files whole and compare their sha256: those of the configuration and of the store, or the models named."""
    say: Callable[[str], None] = click.echo if output == "text" else _nothing
    judged = [_judge(model, say) for model in _chosen(names, path, needed=bool(names))]
    stored = [_judge_entry(entry, say) for entry in ([] if names else _store().entries())]
    if output == "json":
        click.echo(json.dumps({"models": judged, "store": stored}, indent=2))
    wrong = any(each["good"] is False for each in (*judged, *stored))
    ctx.exit(ExitCode.FAILED if wrong else ExitCode.OK)


def _judge(model: ModelFile, say: Callable[[str], None]) -> dict[str, Any]:
    """Whether a model is what it should be; None where nothing says so, and then what it is."""
    try:
        model.verify()
        if model.pinned:
            say(f"{model.name} is good")
            return {"name": model.name, "good": True, "sha256": model.pinned, "why_not": None}
        with _shown(model.name) as progress:
            total = sum(file.stat().st_size for file in model.files())
            found = model.sum(partial(progress, "proving", total=total))
    except ModelUnavailable as error:
        say(str(error))
        return {"name": model.name, "good": False, "sha256": None, "why_not": str(error)}
    say(f"{model.name} has no sha256 to compare; that of what is here is {found}")
    return {"name": model.name, "good": None, "sha256": found, "why_not": "it has no sha256 to compare"}


def _judge_entry(entry: StoredModel, say: Callable[[str], None]) -> dict[str, Any]:
    with _shown(entry.sha256[:_SHORT]) as progress:
        altered = _store().altered(entry, progress)
    say(f"{entry.sha256[:_SHORT]} in the store is {'altered; remove it and fetch it again' if altered else 'good'}")
    return {"sha256": entry.sha256, "good": not altered}


@models.command(epilog=examples("edgewise models remove smollm2", "edgewise models remove 5f1c2d3e4a5b"))
@click.argument("which", metavar="NAME|SHA256")
@_config_option
@format_option
def remove(which: str, path: Path | None, output: str) -> None:
    """Take a file out of the store: a model of the configuration, or what a sha256 begins with. Or what came of it."""
    here = _store().entries()
    entries = [*here, *(each for each in _store().unfinished() if each.sha256 not in {entry.sha256 for entry in here})]
    named = _configured(path).get(which)
    wanted = named.pinned if named is not None else which.lower()
    found = [entry for entry in entries if wanted and len(wanted) >= 6 and entry.sha256.startswith(wanted)]
    if len(found) != 1:
        say = "holds nothing by" if not found else f"holds {len(found)} files by"
        raise CommandError(f"the store {say} {which!r}", "see `edgewise models list`; give six digits or more of a sum")
    with _shown(which) as progress:
        _store().remove(found[0], progress)
    if output == "json":
        click.echo(json.dumps({"removed": _entry_as_dict(found[0])}, indent=2))
        return
    click.echo(f"removed {found[0].sha256[:_SHORT]}, {_size(found[0].size)}, from {found[0].source}")


def _to_stderr(line: str) -> None:
    click.echo(line, err=True)


def _nothing(line: str) -> None:
    """What is printed as JSON is not said as well."""


def _show(name: str, known: Mapping[str, Any], state: str) -> None:
    click.echo(f"{name}  {_size(known['size'])}  {_licence(known['license'])}  {known['source']}\n    {state}")


def _store() -> ModelStore:
    from ...backends.models.store import ModelStore

    return ModelStore(store_folder())


def _configured(path: Path | None, *, needed: bool = False) -> Mapping[str, ModelFile]:
    """The models of the configuration; none where no file was named and none lies here."""
    from ..config import load

    if path is None and not needed and not Path(DEFAULT_FILE).exists():
        return {}
    return load(path or DEFAULT_FILE).models


def _chosen(names: Sequence[str], path: Path | None, *, needed: bool = True) -> list[ModelFile]:
    configured = _configured(path, needed=needed)
    unknown = [name for name in names if name not in configured]
    if unknown:
        from ...core.suggestion import one_of

        raise CommandError(f"the configuration has no model {unknown[0]!r}", one_of(unknown[0], configured))
    return [configured[name] for name in names] if names else list(configured.values())


def _account(model: ModelFile) -> dict[str, Any]:
    settings = model.settings
    account = {"name": model.name, "source": settings.source, "sha256": settings.sha256, "license": settings.license}
    try:
        path = model.locate()
    except ModelUnavailable as error:
        return {**account, "here": False, "why_not": str(error), "path": None, "size": None}
    size = sum(file.stat().st_size for file in model.files())
    return {**account, "here": True, "why_not": None, "path": str(path), "size": size}


def _entry_as_dict(entry: StoredModel) -> dict[str, Any]:
    return {
        "sha256": entry.sha256,
        "source": entry.source,
        "license": entry.license,
        "path": str(entry.path),
        "size": entry.size,
    }


def _size(size: int | None) -> str:
    from ...backends.models.download import megabytes

    return "–" if size is None else megabytes(size)


def _licence(license_: str | None) -> str:
    return license_ or "not stated"


@contextmanager
def _shown(name: str) -> Iterator[Progress]:
    """A progress bar on a terminal; elsewhere one line when something else begins."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    on = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=on, transient=True, disable=not on.is_terminal) as bars:
        yield _Shown(name, bars)


class _Shown:
    def __init__(self, name: str, bars: Bars) -> None:
        self._name = name
        self._bars = bars
        self._bar = bars.add_task(name, total=None)
        self._doing = ""

    def __call__(self, doing: str, done: int, total: int | None) -> None:
        if doing != self._doing:
            self._doing = doing
            self._bars.reset(self._bar, description=f"{doing} {self._name}", total=total)
            if not self._bars.console.is_terminal:
                size = "" if total is None else f", {_size(total)}"
                what = "waiting for another process that brings" if doing == "waiting" else doing
                self._bars.console.print(f"{what} {self._name}{size}")
        self._bars.update(self._bar, completed=done, total=total)
