"""The kinds of backends a configuration can name: those here, and those that other distributions register.

Reading a configuration must not import an engine: a kind is a few words about its settings, and its
`build` makes an object that has opened nothing yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from ..core.errors import EdgewiseError
from ..core.problem import Problem
from .backend import Backend
from .models import ModelFile

ENTRY_POINT_GROUP = "edgewise.backends"

_OWN_KINDS = {
    "grpc": "edgewise.backends.grpc:KIND",
    "llama_cpp": "edgewise.backends.llama_cpp:KIND",
    "onnx": "edgewise.backends.onnx:KIND",
    "openai": "edgewise.backends.openai:KIND",
}


@dataclass(frozen=True, slots=True)
class BackendKind:
    """What a configuration needs to know of one kind of backend.

    ``settings`` is a frozen dataclass whose fields are ``Annotated[type, "meaning"]`` (see ``core/settings.py``).
    ``on_device``: its engine runs on this device, so that ``location: device`` is legal. ``build`` takes the
    backend's name, an instance of ``settings`` and the models by name; it opens nothing. ``check`` returns what is
    wrong with the settings taken together; its problems' paths count from the backend's own section. ``placeless``
    tells whether the service promises no place, so that it may be anywhere whatever a configuration says.
    ``sends_keys`` tells whether it is sent idempotency keys.
    """

    name: str
    settings: type[Any]  # a dataclass type has no common base
    on_device: bool
    build: Callable[[str, Any, Mapping[str, ModelFile]], Backend]
    check: Callable[[Any], Sequence[Problem]] = lambda settings: ()
    placeless: Callable[[Any], bool] = lambda settings: False
    sends_keys: Callable[[Any], bool] = lambda settings: True


def kind_names() -> list[str]:
    """All kinds that a configuration may name, sorted."""
    return sorted({*_OWN_KINDS, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def find_kind(name: str) -> BackendKind:
    """The kind of this name.

    Raises ``KeyError`` for one that is neither here nor registered, and `EdgewiseError` for one that does not load.
    """
    if name in _OWN_KINDS:
        module, _, attribute = _OWN_KINDS[name].partition(":")
        kind = getattr(import_module(module), attribute)
    else:
        kind = _registered(name)
    if not isinstance(kind, BackendKind):
        raise EdgewiseError(f"the entry point {name!r} of group {ENTRY_POINT_GROUP!r} is not a BackendKind")
    return kind


def _registered(name: str) -> object:
    """What another package has registered under this name."""
    points = entry_points(group=ENTRY_POINT_GROUP, name=name)
    if not points:
        raise KeyError(name)
    point = next(iter(points))
    try:
        return point.load()
    except Exception as error:  # whatever the code of a stranger raises while it is imported
        package = "an unknown package" if point.dist is None else f"the package {point.dist.name!r}"
        raise EdgewiseError(
            f"the kind {name!r} of {package} cannot be loaded from {point.value!r} ({type(error).__name__}: {error})"
        ) from error
