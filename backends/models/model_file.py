"""One model's files: found by their source, proven by their sha256. Nothing is fetched at run time."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated

from ...core.errors import ModelUnavailable
from .folder import store_folder, stored_file
from .manifest import digest_of, names_in
from .sources import (
    WAYS,
    FileSource,
    HuggingFaceSource,
    PackageSource,
    Source,
    StoreSource,
    WebSource,
    is_folder,
    parse_source,
)

_CHUNK = 1 << 20
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_ENGINES_READ = (".onnx", ".gguf", ".ort")
_ONE_OF_SEVERAL = re.compile(r".*-\d{5}-of-(?!00001)\d{5}\.gguf")
"""llama.cpp finds the other parts of a model by the name of the first."""

_SETTLED = 2_000_000_000
"""Nanoseconds after which another change has another time, by the coarsest clock of a file system."""

_Stamp = tuple[str, int, int, int, int, int]
"""Path, device, inode, size, and the times of the last writing and the last change: another file, another stamp."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """An entry of the ``models:`` section."""

    source: Annotated[
        str,
        "`file:PATH`, `package:IMPORT_NAME/FILE`, or what `edgewise models` brings into the store: `https://…`, "
        "`hf:OWNER/NAME/FILE@REVISION`, `store:LABEL`. With a / at its end (before the @) it is all files of a folder",
    ]
    sha256: Annotated[
        str | None,
        "the file's sha256 in hex, or the sum over all files of a folder; what is altered is refused. What comes from "
        "the store needs it",
    ] = None
    license: Annotated[str | None, "the licence, as an SPDX name"] = None
    file: Annotated[
        str | None,
        "where the source is a folder: the file in it that the engine opens; by default its only one that ends in "
        "`.onnx`, `.gguf` or `.ort`",
    ] = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model by its name in the configuration. ``base`` is the folder that relative paths count from."""

    name: str
    settings: ModelSettings
    base: Path
    # Lives with the object, so that a worker that comes back after a crash does not wait for the same sum again.
    _sums: dict[tuple[_Stamp, ...], str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def locate(self) -> Path:
        """The path of the file that an engine opens, by a look at the file system alone.

        Raises `ModelUnavailable` where there is none.
        """
        path = self.root
        if is_folder(self.source):
            return path / self._opened(self.names())
        if self.settings.file is not None:
            raise self.unavailable("has a `file`, which only a folder has; end its `source` with a /, or leave it out")
        try:
            found, folder = path.is_file(), path.is_dir()
        except OSError as error:
            raise self._unreadable(path, error) from None
        if folder:
            raise self.unavailable(
                f"has a folder at {path}; for all files in it, end `models.{self.name}.source` with a /"
            )
        if not found:
            raise self.unavailable(f"has no file at {path}; put it there, or correct `models.{self.name}.source`")
        return path

    def verify(self) -> Path:
        """The path of the file that an engine opens, after reading all files whole and comparing their sha256.

        What was summed once is not read again until it changes. Blocks; run it off the event loop. Raises
        `ModelUnavailable` for a file that is missing, unreadable or altered.
        """
        path = self.locate()
        expected = self.pinned
        files = self.files()
        try:
            now = time.time_ns()
            stamps = tuple(_stamp(file) for file in files)
            if expected is None:
                for file in files:
                    file.open("rb").close()
                return path
            actual = self._sums.get(stamps) or self.sum(lambda done: None)
        except OSError as error:
            raise self._unreadable(path, error) from None
        self._sums.clear()
        if all(stamp[-1] < now - _SETTLED for stamp in stamps):
            self._sums[stamps] = actual
        if actual != expected:
            of_all = " over all its files" if is_folder(self.source) else ""
            raise self.unavailable(
                f"is altered: {self.root} has sha256 {actual}{of_all}, the configuration says {expected}; get "
                f"it again, or correct `models.{self.name}.sha256` if this is the right one"
            )
        if _ONE_OF_SEVERAL.fullmatch(path.name) and not is_folder(self.source):
            raise self.unavailable(
                f"is one part of several, and its sha256 proves this part alone; end `models.{self.name}.source` with "
                "the folder of all parts and a /, and name the first part by `file`"
            )
        return path

    def sum(self, progress: Callable[[int], None]) -> str:
        """The sha256 of the file, or over all files of the folder. ``progress`` is told how many bytes were read.

        Raises `ModelUnavailable` and `OSError`.
        """
        done = 0

        def read(chunk: int) -> None:
            nonlocal done
            done += chunk
            progress(done)

        root = self.root
        if not is_folder(self.source):
            return sha256_of(root, read)
        return digest_of((name, sha256_of(root / name, read)) for name in self.names())

    @property
    def root(self) -> Path:
        """The path that the source names, of a file or of a folder. Raises `ModelUnavailable`."""
        return self._named_path()

    def names(self) -> list[str]:
        """All files that the sum proves, as paths from `root`; of a single file "". Raises `ModelUnavailable`."""
        if not is_folder(self.source):
            return [""]
        root = self.root
        try:
            return names_in(root)
        except OSError as error:
            raise self._unreadable(root, error) from None
        except ModelUnavailable as error:
            raise self.unavailable(f"cannot be used: {error}") from None

    def files(self) -> list[Path]:
        """All files that the sum proves. Raises `ModelUnavailable`."""
        return [self.root / name for name in self.names()]

    def proven_beside(self) -> list[str] | None:
        """The paths, from the folder of the file that an engine opens, of all that its sum proves; None without a sum.

        Raises `ModelUnavailable`.
        """
        if self.pinned is None:
            return None
        home = self.locate().parent
        return [file.relative_to(home).as_posix() for file in self.files() if file.is_relative_to(home)]

    @property
    def source(self) -> Source:
        """Where the file comes from. Raises `ModelUnavailable` for a text that names no source."""
        source = parse_source(self.settings.source)
        if source is None:
            raise self.unavailable(f"cannot read the source {self.settings.source!r}; {WAYS}")
        return source

    @property
    def fetched(self) -> bool:
        """Whether the file comes over a network. Raises `ModelUnavailable` for a text that names no source."""
        return isinstance(self.source, WebSource | HuggingFaceSource)

    @property
    def version(self) -> str:
        """The beginning of the sha256, as configured; empty where none is."""
        return (self.settings.sha256 or "")[:12].lower()

    @property
    def pinned(self) -> str | None:
        """The sha256 that it must have, in lower case. Raises `ModelUnavailable` for one that is none."""
        expected = self.settings.sha256
        if expected is not None and not _SHA256.fullmatch(expected):
            raise self.unavailable(f"has a `models.{self.name}.sha256` that is not 64 hex digits; correct it")
        return expected and expected.lower()

    def unavailable(self, sentence: str) -> ModelUnavailable:
        """What this model cannot be used for. The sentence goes on after the model's name."""
        return ModelUnavailable(f"model {self.name!r} {sentence}")

    def _named_path(self) -> Path:
        match self.source:
            case FileSource(path):
                return self.base / self._without_tilde(path)
            case PackageSource(package, inner):
                return self._inside_package(package, inner)
            case WebSource() | HuggingFaceSource():
                return self._stored(f"fetch it by `edgewise models pull {self.name}`")
            case StoreSource():
                return self._stored("bring it by `edgewise models add file:PATH`")

    def _stored(self, mend: str) -> Path:
        if self.pinned is None:
            source = self.settings.source
            raise self.unavailable(
                f"comes from elsewhere and needs its sum in `models.{self.name}.sha256`; "
                f"`edgewise models add {source}` fetches the file and prints the sum"
            )
        path = stored_file(store_folder(), self.pinned)
        if not (path.is_dir() if is_folder(self.source) else path.is_file()):
            raise self.unavailable(f"is not on this device; {mend}")
        return path

    def _opened(self, names: Sequence[str]) -> str:
        """Which file of a folder an engine opens."""
        chosen = self.settings.file
        if chosen is None:
            likely = [name for name in names if name.endswith(_ENGINES_READ)]
            if len(likely) != 1:
                raise self.unavailable(
                    f"is a folder with {len(likely)} files that an engine could open; name one of its files by "
                    f"`models.{self.name}.file`"
                )
            return likely[0]
        if chosen not in names:
            raise self.unavailable(f"has no file {chosen!r} in its folder; correct `models.{self.name}.file`")
        return chosen

    def _without_tilde(self, path: str) -> Path:
        try:
            return Path(path).expanduser()
        except RuntimeError:
            raise self.unavailable(f"has the source 'file:{path}', and that home folder is unknown") from None

    def _inside_package(self, package: str, inner: str) -> Path:
        if not package.isidentifier():
            raise self.unavailable(
                f"names the package {package!r}, which is no import name; write the name that `import` takes"
                + (f": {package.replace('-', '_')!r}" if "-" in package else "")
            )
        # By the words of the path: some installers make every file of a package a link to their cache.
        if inner.startswith("/") or ".." in PurePosixPath(inner).parts:
            raise self.unavailable(f"points outside the package {package!r}; write a path inside it")
        paths = [folder / inner for folder in _package_folders(package)]
        if not paths:
            raise self.unavailable(f"wants the Python package {package!r}, which is not installed; pip install it")
        return next((path for path in paths if path.exists()), paths[0])

    def _unreadable(self, path: Path, error: OSError) -> ModelUnavailable:
        return self.unavailable(f"cannot be read at {path}: {error.strerror}")


def _package_folders(package: str) -> list[Path]:
    """Where a top-level package lies (a namespace package in several folders), without running any of its code."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module without a spec, such as __main__
        return []
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return (str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def sha256_of(path: Path, read: Callable[[int], None]) -> str:
    """A file's sum. ``read`` is told of every piece how long it is. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            read(len(chunk))
    return digest.hexdigest()
