"""`edgewise init`: a starter configuration for this machine."""

from __future__ import annotations

from pathlib import Path

import click

from ...backends.models.model_file import sha256_of
from .ending import CommandError, examples
from .machine import LLAMA, MINILM, MINILM_TOKENIZER, ONNX, SMOLLM2, PackagedModel
from .options import DEFAULT_FILE, cases_beside
from .starter import PRESETS, Found, FoundModel, starter
from .terminal import console


@click.command(
    epilog=examples(
        "edgewise init",
        "edgewise init --remote 127.0.0.1:50051",
        "edgewise init --preset health-on-device",
        "edgewise init clinic.yaml --force",
    )
)
@click.argument("path", metavar="[PATH]", default=DEFAULT_FILE, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--remote", metavar="HOST:PORT", help="A model service to use, such as one of `edgewise serve`.")
@click.option("--preset", type=click.Choice(PRESETS), help="A policy to start from; docs/policy.md explains each.")
@click.option("--force", is_flag=True, help="Replace the files where there are any.")
def init(path: Path, remote: str | None, preset: str | None, force: bool) -> None:
    """Write a commented configuration for what is found on this machine.

    PATH is edgewise.yaml where absent. Looks for engines and for packages that carry small models, and
    writes down their sha256, so that an altered file is refused. Beside it, as edgewise.tests.yaml, stand cases
    that show what the policy does.
    """
    from .starter_cases import starter_cases

    cases = cases_beside(path)
    for each in (path, cases):
        if each.exists() and not force:
            raise CommandError(f"{each} is there already", "name another file, or give --force to replace it")
    if remote is not None:
        _judge_target(remote)
    found = _look_around(remote)
    if not found.backends:
        raise CommandError(
            "nothing on this machine can answer, and no --remote was named",
            f"{LLAMA.install} && {SMOLLM2.install}; or give --remote HOST:PORT",
        )
    _write(path, starter(found, preset))
    _write(cases, starter_cases(found, preset, path.name))
    click.echo(f"wrote {path}: {_account(found)}")
    click.echo(f"wrote {cases}: what its policy does, case by case")
    is_default = str(path) == DEFAULT_FILE
    click.echo(f"next: edgewise check{'' if is_default else f' {path}'}")
    click.echo(f"      edgewise policy test{'' if is_default else f' -c {path}'}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}", "name a file that you may write") from None


def _judge_target(remote: str) -> None:
    from ...backends.grpc.target import parse_target

    try:
        parse_target(remote)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--remote") from None


def _look_around(remote: str | None) -> Found:
    generates = _found(SMOLLM2) if LLAMA.installed else None
    embeds = None
    if ONNX.installed:
        model, tokenizer = _found(MINILM), _found(MINILM_TOKENIZER)
        embeds = (model, tokenizer) if model and tokenizer else None
    return Found(generates, embeds, remote)


def _found(model: PackagedModel) -> FoundModel | None:
    path = model.locate()
    if path is None:
        return None
    from rich.progress import Progress

    on = console(stderr=True)
    with Progress(console=on, transient=True, disable=not on.is_terminal) as progress:
        bar = progress.add_task(f"sha256 of {path.name}", total=path.stat().st_size)
        return FoundModel(model, sha256_of(path, lambda size: progress.advance(bar, size)))


def _account(found: Found) -> str:
    parts = []
    if found.generates:
        parts.append(f"phone ({found.generates.model.name} by llama.cpp)")
    if found.embeds:
        parts.append("embedder (all-MiniLM-L6-v2 by ONNX Runtime)")
    if found.remote:
        parts.append(f"cloud ({found.remote})")
    return ", ".join(parts)
