"""One model's file: found by its source, proven by its sha256. Nothing is fetched at run time."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ...core.errors import ModelUnavailable

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """An entry of the ``models:`` section."""

    source: Annotated[str, "`file:PATH`, or `package:IMPORT_NAME/FILE` for a file inside an installed package"]
    sha256: Annotated[str | None, "the file's sha256 in hex; an altered file is refused"] = None
    license: Annotated[str | None, "the licence, as an SPDX name"] = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model by its name in the configuration. ``base`` is the folder that relative paths count from."""

    name: str
    settings: ModelSettings
    base: Path

    def locate(self) -> Path:
        """The file's path, by a look at the file system alone. Raises `ModelUnavailable` where there is none."""
        scheme, _, rest = self.settings.source.partition(":")
        if scheme == "file" and rest:
            path = self.base / Path(rest).expanduser()
        elif scheme == "package" and "/" in rest:
            path = self._inside_package(*rest.split("/", 1))
        else:
            raise self._unavailable(
                f"cannot read the source {self.settings.source!r}; write `file:PATH` or `package:IMPORT_NAME/FILE`"
            )
        if not path.is_file():
            raise self._unavailable(f"has no file at {path}; put it there, or correct `models.{self.name}.source`")
        return path

    def verify(self) -> Path:
        """The file's path, after reading it whole and comparing its sha256. Blocks; run it off the event loop."""
        path = self.locate()
        expected = self.settings.sha256
        if expected is None:
            return path
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise self._unavailable(f"cannot be read at {path}: {error.strerror}") from None
        if digest.hexdigest() != expected.lower():
            raise self._unavailable(
                f"is altered: {path} has sha256 {digest.hexdigest()}, the configuration says {expected}; "
                f"fetch the file again, or correct `models.{self.name}.sha256` if the new file is the right one"
            )
        return path

    def _inside_package(self, package: str, inner: str) -> Path:
        # find_spec of a top-level name reads no code of the package.
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise self._unavailable(f"wants the Python package {package!r}, which is not installed; pip install it")
        folder = Path(next(iter(spec.submodule_search_locations)))
        path = (folder / inner).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise self._unavailable(f"points outside the package {package!r}; write a path inside it")
        return path

    def _unavailable(self, sentence: str) -> ModelUnavailable:
        return ModelUnavailable(f"model {self.name!r} {sentence}")
