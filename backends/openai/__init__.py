"""Remote model services over HTTP that speak OpenAI's API. Importing this imports no HTTP client; building does."""

from __future__ import annotations

from collections.abc import Mapping

from ...core.errors import EdgewiseError
from ..backend import Backend
from ..models import ModelFile
from ..registry import BackendKind
from .settings import OpenaiSettings, check

__all__ = ["KIND", "OpenaiSettings"]


def _build(name: str, settings: OpenaiSettings, models: Mapping[str, ModelFile]) -> Backend:
    try:
        from .backend import OpenaiBackend
    except ModuleNotFoundError as error:
        missing = error.name
    else:
        return OpenaiBackend(name, settings)
    raise EdgewiseError(f"backend {name!r} needs {missing}; run `pip install 'edgewise[openai]'`")


KIND = BackendKind("openai", OpenaiSettings, on_device=False, build=_build, check=check)
