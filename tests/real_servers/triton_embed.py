"""A model for Triton: a vector for each text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # there inside Triton only


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        import sys

        sys.path.insert(0, str(Path(__file__).parent))

    def execute(self, requests: list[Any]) -> list[Any]:
        from counting import vector  # type: ignore[import-not-found]  # copied beside it

        responses = []
        for request in requests:
            texts = [each.decode() for each in triton.get_input_tensor_by_name(request, "text").as_numpy()]
            vectors = numpy.array([vector(text) for text in texts], dtype=numpy.float32).reshape(-1, 3)
            responses.append(triton.InferenceResponse([triton.Tensor("embedding", vectors)]))
        return responses
