"""The store: model files named by their sha256, shared by all applications and processes of a user."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import ModelUnavailable
from .download import Progress, download, require_space
from .folder import stored_file
from .model_file import ModelFile
from .sources import FileSource, HuggingFaceSource, PackageSource, StoreSource, WebSource

_CHUNK = 1 << 20
_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A file of the store. ``source`` and ``license`` are what was said of it when it came."""

    sha256: str
    path: Path
    size: int
    source: str
    license: str | None


class ModelStore:
    """The files in one folder. Every method blocks, and may be used from several processes at once."""

    def __init__(self, folder: Path, *, pause: Callable[[float], None] = time.sleep) -> None:
        self.folder = folder
        self._pause = pause

    def entries(self) -> list[StoredModel]:
        """All files, by their sums. What a stranger has put there is not among them."""
        if not self.folder.is_dir():
            return []
        return [self._entry(path) for path in sorted(self.folder.iterdir()) if _NAME.fullmatch(path.name)]

    def add(self, model: ModelFile, progress: Progress) -> StoredModel:
        """Bring a model's file here, proven by its sha256 where the model has one; at once where it is here already.

        Another process that brings the same file is waited for. Nothing unproven ever stands under its final name.
        Raises `ModelUnavailable`; what was fetched of a pinned file is kept, and taken up by the next try.
        """
        source, pinned = model.source, model.pinned
        if isinstance(source, StoreSource) and (pinned is None or not stored_file(self.folder, pinned).is_file()):
            raise model.unavailable("is not in the store; bring it by `edgewise models add file:PATH`")
        key = pinned or hashlib.sha256(model.settings.source.encode()).hexdigest()
        try:
            partial = self._prepared(key)
            with _locked(partial.with_suffix(".lock"), lambda: progress("waiting", 0, None)):
                if pinned is not None and self._has(pinned, progress):
                    return self._entry(stored_file(self.folder, pinned))
                if pinned is None:
                    # What an earlier try left may be the beginning of another version.
                    partial.unlink(missing_ok=True)
                self._obtain(model, partial, progress)
                return self._place(model, partial, progress)
        except OSError as error:
            raise model.unavailable(f"cannot be stored in {self.folder}: {error.strerror}") from None

    def altered(self, entry: StoredModel, progress: Progress) -> bool:
        """Whether the file is no longer what its name says. Reads it whole."""
        return _sum(entry.path, progress) != entry.sha256

    def remove(self, entry: StoredModel) -> None:
        """Take a file out. Who has it open keeps it until they close it."""
        for path in (entry.path, _notes(entry.path)):
            path.unlink(missing_ok=True)

    def _prepared(self, key: str) -> Path:
        """Where a file is while it comes."""
        folder = self.folder / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / key

    def _has(self, sha256: str, progress: Progress) -> bool:
        path = stored_file(self.folder, sha256)
        return path.is_file() and _sum(path, progress) == sha256

    def _obtain(self, model: ModelFile, partial: Path, progress: Progress) -> None:
        match model.source:
            case FileSource() | PackageSource():
                _copy(model.locate(), partial, progress)
            case WebSource(url):
                try:
                    download(url, partial, progress, self._pause)
                except ModelUnavailable as error:
                    raise model.unavailable(f"cannot be fetched: {error}") from None
            case HuggingFaceSource() as source:
                from . import hugging_face

                folder = partial.with_suffix(".hf")
                folder.mkdir(exist_ok=True)
                try:
                    os.replace(hugging_face.fetch(source, folder), partial)
                except ModelUnavailable as error:
                    raise model.unavailable(f"cannot be fetched: {error}") from None
                shutil.rmtree(folder)

    def _place(self, model: ModelFile, partial: Path, progress: Progress) -> StoredModel:
        actual = _sum(partial, progress)
        if model.pinned not in (None, actual):
            partial.unlink()
            raise model.unavailable(
                f"is not what it should be: {model.settings.source} has sha256 {actual}, and {model.pinned} was asked "
                "for; correct the sum if you trust this file, else the source"
            )
        path = stored_file(self.folder, actual)
        notes = {"source": model.settings.source, "license": model.settings.license}
        unfinished = partial.with_suffix(".json")
        unfinished.write_text(json.dumps(notes), encoding="utf-8")
        _to_disk(partial)
        os.replace(unfinished, _notes(path))
        os.replace(partial, path)
        _to_disk(self.folder)
        return self._entry(path)

    def _entry(self, path: Path) -> StoredModel:
        source, license_ = "unknown", None
        try:
            notes = json.loads(_notes(path).read_text(encoding="utf-8"))
            source, license_ = notes["source"], notes["license"]
        except (OSError, ValueError, KeyError, TypeError):
            # They are for people alone: the file stands without them.
            pass
        return StoredModel(path.name, path, path.stat().st_size, source, license_)


def _notes(path: Path) -> Path:
    return path.with_suffix(".json")


def _copy(original: Path, target: Path, progress: Progress) -> None:
    total, done = original.stat().st_size, 0
    require_space(target.parent, total)
    with original.open("rb") as source, target.open("wb") as copy:
        while chunk := source.read(_CHUNK):
            copy.write(chunk)
            done += len(chunk)
            progress("copying", done, total)


def _sum(path: Path, progress: Progress) -> str:
    digest, done = hashlib.sha256(), 0
    total = path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress("proving", done, total)
    return digest.hexdigest()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock between processes, which ends with the process however it ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
