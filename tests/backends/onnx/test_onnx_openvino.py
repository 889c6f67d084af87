"""An execution provider that is really another than the CPU's: OpenVINO's build of ONNX Runtime has it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy
import onnxruntime
import pytest
from onnx import TensorProto, helper

ENVIRONMENT = os.environ.get("EDGEWISE_OPENVINO")
SCRIPT = Path(__file__).with_name("_infer_elsewhere.py")

pytestmark = pytest.mark.skipif(
    ENVIRONMENT is None, reason="wants another build of ONNX Runtime in an environment of its own: make test-openvino"
)


@pytest.fixture
def network(build: Callable[..., Path]) -> Path:
    weights = numpy.random.default_rng(1).normal(0, 0.1, (64, 8)).astype(numpy.float32)
    return build(
        "network",
        [helper.make_node("MatMul", ["x", "weights"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])],
        [("x", TensorProto.FLOAT, ["rows", 64])],
        [("y", TensorProto.FLOAT, ["rows", 8])],
        {"weights": weights},
    )


def infer(model: Path, provider: str, rows: numpy.ndarray) -> tuple[numpy.ndarray, str]:
    """The output as that environment computes it, and what is said of where."""
    command = [f"{ENVIRONMENT}/bin/python", "-P", str(SCRIPT), str(model), provider, json.dumps(rows.tolist())]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)
    return numpy.array(answer["y"], dtype=numpy.float32), answer["said"]


def test_the_provider_that_was_asked_for_computes(network: Path) -> None:
    rows = numpy.random.default_rng(2).normal(size=(5, 64)).astype(numpy.float32)
    computed, said = infer(network, "OpenVINOExecutionProvider", rows)
    bare = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    assert numpy.abs(computed - bare.run(None, {"x": rows})[0]).max() < 1e-3
    assert said == ""


def test_one_that_is_not_there_falls_back_and_says_so(network: Path) -> None:
    rows = numpy.ones((2, 64), dtype=numpy.float32)
    _, said = infer(network, "CUDAExecutionProvider", rows)
    assert said == "CUDAExecutionProvider cannot be used here, so that it computes on the CPU instead"
