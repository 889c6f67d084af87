"""How a command ends: its exit code, and its error as people read it."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import asdict
from enum import IntEnum
from typing import Any

import click

from ...core.decision import Decision
from ...core.errors import (
    ConfigurationError,
    DeadlineExceeded,
    EdgewiseError,
    InvalidRequest,
    NoBackendPermitted,
    RequestError,
)
from ...core.problem import Problem
from .terminal import console


class ExitCode(IntEnum):
    """What a command's exit code means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOTHING_PERMITTED = 3
    DEADLINE_EXCEEDED = 4
    INTERRUPTED = 130


_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""How writing to standard output fails, beside a broken pipe, which ends a command without a word."""

MEANINGS = (
    (ExitCode.OK, "all went well"),
    (ExitCode.FAILED, "the request failed, or problems were found"),
    (ExitCode.USAGE, "the command or the request is wrong as written"),
    (ExitCode.NOTHING_PERMITTED, "no backend may take the request, or none can while offline"),
    (ExitCode.DEADLINE_EXCEEDED, "the budget ran out"),
    (ExitCode.INTERRUPTED, "interrupted"),
)


class CommandError(EdgewiseError):
    """A command cannot do what it should. ``mend`` says what to do about it."""

    def __init__(self, sentence: str, mend: str) -> None:
        super().__init__(sentence)
        self.mend = mend


def exit_code(error: EdgewiseError) -> ExitCode:
    """The exit code that an error ends a command with."""
    match error:
        case NoBackendPermitted():
            return ExitCode.NOTHING_PERMITTED
        case DeadlineExceeded():
            return ExitCode.DEADLINE_EXCEEDED
        case InvalidRequest():
            return ExitCode.USAGE
        case _:
            return ExitCode.FAILED


def decision_of(error: EdgewiseError) -> Decision | None:
    """The record of the request that ended with this error, where it got as far as being decided."""
    return error.decision if isinstance(error, RequestError | InvalidRequest) else None


def show(error: EdgewiseError) -> None:
    """Print an error on stderr: its sentence, and its mend where it has one. No traceback: nothing is broken here."""
    if isinstance(error, ConfigurationError):
        click.echo(str(error), err=True)  # file:line:column, carets and mends already
        return
    from rich.text import Text

    on = console(stderr=True)
    on.print(Text("error:", "bold red"), Text(str(error)), soft_wrap=True)
    if isinstance(error, CommandError):
        on.print(Text(f"  mend: {error.mend}"), soft_wrap=True)


def error_as_dict(error: EdgewiseError) -> dict[str, Any]:
    """An error as plain values that JSON takes. A partial answer is in it, as an answer would be."""
    decision = decision_of(error)
    described: dict[str, Any] = {"type": type(error).__name__, "sentence": str(error)}
    if isinstance(error, ConfigurationError):
        described["sentence"] = "the configuration has mistakes"
        described["problems"] = [problem_as_dict(problem) for problem in error.problems]
    if partial := getattr(error, "partial", ""):
        described["partial"] = partial
    if decision is not None:
        described["decision"] = decision.to_dict()
    return {"error": described}


def problem_as_dict(problem: Problem) -> dict[str, Any]:
    """A mistake of a configuration as plain values that JSON takes."""
    described = {**asdict(problem), "severity": problem.severity.value, "path": list(problem.path)}
    del described["rests_on"]  # only for whoever judges the rest
    return described


class Commands(click.Group):
    """Commands that end as documented, in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As added: the first one to use comes first."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A typed error is printed as one; anything else is a bug and keeps its traceback."""
        try:
            if sys.stdout is None:
                raise CommandError("standard output is closed", "open it, or send it to a file")
            return super().invoke(ctx)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            show(CommandError(f"cannot write to standard output: {error.strerror}", "send it elsewhere"))
            # What is still buffered cannot be written at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(ExitCode.FAILED)
        except EdgewiseError as error:
            show(error)
            ctx.exit(exit_code(error))
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(ExitCode.INTERRUPTED)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Exit codes, which scripts rely on."""
        if ctx.parent is None:
            with formatter.section("Exit codes"):
                formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS])
        super().format_epilog(ctx, formatter)


def examples(*lines: str) -> str:
    """A help page's examples, kept as they are written."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
