"""The store: models named by their sha256, each a file or a folder, shared by all processes of a user."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import ModelUnavailable
from .download import Progress, download, require_space
from .folder import stored_file
from .manifest import digest_of, names_in
from .model_file import ModelFile, sha256_of
from .sources import FileSource, HuggingFaceSource, PackageSource, StoreSource, WebSource, is_folder

_CHUNK = 1 << 20
_NAME = re.compile(r"[0-9a-f]{64}")


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
        """All models, by their sums. What a stranger has put there is not among them."""
        if not self.folder.is_dir():
            return []
        return [self._entry(path) for path in sorted(self.folder.iterdir()) if _NAME.fullmatch(path.name)]

    def add(self, model: ModelFile, progress: Progress) -> StoredModel:
        """Bring a model here, proven by its sha256 where it has one; at once where it is here already.

        Another process that brings the same file is waited for. Nothing unproven ever stands under its final name.
        Raises `ModelUnavailable`; what was fetched of a pinned file is kept, and taken up by the next try.
        """
        source, pinned = model.source, model.pinned
        if isinstance(source, StoreSource) and (pinned is None or not stored_file(self.folder, pinned).exists()):
            raise model.unavailable("is not in the store; bring it by `edgewise models add file:PATH`")
        key = pinned or hashlib.sha256(model.settings.source.encode()).hexdigest()
        try:
            partial = self._prepared(key)
            with _locked(partial.with_suffix(".lock"), lambda: progress("waiting", 0, None)):
                if pinned is not None and self._has(pinned, progress):
                    return self._entry(stored_file(self.folder, pinned))
                if pinned is None:
                    # What an earlier try left may be the beginning of another version.
                    _remove(partial)
                    _remove(_parts(partial))
                self._obtain(model, partial, progress)
                return self._place(model, partial, progress)
        except OSError as error:
            raise model.unavailable(f"cannot be stored in {self.folder}: {error.strerror}") from None

    def altered(self, entry: StoredModel, progress: Progress) -> bool:
        """Whether it is no longer what its name says. Reads all of it."""
        return not self._has(entry.sha256, progress)

    def remove(self, entry: StoredModel) -> None:
        """Take a model out. Who has its files open keeps them until they close them."""
        for path in (entry.path, _notes(entry.path)):
            _remove(path)

    def _prepared(self, key: str) -> Path:
        """Where a model is while it comes."""
        folder = self.folder / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / key

    def _has(self, sha256: str, progress: Progress) -> bool:
        path = stored_file(self.folder, sha256)
        try:
            return path.exists() and _sum(path, progress) == sha256
        except (ModelUnavailable, OSError):  # a folder without its files, or files that cannot be read
            return False

    def _obtain(self, model: ModelFile, partial: Path, progress: Progress) -> None:
        match model.source:
            case FileSource() | PackageSource() as source:
                _remove(partial)
                if not is_folder(source):
                    model.locate()  # raises where there is none
                _copy(model.root, model.names(), partial, progress)
            case WebSource(url):
                try:
                    download(url, partial, progress, self._pause)
                except ModelUnavailable as error:
                    raise model.unavailable(f"cannot be fetched: {error}") from None
            case HuggingFaceSource() as source:
                from . import hugging_face

                folder = _parts(partial)
                folder.mkdir(exist_ok=True)
                try:
                    fetched = hugging_face.fetch(source, folder)
                    _remove(partial)
                    os.replace(fetched, partial)
                except ModelUnavailable as error:
                    raise model.unavailable(f"cannot be fetched: {error}") from None
                _remove(folder)

    def _place(self, model: ModelFile, partial: Path, progress: Progress) -> StoredModel:
        actual = _sum(partial, progress)
        if model.pinned not in (None, actual):
            _remove(partial)
            raise model.unavailable(
                f"is not what it should be: {model.settings.source} has sha256 {actual}, and {model.pinned} was asked "
                "for; correct the sum if you trust this file, else the source"
            )
        placing: AbstractContextManager[None] = nullcontext()
        if model.pinned is None:
            # Who brings it by its sum holds that lock from the beginning.
            placing = _locked(self._prepared(actual).with_suffix(".lock"), lambda: progress("waiting", 0, None))
        with placing:
            return self._replace(model, partial, stored_file(self.folder, actual), progress)

    def _replace(self, model: ModelFile, partial: Path, path: Path, progress: Progress) -> StoredModel:
        """Put what has come under its final name; a good folder that stands there stays, for it may be in use."""
        notes = {"source": model.settings.source, "license": model.settings.license}
        unfinished = partial.with_suffix(".json")
        unfinished.write_text(json.dumps(notes), encoding="utf-8")
        for each in (partial, *partial.rglob("*")):
            _to_disk(each)
        os.replace(unfinished, _notes(path))
        if path.is_dir():
            if self._has(path.name, progress):
                _remove(partial)
                return self._entry(path)
            # An altered one; a folder that is not empty cannot be replaced.
            _remove(path)
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
        return StoredModel(path.name, path, _size(path), source, license_)


def _notes(path: Path) -> Path:
    return path.with_suffix(".json")


def _parts(partial: Path) -> Path:
    """Where Hugging Face's library keeps what it has fetched so far."""
    return partial.with_suffix(".hf")


def _copy(folder: Path, names: Sequence[str], target: Path, progress: Progress) -> None:
    """Copy these files from one folder to another; "" is the one that ``folder`` is itself."""
    total, done = sum((folder / name).stat().st_size for name in names), 0
    require_space(target.parent, total)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("rb") as source, (target / name).open("wb") as copy:
            while chunk := source.read(_CHUNK):
                copy.write(chunk)
                done += len(chunk)
                progress("copying", done, total)


def _sum(path: Path, progress: Progress) -> str:
    """The sum of a file, or of all files of a folder."""
    total, done = _size(path), 0

    def read(chunk: int) -> None:
        nonlocal done
        done += chunk
        progress("proving", done, total)

    if not path.is_dir():
        return sha256_of(path, read)
    return digest_of((name, sha256_of(path / name, read)) for name in names_in(path))


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _remove(path: Path) -> None:
    """Remove a file or a folder, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
