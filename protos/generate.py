"""Generate the messages and their type stubs from the .proto files.

Usage: ``.venv-protos/bin/python protos/generate.py OUT_DIR``. The files appear below ``OUT_DIR`` as they stand below
``protos/``. No service code is generated: calls go by their full path.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import grpc_tools  # type: ignore[import-not-found]  # lives in an environment of its own
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent

FOREIGN = "foreign"
"""The folder of schemas that are not ours. They keep their true names, so they go to a pool of their own."""

_DEFAULT_POOL = "_descriptor_pool.Default()"
_PRIVATE_POOL = "_pool.PRIVATE_POOL"
_IMPORT = "from google.protobuf import descriptor_pool as _descriptor_pool\n"
_OWN_IMPORT = "from edgewise.protos import pool as _pool\n"


def generate(out: Path) -> list[Path]:
    """Write the generated files below ``out``; return them. Exits with protoc's code where it fails."""
    sources = sorted(PROTOS.glob("*/*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        # The virtual path makes the generated imports and descriptors name the installed package.
        well_known = Path(grpc_tools.__file__).parent / "_proto"
        arguments = [f"-Iedgewise/protos={PROTOS}", f"-I{well_known}"]
        arguments += [f"--python_out={scratch}", f"--pyi_out={scratch}"]
        names = [f"edgewise/protos/{source.relative_to(PROTOS)}" for source in sources]
        code = protoc.main(["protoc", *arguments, *names])
        if code != 0:
            sys.exit(code)
        generated = Path(scratch, "edgewise", "protos")
        written = []
        for source in sorted(generated.rglob("*_pb2.py*")):
            target = out / source.relative_to(generated)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text(encoding="utf-8")
            target.write_text(_in_private_pool(text) if source.parent.name == FOREIGN else text, encoding="utf-8")
            written.append(target)
        return written


def _in_private_pool(generated: str) -> str:
    """The generated module with the private pool in the place of the common one. Stubs stay as they are."""
    return generated.replace(_DEFAULT_POOL, _PRIVATE_POOL).replace(_IMPORT, _OWN_IMPORT)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} OUT_DIR")
    for path in generate(Path(sys.argv[1])):
        sys.stdout.write(f"{path}\n")
