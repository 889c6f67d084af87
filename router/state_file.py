"""What the router has learned, in one small file: read when a router is made, written while it runs and at its end.

Writing never waits for the disk on a request's way, and never fails a request. A file that cannot be read is set aside,
reported, and the router begins without.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from .patience import tried
from .snapshot import JsonValue, Lasting, Summed, Unreadable, number, table

T = TypeVar("T")

log = logging.getLogger("edgewise")

SAVE_EVERY = 30.0
"""Seconds between two writings, where something has changed: a process that is killed forgets no more than that."""

UNKNOWN_AGE = 10 * 365 * 86400.0
"""How old a file counts that was written in the future: the clock was set back, and nobody knows how far."""

_VERSION = 1
_LARGEST = 4_000_000
_LONGEST_CLOSE = 5.0
_LONGEST_LOCK = 2.0


class StateFile:
    """Keeps what its parts know. Reads at once; `start` and `close` belong to one event loop.

    Several processes may share a file. Of most parts the last one to write wins; what is summed is added up: each reads
    what the others have added before it writes, and every half a minute.

    ``wall_clock`` gives local time: it alone goes on while no process runs.
    """

    def __init__(self, path: Path, wall_clock: Callable[[], datetime]) -> None:
        self._path = path
        self._wall_clock = wall_clock
        self._parts: Mapping[str, Lasting] = {}
        self._sums: Mapping[str, Summed] = {}
        self._saved: JsonValue = None
        self._closing = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._damage: tuple[bytes, str] | None = None
        """What the file was when it was found to be damaged, and how."""
        self._complained = False
        self._raw = b""
        self._read = self._load()

    def start(self, parts: Mapping[str, Lasting], sums: Mapping[str, Summed]) -> None:
        """Give every part what it knew, each under its name, and keep what they know from here on."""
        self._parts, self._sums = {**parts, **sums}, sums
        self._restore()
        # What was whole in a damaged file is written anew, because that is set aside.
        self._saved = None if self._damage else self._snapshot()
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Write what has changed and end; after five seconds without having written, where the disk hangs."""
        if self._keeping is not None:
            self._closing.set()
            await asyncio.wait([self._keeping], timeout=_LONGEST_CLOSE)

    def _load(self) -> Mapping[str, JsonValue]:
        try:
            raw = self._bytes()
        except OSError as error:
            self._complain("read", error)
            return {}
        return {} if raw is None else self._judged(raw)

    def _bytes(self) -> bytes | None:
        """What is in the file; ``None`` where there is none."""
        try:
            with self._path.open("rb") as file:
                return file.read(_LARGEST + 1)
        except FileNotFoundError:
            return None

    def _judged(self, raw: bytes) -> Mapping[str, JsonValue]:
        """What the file says; nothing where it is damaged, which is noted."""
        try:
            if len(raw) > _LARGEST:
                raise Unreadable("too large")
            stored = table(json.loads(raw))
            if number(stored, "edgewise_state") != _VERSION:
                raise Unreadable("of another version")
            number(stored, "saved_at")
            number(stored, "clock")
            table(stored, "parts")
        except (ValueError, RecursionError) as error:
            self._damage = raw, str(error) if isinstance(error, Unreadable) else "no JSON"
            return {}
        self._raw = raw
        return stored

    def _restore(self) -> None:
        if not self._read:
            return
        age = self._wall_clock().timestamp() - number(self._read, "saved_at")
        if age < 0:
            age = UNKNOWN_AGE
        shift = asyncio.get_running_loop().time() - number(self._read, "clock") - age
        values = table(self._read, "parts")
        for name, part in self._parts.items():
            if name in values:
                try:
                    part.restore(values[name], shift)
                except Unreadable as error:
                    self._damage = self._raw, f"{name}: {error}"

    async def _keep(self) -> None:
        if self._damage:
            await self._save()
        while not self._closing.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(SAVE_EVERY):
                    await self._closing.wait()
            if not self._closing.is_set():
                await self._save()
        await self._save()

    async def _save(self) -> None:
        """Take what others have added, and write what was learned here, if anything: one process at a time."""
        learned = self._snapshot() != self._saved
        if not learned and await self._in_executor("read", self._is_as_left):
            return
        lock = await self._in_executor("written", self._lock)
        if lock is None:
            return
        try:
            held = await self._in_executor("read", self._read_under_lock)
            if held is not None:
                await self._join(held, learned=self._snapshot() != self._saved)
        finally:
            os.close(lock)

    async def _join(self, held: Mapping[str, JsonValue], *, learned: bool) -> None:
        for name, part in self._sums.items():
            part.join(held.get(name))
        parts = self._snapshot()
        stored: JsonValue = {
            "edgewise_state": _VERSION,
            "saved_at": self._wall_clock().timestamp(),
            "clock": asyncio.get_running_loop().time(),
            "parts": parts,
        }
        data = json.dumps(stored, indent=1, allow_nan=False).encode()
        if not learned or await self._in_executor("written", self._write, data):
            self._saved = parts
            for part in self._sums.values():
                part.filed()

    def _snapshot(self) -> dict[str, JsonValue]:
        return {name: part.snapshot() for name, part in self._parts.items()}

    async def _in_executor(self, what: str, function: Callable[..., T], *arguments: object) -> T | None:
        """What it returns, or ``None`` where the disk failed, which is said once."""
        try:
            return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)
        except OSError as error:
            self._complain(what, error)
            return None

    def _complain(self, what: str, error: OSError) -> None:
        """Once: a full disk would otherwise fill another log."""
        if not self._complained:
            self._complained = True
            log.warning("the state file %s cannot be %s: %s", self._path.name, what, error.strerror)

    def _is_as_left(self) -> bool:
        """Whether it holds what this process has last seen in it, or is gone."""
        raw = self._bytes()
        return raw is None or raw == self._raw

    def _lock(self) -> int:
        """Take the lock beside it; held until it is closed. Not for ever: who holds it may have been stopped."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._path.with_name(self._path.name + "-lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

        def taken() -> bool:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        if not tried(taken, _LONGEST_LOCK):
            os.close(lock)
            raise OSError(errno.EWOULDBLOCK, "another process keeps it locked")
        return lock

    def _read_under_lock(self) -> Mapping[str, JsonValue]:
        """Its parts. A damaged file is set aside, unless another process has done so and begun a new one."""
        raw = self._bytes()
        if raw is None:
            return {}
        stored = self._judged(raw)
        if self._damage is not None and self._damage[0] == raw:
            self._set_aside(self._damage[1])
            self._saved, stored = None, {}
        self._damage = None
        return table(stored, "parts") if stored else {}

    def _write(self, data: bytes) -> bool:
        """Put a new file in place of the old one, whole or not at all."""
        new = self._path.with_name(self._path.name + ".new")
        with suppress(FileNotFoundError):
            new.unlink()  # of a process that died in the middle
        with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self._path)
        self._raw = data
        return True

    def _set_aside(self, damage: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        aside = self._path.with_name(f"{self._path.name}.damaged-{stamp}")
        os.rename(self._path, aside)
        log.error("the state file %s was damaged (%s); it is set aside as %s", self._path.name, damage, aside.name)
