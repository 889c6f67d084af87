"""A model for Triton with its vLLM backend's tensors: it counts, several calls at once, and lets the queue fill."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any

import numpy
import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # there inside Triton only

sys.path.insert(0, str(Path(__file__).parent))

from counting import BrokenError, Counting, TooLongError  # type: ignore[import-not-found]  # copied beside it

LAST = triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL
ANSWER = "<|im_start|>assistant\n"


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        rooms = json.loads(args["model_config"])["parameters"]["rooms"]["string_value"]
        self._rooms = Semaphore(int(rooms))

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._rooms.acquire()  # while it waits here, Triton's queue fills
            Thread(target=self._run, args=[request], daemon=True).start()

    def _run(self, request: Any) -> None:
        sender = request.get_response_sender()
        try:
            asyncio.run(_answer(request, sender))
        except TooLongError:
            text = "The prompt is longer than the maximum model length of 4096"
            sender.send(triton.InferenceResponse(error=triton.TritonError(text)))
        except BrokenError as broken:
            sender.send(triton.InferenceResponse(error=triton.TritonError(str(broken))))
        finally:
            sender.send(flags=LAST)
            self._rooms.release()


async def _answer(request: Any, sender: Any) -> None:
    prompt = _value(request, "text_input").decode()
    asked = json.loads(_value(request, "sampling_parameters"))
    begun = prompt.rpartition(ANSWER)[2] if ANSWER in prompt else ""
    words = Counting().words(prompt, asked["max_tokens"], begun=begun, stop=asked.get("stop", []))
    async for piece, reason in words:
        if request.is_cancelled():
            break
        sender.send(triton.InferenceResponse(_outputs(piece, reason or "None")))


def _value(request: Any, name: str) -> Any:
    return triton.get_input_tensor_by_name(request, name).as_numpy()[0]


def _outputs(word: str, reason: str) -> list[Any]:
    return [
        triton.Tensor("text_output", numpy.array([word.encode()], dtype=object)),
        triton.Tensor("finish_reason", numpy.array([reason.encode()], dtype=object)),
        triton.Tensor("num_input_tokens", numpy.array([3], dtype=numpy.uint32)),
        triton.Tensor("num_output_tokens", numpy.array([1], dtype=numpy.uint32)),
    ]
