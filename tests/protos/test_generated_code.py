"""The generated code is fresh, and loads where it must."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
PYTHON = ROOT / ".venv-protos" / "bin" / "python"


def test_the_generated_code_is_fresh(tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.fail(f"there is no {PYTHON.relative_to(ROOT)}; run `make protos`")
    subprocess.run([PYTHON, PROTOS / "generate.py", tmp_path], check=True, capture_output=True, timeout=60)

    fresh = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*_pb2.py*")}
    kept = {path.relative_to(PROTOS): path.read_bytes() for path in PROTOS.rglob("*_pb2.py*") if path.suffix != ".pyc"}

    assert fresh, "nothing was generated"
    assert fresh.keys() == kept.keys(), "run `make protos`"
    assert [str(name) for name in fresh if fresh[name] != kept[name]] == [], "stale; run `make protos`"


def test_the_generated_code_loads_on_the_oldest_protobuf() -> None:
    if not PYTHON.exists():
        pytest.fail(f"there is no {PYTHON.relative_to(ROOT)}; run `make protos`")
    script = (
        "import google.protobuf, runpy, sys\n"
        "assert google.protobuf.__version__.startswith('5.29.'), google.protobuf.__version__\n"
        "made = runpy.run_path(sys.argv[1])\n"
        "sent = made['GenerateRequest'](model='m', messages=[made['Message'](role=2, text='hello')])\n"
        "assert made['GenerateRequest'].FromString(sent.SerializeToString()) == sent\n"
    )
    source = PROTOS / "v1" / "model_service_pb2.py"
    subprocess.run([PYTHON, "-c", script, source], check=True, capture_output=True, timeout=60)
