"""The folder that all applications of this user share their fetched models in."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "EDGEWISE_MODELS"


def store_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """``EDGEWISE_MODELS``, or the platform's place for what can be fetched again. It need not exist."""
    if named := environment.get(VARIABLE):
        return Path(named).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgewise" / "models"
    cache = environment.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored, says the XDG specification.
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "edgewise" / "models"


def stored_file(folder: Path, sha256: str) -> Path:
    """Where the store has the file with this sum, if it has it. Files are named by what they hold."""
    return folder / sha256.lower()
