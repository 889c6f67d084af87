"""A model for MLServer: it counts, embeds, and echoes tensors."""

from __future__ import annotations

from collections.abc import AsyncIterator

from counting import Counting, FullError, vector  # type: ignore[import-not-found]  # copied beside it
from mlserver import MLModel  # type: ignore[import-not-found]  # lives in an environment of its own
from mlserver.codecs import NumpyCodec, StringCodec  # type: ignore[import-not-found]
from mlserver.errors import MLServerError  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput  # type: ignore[import-not-found]

ANSWER = "<|im_start|>assistant\n"
ROOM = 12


class Model(MLModel):  # type: ignore[misc]  # its base has no types here
    async def load(self) -> bool:
        self._counting = Counting(room=ROOM)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {each.name: each for each in payload.inputs}
        if "text" in inputs:
            import numpy

            vectors = [vector(text) for text in StringCodec.decode_input(inputs["text"])]
            outputs = [NumpyCodec.encode_output("embedding", numpy.array(vectors, dtype=numpy.float32))]
        else:
            outputs = [
                ResponseOutput(
                    name=each.name, shape=each.shape, datatype=each.datatype, data=each.data, parameters=each.parameters
                )
                for each in payload.inputs
            ]
        return InferenceResponse(model_name=self.name, outputs=outputs)

    async def predict_stream(self, payloads: AsyncIterator[InferenceRequest]) -> AsyncIterator[InferenceResponse]:
        async for payload in payloads:
            inputs = {each.name: each for each in payload.inputs}
            (prompt,) = StringCodec.decode_input(inputs["text_input"])
            limit = int(NumpyCodec.decode_input(inputs["max_tokens"])[0])
            begun = prompt.rpartition(ANSWER)[2] if ANSWER in prompt else ""
            try:
                async for piece, reason in self._counting.words(prompt, limit, begun=begun):
                    outputs = [StringCodec.encode_output("text_output", [piece])]
                    outputs.append(StringCodec.encode_output("finish_reason", [reason or "None"]))
                    yield InferenceResponse(model_name=self.name, outputs=outputs)
            except FullError:  # the server itself has no bound and no status for it
                raise MLServerError("Too Many Requests", 429) from None
