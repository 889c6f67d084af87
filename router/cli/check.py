"""`edgewise check`: judge a configuration without starting anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ...core.errors import ConfigurationError, ModelUnavailable
from .ending import ExitCode, examples, problem_as_dict
from .options import config_option, format_option

if TYPE_CHECKING:
    from ...core.problem import Problem
    from ..config import Configuration


@click.command(
    epilog=examples(
        "edgewise check",
        "edgewise check clinic.yaml --format json",
    )
)
@click.argument("file", metavar="[FILE]", required=False)
@config_option
@format_option
@click.pass_context
def check(ctx: click.Context, file: str | None, path: Path, output: str) -> None:
    """Judge a configuration: every mistake at once, each with its line and its mend. Starts nothing.

    FILE is another way to name the configuration. Warnings are shown, and are no mistakes.
    """
    if file is not None and ctx.get_parameter_source("path") is ParameterSource.COMMANDLINE:
        raise click.UsageError("give FILE or --config, not both")
    path = path if file is None else Path(file)
    problems, well = _judge(path)
    if output == "json":
        click.echo(json.dumps({"ok": well, "problems": [problem_as_dict(problem) for problem in problems]}, indent=2))
    else:
        for problem in problems:
            click.echo(problem.render())
        click.echo(f"{path}: {_verdict(problems, well)}")
    ctx.exit(ExitCode.OK if well else ExitCode.FAILED)


def _judge(path: Path) -> tuple[Sequence[Problem], bool]:
    from ..config import load

    try:
        configuration = load(path)
    except ConfigurationError as error:
        return error.problems, False
    return [*configuration.warnings, *_missing_models(configuration)], True


def _missing_models(configuration: Configuration) -> list[Problem]:
    """Warnings of model files that are not here: a configuration may be judged on another machine than it runs on."""
    from ...core.problem import Problem, Severity

    missing = []
    for name, model in configuration.models.items():
        try:
            model.locate()
        except ModelUnavailable as error:
            mend = "nothing to mend if this machine only judges the file"
            missing.append(Problem(str(error), mend, ("models", name, "source"), Severity.WARNING))
    return missing


def _verdict(problems: Sequence[Problem], well: bool) -> str:
    warnings = sum(problem.severity == "warning" for problem in problems)
    errors = len(problems) - warnings
    parts = [] if well else [_counted(errors, "error")]
    if warnings:
        parts.append(_counted(warnings, "warning"))
    return "; ".join(["good", *parts]) if well else ", ".join(parts)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
