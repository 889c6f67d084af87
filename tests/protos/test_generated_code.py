"""The generated code is fresh, and loads where it must."""

from __future__ import annotations

import os
import subprocess
import sys
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


VERSIONS = ("5.29", "6.33", "7.36")

_LOADS = """
import sys
import google.protobuf
assert google.protobuf.__version__.startswith(sys.argv[1] + "."), google.protobuf.__version__
from edgewise.protos.foreign import gemini_pb2, oip_pb2, vertex_pb2
from edgewise.protos.v1 import model_service_pb2, status_details_pb2
for module in (gemini_pb2, oip_pb2, vertex_pb2, model_service_pb2, status_details_pb2):
    for name in module.DESCRIPTOR.message_types_by_name:
        kind = getattr(module, name)
        assert kind.FromString(kind().SerializeToString()) == kind(), name
sent = model_service_pb2.GenerateRequest(model="m", messages=[model_service_pb2.Message(role=2, text="hello")])
assert model_service_pb2.GenerateRequest.FromString(sent.SerializeToString()) == sent
call = oip_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"x"])
call.parameters["binary"].bool_param = True
assert oip_pb2.ModelInferRequest.FromString(call.SerializeToString()) == call
asked = gemini_pb2.GenerateContentRequest()
asked.generation_config.response_json_schema.struct_value.fields["type"].string_value = "object"
assert gemini_pb2.GenerateContentRequest.FromString(asked.SerializeToString()) == asked
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_generated_code_loads_on_every_protobuf_it_must(version: str) -> None:
    folders = sorted((ROOT / ".venv-protobuf").glob(f"{version}.*"))
    if not folders:
        pytest.fail("there is no .venv-protobuf; run `make .venv-protobuf/ready`")
    environment = {**os.environ, "PYTHONPATH": str(folders[-1])}
    subprocess.run([sys.executable, "-c", _LOADS, version], env=environment, check=True, timeout=60)


def test_foreign_schemas_have_their_true_names_and_clash_with_nobodys() -> None:
    """A second schema of the same names, as a vendor's client brings it, in the pool that all packages share."""
    script = (
        "from edgewise.protos.foreign import gemini_pb2, oip_pb2, vertex_pb2\n"
        "from google.protobuf import descriptor_pool, struct_pb2\n"
        "for module in (gemini_pb2, oip_pb2, vertex_pb2):\n"
        "    theirs = descriptor_pool.Default().AddSerializedFile(module.DESCRIPTOR.serialized_pb)\n"
        "    assert theirs.package == module.DESCRIPTOR.package\n"
        "names = [oip_pb2.ModelInferRequest, gemini_pb2.Candidate, vertex_pb2.PredictRequest]\n"
        "print(*(each.DESCRIPTOR.full_name for each in names))\n"
    )
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert printed.stdout.split() == [
        "inference.ModelInferRequest",
        "google.ai.generativelanguage.v1beta.Candidate",
        "google.cloud.aiplatform.v1.PredictRequest",
    ]
