"""What of the application's environment a worker sees: what its interpreter and its native libraries need, no more.

An application's environment holds its secrets (the keys of its services, its database), and an engine is native code
that may be loaded with a crash reporter or a telemetry of its own. A list of what is passed on fails safe; a list of
what is kept back would not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_NAMES = frozenset(
    {
        # The system and the language.
        *("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT"),
        *("XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "VIRTUAL_ENV"),
        # Where libraries are found.
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES"),
        # The interpreter.
        *("PYTHONPATH", "PYTHONHOME", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE"),
        *("PYTHONPYCACHEPREFIX", "PYTHONNOUSERSITE", "PYTHONUSERBASE", "PYTHONMALLOC", "MALLOC_ARENA_MAX"),
    }
)

_PREFIXES = (
    # The language.
    "LC_",
    # Threads and processors.
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "RAYON_"),
    # Accelerators and their drivers.
    *("GGML_", "CUDA_", "CUBLAS_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "VK_", "ONEAPI_", "SYCL_", "ZE_", "MTL_"),
    # ONNX Runtime's own switches.
    "ORT_",
)

_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")


def worker_environment(environment: Mapping[str, str], scratch: Path | None) -> dict[str, str]:
    """The variables of ``environment`` that a worker gets; ``scratch`` is its folder for temporary files."""
    passed = {name: value for name, value in environment.items() if _passes(name)}
    return passed if scratch is None else passed | {"TMPDIR": str(scratch)}


def _passes(name: str) -> bool:
    if name in _NAMES:
        return True
    return name.startswith(_PREFIXES) and not any(word in name for word in _SECRET)
