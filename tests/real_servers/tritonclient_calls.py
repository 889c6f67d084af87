"""What a program of Triton's own client does with `edgewise serve`. Runs in that client's environment, not in ours.

Usage: ``python tritonclient_calls.py TARGET TOKEN``. Prints what came of each call as one JSON object.
"""

from __future__ import annotations

import json
import queue
import sys
from typing import Any

import numpy
import tritonclient.grpc as triton  # type: ignore[import-not-found]  # lives in an environment of its own
from tritonclient.utils import triton_to_np_dtype  # type: ignore[import-not-found]  # the same

TARGET, TOKEN = sys.argv[1:]
HEADERS = {"authorization": f"Bearer {TOKEN}"}
client = triton.InferenceServerClient(TARGET)


def tensor(name: str, array: Any) -> Any:
    """An input of Triton's client."""
    kinds = {"float32": "FP32", "int64": "INT64", "bool": "BOOL", "object": "BYTES", "float16": "FP16"}
    made = triton.InferInput(name, array.shape, kinds[array.dtype.name])
    made.set_data_from_numpy(array)
    return made


def text(value: str) -> Any:
    """One text, as Triton's client takes it."""
    return numpy.array([value.encode()], dtype=object)


def echoed(array: Any) -> bool:
    """Whether a tensor comes back as it was sent."""
    back = client.infer("m", [tensor("x", array)], headers=HEADERS).as_numpy("x")
    return bool(back.dtype == array.dtype and (back == array).all())


def by_its_metadata(model: str) -> dict[str, Any]:
    """What a model makes of ones, sent as its metadata says; an axis of any extent has two."""
    told = client.get_model_metadata(model, headers=HEADERS)
    inputs = []
    for each in told.inputs:
        shape = [2 if extent == -1 else extent for extent in each.shape]
        made = triton.InferInput(each.name, shape, each.datatype)
        made.set_data_from_numpy(numpy.ones(shape).astype(triton_to_np_dtype(each.datatype)))
        inputs.append(made)
    outputs = [triton.InferRequestedOutput(each.name) for each in told.outputs]
    answer = client.infer(model, inputs, outputs=outputs, headers=HEADERS)
    return {each.name: readable(answer.as_numpy(each.name)) for each in told.outputs}


def readable(array: Any) -> Any:
    """A tensor as JSON has it."""
    return [each.decode()[:1] for each in array] if array.dtype == object else array.tolist()


def generation(*, stream: bool) -> list[Any]:
    """The inputs of a request to generate."""
    parameters = json.dumps({"max_tokens": "5", "temperature": "0"})
    return [
        tensor("text_input", text("Count!")),
        tensor("stream", numpy.array([stream])),
        tensor("sampling_parameters", text(parameters)),
        tensor("return_finish_reason", numpy.array([True])),
    ]


def streamed(model: str) -> list[Any]:
    """The texts of a streamed answer, and its finish reason; or its error."""
    arrived: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: arrived.put((result, error)), headers=HEADERS)
    client.async_stream_infer(model, generation(stream=True), request_id="7", enable_empty_final_response=True)
    said: list[Any] = []
    while True:
        result, error = arrived.get(timeout=10)
        if error is not None:
            said.append(f"error: {error.message()}")
            break
        answer = result.get_response()
        assert answer.id == "7"
        said.append(result.as_numpy("text_output")[0].decode())
        if answer.parameters["triton_final_response"].bool_param:
            said.append(result.as_numpy("finish_reason")[0].decode())
            break
    client.stop_stream()
    return said


def refused(**options: Any) -> str:
    """With which status a call fails."""
    try:
        client.infer(inputs=[tensor("x", numpy.zeros(1, numpy.float32))], **options)
    except triton.InferenceServerException as error:
        return str(error.status())
    return "not at all"


whole = client.infer("m", generation(stream=False), headers=HEADERS)
metadata = client.get_model_metadata("m", headers=HEADERS)
print(
    json.dumps(
        {
            "live": client.is_server_live(headers=HEADERS),
            "ready": client.is_server_ready(headers=HEADERS),
            "model ready": client.is_model_ready("m", headers=HEADERS),
            "server": client.get_server_metadata(headers=HEADERS).name,
            "inputs": sorted(each.name for each in metadata.inputs)[-3:],
            "echoed": [
                echoed(numpy.arange(6).reshape(2, 3).astype(kind)) for kind in ("float32", "float16", "int64", "bool")
            ]
            + [echoed(numpy.array([b"a", b""], dtype=object))],
            "by its own metadata": by_its_metadata("triage"),
            "whole": whole.as_numpy("text_output")[0].decode(),
            "streamed": streamed("m"),
            "no such model, streamed": streamed("nobody"),
            "no such model": refused(model_name="nobody", headers=HEADERS),
            "no token": refused(model_name="m"),
        }
    )
)
