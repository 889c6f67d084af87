"""The store: models named by their sha256, each a file or a folder, shared by all processes of a user."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import ModelUnavailable
from .arrival import Arrival, bring, holds, parts, remove, size
from .download import Progress
from .folder import stored_file
from .model_file import ModelFile

_NAME = re.compile(r"[0-9a-f]{64}")
_INCOMING = "incoming"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A file or a folder of the store. ``source`` and ``license`` are what was said of it when it came."""

    sha256: str
    path: Path
    size: int
    source: str
    license: str | None


class ModelStore:
    """The models in one folder. Every method blocks, and may be used from several processes at once."""

    def __init__(self, folder: Path, *, pause: Callable[[float], None] = time.sleep) -> None:
        self.folder = folder
        self._pause = pause

    def entries(self) -> list[StoredModel]:
        """All models, by their sums. What a stranger has put there is not among them.

        Raises `ModelUnavailable` where the folder cannot be read.
        """
        try:
            paths = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
            return [self._entry(path) for path in paths if _NAME.fullmatch(path.name)]
        except OSError as error:
            raise ModelUnavailable(f"{self.folder} cannot be read: {error.strerror}") from None

    def unfinished(self) -> list[StoredModel]:
        """What has begun to come and is not here yet, each under the sum that it is to have, or of its source."""
        return [
            StoredModel(lock.stem, lock.with_suffix(""), came, "a fetch that was cut", None)
            for lock in sorted((self.folder / _INCOMING).glob("*.lock"))
            if (came := sum(map(size, _under_way(lock.with_suffix("")))))
        ]

    def add(self, model: ModelFile, progress: Progress) -> StoredModel:
        """Bring a model here, proven by its sha256 where it has one; at once where it is here already.

        Another process that brings the same file is waited for. Nothing unproven ever stands under its final name.
        Raises `ModelUnavailable`; what was fetched of a pinned file is kept, and taken up by the next try.
        """
        pinned = model.pinned
        key = pinned or hashlib.sha256(repr(model.source).encode()).hexdigest()
        try:
            # Before anything is written: a store that others filled may be read-only.
            if pinned is not None and self._has(pinned, progress):
                return self._entry(stored_file(self.folder, pinned))
            partial = self._prepared(key)
            with self._locked(key, progress):
                if pinned is not None and self._has(pinned, progress):
                    return self._entry(stored_file(self.folder, pinned))
                came = bring(model, partial, progress, self._pause)
                return self._place(model, partial, came, progress)
        except OSError as error:
            raise model.unavailable(f"cannot be stored in {self.folder}: {error.strerror}") from None

    def altered(self, entry: StoredModel, progress: Progress) -> bool:
        """Whether it is no longer what its name says. Reads all of it."""
        return not self._has(entry.sha256, progress)

    def remove(self, entry: StoredModel, progress: Progress) -> None:
        """Take a model out, all of it at once, and what has come of it. Who has its files open keeps them.

        Waits for another process that brings it. Raises `ModelUnavailable` where that may not be.
        """
        path = stored_file(self.folder, entry.sha256)
        try:
            partial = self._prepared(entry.sha256)
            with self._locked(entry.sha256, progress):
                if path.exists():
                    _set_aside(path, partial)
                for each in (*_under_way(partial), _notes(path)):
                    remove(each)
        except OSError as error:
            sentence = f"{entry.sha256} cannot be taken out of {self.folder}: {error.strerror}"
            raise ModelUnavailable(sentence) from None

    def _prepared(self, key: str) -> Path:
        """Where a model is while it comes."""
        folder = self.folder / _INCOMING
        folder.mkdir(parents=True, exist_ok=True)
        return folder / key

    def _locked(self, key: str, progress: Progress) -> AbstractContextManager[None]:
        """Held by whoever brings this model, or takes it out."""
        return _lock(self._prepared(key).with_suffix(".lock"), lambda: progress("waiting", 0, None))

    def _has(self, sha256: str, progress: Progress) -> bool:
        return holds(stored_file(self.folder, sha256), sha256, progress)

    def _place(self, model: ModelFile, partial: Path, came: Arrival, progress: Progress) -> StoredModel:
        if model.pinned not in (None, came.sha256):
            remove(partial)
            raise model.unavailable(
                f"is not what it should be: {model.settings.source} has sha256 {came.sha256}, and {model.pinned} was "
                "asked for; correct the sum if you trust this file, else the source"
            )
        # Who brings it by its sum holds that lock from the beginning.
        placing = nullcontext() if model.pinned is not None else self._locked(came.sha256, progress)
        path = stored_file(self.folder, came.sha256)
        with placing:
            license_ = model.settings.license or came.license or _noted(path)[1]
            notes = {"source": model.settings.source, "license": license_}
            return self._replace(notes, partial, path, progress)

    def _replace(self, notes: Mapping[str, str | None], partial: Path, path: Path, progress: Progress) -> StoredModel:
        """Put what has come under its final name; a good folder that stands there stays, for it may be in use."""
        unfinished = partial.with_suffix(".json")
        unfinished.write_text(json.dumps(notes), encoding="utf-8")
        for each in (partial, *partial.rglob("*")):
            _to_disk(each)
        os.replace(unfinished, _notes(path))
        if not path.is_dir():
            os.replace(partial, path)
        elif self._has(path.name, progress):
            remove(partial)
        else:
            # An altered one; a folder that is not empty cannot be replaced at once.
            _set_aside(path, partial)
            os.replace(partial, path)
        _to_disk(self.folder)
        remove(_aside(partial))
        return self._entry(path)

    def _entry(self, path: Path) -> StoredModel:
        source, license_ = _noted(path)
        return StoredModel(path.name, path, size(path), source, license_)


def _notes(path: Path) -> Path:
    return path.with_suffix(".json")


def _noted(path: Path) -> tuple[str, str | None]:
    """A model's source and licence as its notes have them. They are for people alone: it stands without them."""
    try:
        notes = json.loads(_notes(path).read_text(encoding="utf-8"))
        source, license_ = notes["source"], notes["license"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "unknown", None
    return str(source), None if license_ is None else str(license_)


def _aside(partial: Path) -> Path:
    """Where what stood under a final name is until it is removed; perhaps since a process came to its end there."""
    return partial.with_suffix(".old")


def _under_way(partial: Path) -> list[Path]:
    """Whatever may lie beside a lock."""
    return [partial, parts(partial), partial.with_suffix(".json"), _aside(partial)]


def _set_aside(path: Path, partial: Path) -> None:
    """Take away what stands under a final name by renaming it, so that nobody ever sees half of a folder."""
    remove(_aside(partial))
    os.replace(path, _aside(partial))


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock between processes, which ends with the process however it ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
