"""edgewise: route each request between a model on this device and a remote gRPC model service.

``import edgewise`` gives what ``edgewise.router`` gives, loaded when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .router import *  # noqa: F403  # the one list of public names is the router's

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    router = import_module(".router", __name__)
    return getattr(router, name)


def __dir__() -> list[str]:
    from .router import __all__ as names

    return sorted([*names, "__version__"])
