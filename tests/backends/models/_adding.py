"""How the tests of the store add a model, and what they look at then."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.backends.models.store import ModelStore
from edgewise.core.errors import ModelUnavailable

from .conftest import SHA256


class Told(list[tuple[str, int, int | None]]):
    """The progress as it was told."""

    def __call__(self, doing: str, done: int, total: int | None) -> None:
        self.append((doing, done, total))


def model(source: str, sha256: str | None = SHA256, license_: str | None = None) -> ModelFile:
    return ModelFile("small", ModelSettings(source, sha256, license_), Path.cwd())


def refused(store: ModelStore, file: ModelFile) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        store.add(file, Told())
    assert str(caught.value).startswith("model 'small' ")
    return str(caught.value)


def left_over(store: ModelStore) -> list[str]:
    """What lies in the store besides whole files and their locks."""
    return sorted(path.name for path in (store.folder / "incoming").iterdir() if path.suffix != ".lock")
