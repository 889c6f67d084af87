"""What a configuration says of a token that does not last, and what can be wrong with it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ..core.problem import Path as ProblemPath
from ..core.problem import Problem
from ..core.settings import FilePath, Seconds, Secret

_TEN_MINUTES = Seconds(600.0)

_PATH: ProblemPath = ("credentials_from",)


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Where a token comes from that is replaced from time to time. One of the three."""

    file: Annotated[FilePath | None, "a file that holds the token alone; read again whenever it has changed"] = None
    command: Annotated[
        tuple[str, ...], "a program and its arguments, run without a shell, that prints the token alone"
    ] = ()
    google: Annotated[bool, "Google's application default credentials; needs the package google-auth"] = False
    lifetime: Annotated[Seconds, "how long a token that the command prints is good"] = _TEN_MINUTES


def fits_a_header(token: str) -> bool:
    """Whether this can be sent as a token."""
    return bool(token) and all("!" <= character <= "~" for character in token)


def check_credentials(constant: Secret | None, source: TokenSource | None) -> Iterator[Problem]:
    """What is wrong with a service's credentials; paths count from the backend's own."""
    if constant is not None and not fits_a_header(constant.reveal()):
        mend = "give the bare token: visible ASCII, no spaces, no line break at its end"
        yield Problem("these cannot be sent", mend, ("credentials",))
    if source is None:
        return
    if constant is not None:
        yield Problem("the token has two sources", "remove `credentials`, or this", _PATH)
    ways = [bool(source.file), bool(source.command), source.google]
    if sum(ways) != 1:
        yield Problem("the token has no one source", "give one of `file`, `command` and `google: true`", _PATH)
    if source.file is not None and not _can_be_read(source.file):
        yield Problem(f"cannot read {source.file}", "put the token there", (*_PATH, "file"))
    if source.command and shutil.which(source.command[0]) is None:
        mend = "write the program's whole path, and each argument by itself"
        yield Problem(f"there is no program {source.command[0]!r}", mend, (*_PATH, "command"))
    if source.google and not _has_google_auth():
        yield Problem("google-auth is not installed", "run `pip install 'edgewise[google]'`", (*_PATH, "google"))
    if source.lifetime <= 0:
        yield Problem("no token is ever good", "write a time such as `30m`", (*_PATH, "lifetime"))


def _can_be_read(path: str) -> bool:
    try:
        Path(path).read_bytes()
    except OSError:
        return False
    return True


def _has_google_auth() -> bool:
    try:
        return importlib.util.find_spec("google.auth") is not None
    except ModuleNotFoundError:  # there is no `google` at all
        return False
