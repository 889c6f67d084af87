"""A model for Triton: echoes its tensor."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # there inside Triton only


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        return [
            triton.InferenceResponse([triton.Tensor("x", triton.get_input_tensor_by_name(request, "x").as_numpy())])
            for request in requests
        ]
