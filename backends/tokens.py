"""The token that the next call carries, for services whose tokens do not last.

A token is fetched when it is first needed, once for all calls that wait for it, and anew in the background before it
gets too old: a call waits only where there is none. What fetches it never shows it, and its output is never logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import math
import os
import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core.failure import AttemptError, FailureKind
from .file_version import FileVersion, versions
from .token_source import TokenSource, fits_a_header

log = logging.getLogger("edgewise")

_COMMAND_SECONDS = 30.0
_LARGEST_OUTPUT = 64 * 1024
_RENEWED_AT = 0.8
"""The share of its life after which a token is replaced."""

_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and how many seconds it is good from now on."""

    value: str = field(repr=False)
    good_for: float = math.inf


class TokenFault(Exception):
    """There is no token: the sentence says why, and shows none. ``lasting`` where only a person can mend it."""

    def __init__(self, sentence: str, *, lasting: bool) -> None:
        super().__init__(sentence)
        self.lasting = lasting


class Fetcher(ABC):
    """Gets tokens from one source."""

    @abstractmethod
    async def fetch(self) -> Token:
        """A token. Raises `TokenFault`."""

    def has_changed(self) -> bool:
        """Whether the source shows that it has another token than the last one fetched."""
        return False


class FileFetcher(Fetcher):
    """Reads a file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._version: FileVersion | None = None

    async def fetch(self) -> Token:
        return self._read()  # here and not in a thread: it is small, and local as secrets are

    def _read(self) -> Token:
        (self._version,) = versions([self._path])
        try:
            text = Path(self._path).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            sentence = f"cannot read its token from {self._path}: {type(error).__name__}"
        else:
            return Token(_checked(text, self._path))
        raise TokenFault(sentence, lasting=True)

    def has_changed(self) -> bool:
        return versions([self._path]) != (self._version,)


class CommandFetcher(Fetcher):
    """Runs a program."""

    def __init__(self, command: tuple[str, ...], lifetime: float) -> None:
        self._command = command
        self._lifetime = lifetime

    async def fetch(self) -> Token:
        program = self._command[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            sentence = f"cannot run {program!r} for its token: {type(error).__name__}"
            raise TokenFault(sentence, lasting=True) from None
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                output = await _output(process)
                code = await process.wait()
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            if not isinstance(error, TimeoutError):
                raise
            raise TokenFault(f"{program!r} printed no token in {_COMMAND_SECONDS:g} s", lasting=False) from None
        if code != 0:
            raise TokenFault(f"{program!r} gave no token: it ended with code {code}", lasting=False)
        return Token(_checked(output.decode("ascii", "replace"), repr(program)), self._lifetime)


class GoogleFetcher(Fetcher):
    """Asks `google-auth`, which knows every way in which Google's clients find their credentials."""

    def __init__(self) -> None:
        self._credentials: Any = None  # the library has no types

    async def fetch(self) -> Token:
        try:
            return await asyncio.to_thread(self._refreshed)
        except Exception as error:  # noqa: BLE001  # the library lets its transport's errors through
            sentence = f"google-auth gives no token: {type(error).__name__}"
            lasting = type(error).__name__ == "DefaultCredentialsError"
        raise TokenFault(sentence, lasting=lasting)

    def _refreshed(self) -> Token:
        auth = importlib.import_module("google.auth")
        transport = importlib.import_module("google.auth.transport.requests")
        session = importlib.import_module("requests").Session()
        session.trust_env = False  # no proxy from the environment
        with session:
            if self._credentials is None:
                self._credentials, _ = auth.default(scopes=[_GOOGLE_SCOPE])
            self._credentials.refresh(transport.Request(session))
        expiry: datetime | None = self._credentials.expiry  # without a zone, in UTC
        good_for = math.inf if expiry is None else (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
        return Token(_checked(self._credentials.token or "", "google-auth"), good_for)


class Tokens:
    """One service's token, kept fresh. Belongs to the event loop of its first use."""

    def __init__(self, backend: str, fetcher: Fetcher) -> None:
        self._backend = backend
        self._fetcher = fetcher
        self._token: Token | None = None
        self._renew_at = 0.0
        self._dead_at = 0.0
        self._accepted = False
        self._fetching: asyncio.Task[Token] | None = None

    async def get(self, until: float) -> str:
        """The token for a call whose deadline is ``until``, on the loop's clock. Raises `AttemptError`."""
        now = asyncio.get_running_loop().time()
        if self._token is not None and self._fetcher.has_changed():
            self._token = None
        if self._token is not None and now < self._dead_at:
            if now >= self._renew_at:
                self._fetch()
            return self._token.value
        return (await self._wait_for_another(until)).value

    def accepted(self) -> None:
        """The service took the token."""
        self._accepted = True

    def has_another(self) -> bool:
        """Whether the source shows that it has another token than the last one."""
        return self._fetcher.has_changed()

    def refused(self, value: str) -> bool:
        """The service did not take a token. Whether another one may fare better; the next call gets it then."""
        if self._token is not None and self._token.value != value:
            return True  # it has been replaced meanwhile
        other = self._fetcher.has_changed() or self._accepted
        self._token, self._accepted = None, False
        return other

    async def close(self) -> None:
        """Give up fetching."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    async def _wait_for_another(self, until: float) -> Token:
        try:
            async with asyncio.timeout_at(None if until == math.inf else until):
                return await asyncio.shield(self._fetch())
        except TimeoutError:
            kind, sentence = FailureKind.TIMED_OUT, "got no token in time"
        except TokenFault as fault:
            # A program that fails while the link is down will do better later.
            kind = FailureKind.CREDENTIALS if fault.lasting else FailureKind.UNREACHABLE
            sentence = f"has no token: {fault}; check `credentials_from`"
        raise AttemptError(kind, f"backend {self._backend!r} {sentence}")

    def _fetch(self) -> asyncio.Task[Token]:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetched())
            self._fetching.add_done_callback(self._note_fault)
        return self._fetching

    async def _fetched(self) -> Token:
        token = await self._fetcher.fetch()
        now = asyncio.get_running_loop().time()
        self._token, self._accepted = token, False
        self._renew_at = now + token.good_for * _RENEWED_AT
        self._dead_at = now + token.good_for
        return token

    def _note_fault(self, task: asyncio.Task[Token]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            text = str(fault) if isinstance(fault, TokenFault) else type(fault).__name__
            log.warning("backend %r: %s", self._backend, text)


def tokens_from(backend: str, source: TokenSource | None) -> Tokens | None:
    """What keeps the tokens of a source fresh; ``None`` where there is no such source."""
    if source is None:
        return None
    if source.file is not None:
        return Tokens(backend, FileFetcher(source.file))
    if source.command:
        return Tokens(backend, CommandFetcher(source.command, source.lifetime))
    return Tokens(backend, GoogleFetcher())


async def _output(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    output = b""
    while piece := await process.stdout.read(_LARGEST_OUTPUT):
        output += piece
        if len(output) > _LARGEST_OUTPUT:
            raise TokenFault("the command prints much more than a token", lasting=True)
    return output


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not fits_a_header(token):
        raise TokenFault(f"what {where} gives is no token: it has spaces, odd characters or nothing", lasting=True)
    return token
