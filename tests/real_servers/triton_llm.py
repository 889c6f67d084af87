"""A model for Triton with the tensors of its vLLM backend: streams back what was said, breaks, or goes on for long."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable
from typing import Any

import numpy
import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # there inside Triton only

LAST = triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            prompt = _value(request, "text_input").decode()
            limit = json.loads(_value(request, "sampling_parameters"))["max_tokens"]
            words: Iterable[str] = ["you ", "said ", prompt]
            if prompt.startswith("endless"):
                words = itertools.repeat("on ")
            self._answer(request, words, limit)

    def _answer(self, request: Any, words: Iterable[str], limit: int) -> None:
        sender = request.get_response_sender()
        for number, word in enumerate(words, start=1):
            if request.is_cancelled():
                break
            if word.startswith("break"):
                sender.send(triton.InferenceResponse(error=triton.TritonError(word)))
                break
            if word == "on ":
                time.sleep(0.01)
            reason = "length" if number == limit else "stop" if number == 3 and word != "on " else "None"
            sender.send(triton.InferenceResponse(_outputs(word, reason)))
            if number == limit:
                break
        sender.send(flags=LAST)


def _value(request: Any, name: str) -> Any:
    return triton.get_input_tensor_by_name(request, name).as_numpy()[0]


def _outputs(word: str, reason: str) -> list[Any]:
    return [
        triton.Tensor("text_output", numpy.array([word.encode()], dtype=object)),
        triton.Tensor("finish_reason", numpy.array([reason.encode()], dtype=object)),
        triton.Tensor("num_input_tokens", numpy.array([3], dtype=numpy.uint32)),
        triton.Tensor("num_output_tokens", numpy.array([1], dtype=numpy.uint32)),
    ]
