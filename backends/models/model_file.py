"""One model's file: found by its source, proven by its sha256. Nothing is fetched at run time."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO

from ...core.errors import ModelUnavailable
from .folder import store_folder, stored_file
from .sources import WAYS, FileSource, HuggingFaceSource, PackageSource, Source, StoreSource, WebSource, parse_source

_CHUNK = 1 << 20
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")

_Stamp = tuple[str, int, int, int, int, int]
"""Path, device, inode, size, and the times of the last writing and the last change: another file, another stamp."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """An entry of the ``models:`` section."""

    source: Annotated[
        str,
        "`file:PATH`, `package:IMPORT_NAME/FILE`, or what `edgewise models` brings into the store: `https://…`, "
        "`hf:OWNER/NAME/FILE@REVISION`, `store:LABEL`",
    ]
    sha256: Annotated[
        str | None, "the file's sha256 in hex; an altered file is refused. A file of the store needs it"
    ] = None
    license: Annotated[str | None, "the licence, as an SPDX name"] = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model by its name in the configuration. ``base`` is the folder that relative paths count from."""

    name: str
    settings: ModelSettings
    base: Path
    # Lives with the object, so that a worker that comes back after a crash does not wait for the same sum again.
    _proven: set[_Stamp] = field(default_factory=set, init=False, repr=False, compare=False)

    def locate(self) -> Path:
        """The file's path, by a look at the file system alone. Raises `ModelUnavailable` where there is none."""
        path = self._named_path()
        try:
            found = path.is_file()
        except OSError as error:
            raise self._unreadable(path, error) from None
        if not found:
            raise self.unavailable(f"has no file at {path}; put it there, or correct `models.{self.name}.source`")
        return path

    def verify(self) -> Path:
        """The file's path, after reading it whole and comparing its sha256.

        A file proven once is not read again until it changes. Blocks; run it off the event loop. Raises
        `ModelUnavailable` for a file that is missing, unreadable or altered.
        """
        path = self.locate()
        expected = self.pinned
        try:
            with path.open("rb") as file:
                stamp = _stamp(path, file)
                if expected is None or stamp in self._proven:
                    return path
                actual = _sha256(file)
        except OSError as error:
            raise self._unreadable(path, error) from None
        if actual != expected:
            raise self.unavailable(
                f"is altered: {path} has sha256 {actual}, the configuration says {expected}; "
                f"get the file again, or correct `models.{self.name}.sha256` if the new file is the right one"
            )
        self._proven.add(stamp)
        return path

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
        """The beginning of the file's sha256, as configured; empty where none is."""
        return (self.settings.sha256 or "")[:12].lower()

    @property
    def pinned(self) -> str | None:
        """The sha256 that the file must have, in lower case. Raises `ModelUnavailable` for one that is none."""
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
        if not path.is_file():
            raise self.unavailable(f"is not on this device; {mend}")
        return path

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


def _stamp(path: Path, file: BinaryIO) -> _Stamp:
    status = os.fstat(file.fileno())
    return (str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
