"""A model for KServe's own server: it counts, embeds, and echoes tensors. It cannot stream."""

from __future__ import annotations

from typing import Any

import numpy
from counting import Counting, FullError, vector  # type: ignore[import-not-found]  # copied beside it
from grpc_interceptor.exceptions import ResourceExhausted  # type: ignore[import-not-found]
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # type: ignore[import-not-found]

ANSWER = "<|im_start|>assistant\n"
ROOM = 12


class Llm(Model):  # type: ignore[misc]  # its base has no types here
    def __init__(self) -> None:
        super().__init__("llm")
        self._counting = Counting(room=ROOM)
        self.ready = True

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        inputs = {each.name: each for each in payload.inputs}
        if "text_input" in inputs:
            prompt = _text(inputs["text_input"].as_numpy().flatten()[0])
            limit = int(inputs["max_tokens"].as_numpy().flatten()[0])
            begun = prompt.rpartition(ANSWER)[2] if ANSWER in prompt else ""
            try:
                pieces = [piece async for piece in self._counting.words(prompt, limit, begun=begun)]
            except FullError:  # the server itself has no bound
                raise ResourceExhausted("no room") from None
            said = {"text_output": "".join(text for text, _ in pieces), "finish_reason": pieces[-1][1]}
            outputs = {name: numpy.array([text.encode()], dtype=object) for name, text in said.items()}
        elif "text" in inputs:
            texts = [_text(each) for each in inputs["text"].as_numpy().flatten()]
            outputs = {"embedding": numpy.array([vector(text) for text in texts], dtype=numpy.float32)}
        else:
            outputs = {name: each.as_numpy() for name, each in inputs.items()}
        return InferResponse(payload.id, "llm", [_output(name, array) for name, array in outputs.items()])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _output(name: str, array: Any) -> InferOutput:
    kinds = {"f4": "FP32", "f8": "FP64", "i4": "INT32", "i8": "INT64", "b1": "BOOL", "O8": "BYTES"}
    output = InferOutput(name, list(array.shape), kinds[f"{array.dtype.kind}{array.dtype.itemsize}"])
    output.set_data_from_numpy(array, binary_data=True)
    return output


if __name__ == "__main__":
    ModelServer().start([Llm()])
