"""A model for MLServer: echoes tensors, and streams back what was said."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mlserver import MLModel  # type: ignore[import-not-found]  # lives in an environment of its own
from mlserver.codecs import StringCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput  # type: ignore[import-not-found]


class Echo(MLModel):  # type: ignore[misc]  # its base has no types here
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [
            ResponseOutput(
                name=each.name, shape=each.shape, datatype=each.datatype, data=each.data, parameters=each.parameters
            )
            for each in payload.inputs
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)

    async def predict_stream(self, payloads: AsyncIterator[InferenceRequest]) -> AsyncIterator[InferenceResponse]:
        async for payload in payloads:
            prompt = next(each for each in payload.inputs if each.name == "text_input")
            for word in ("you ", "said ", StringCodec.decode_input(prompt)[0]):
                yield InferenceResponse(
                    model_name=self.name, outputs=[StringCodec.encode_output("text_output", [word])]
                )
                if word.startswith("break"):
                    raise RuntimeError(word)
