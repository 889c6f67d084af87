"""What a server that is well answers, message by message."""

from __future__ import annotations

from edgewise.protos.v1 import model_service_pb2 as wire

TIME_TO_READ = 0.15
"""Seconds from a message to the fault after it: a client drops what it has not read by then."""

GENERATED = [
    wire.GenerateResponse(delta=wire.Delta(text="one ", tokens=1)).SerializeToString(),
    wire.GenerateResponse(delta=wire.Delta(text="two ", tokens=1)).SerializeToString(),
    wire.GenerateResponse(finish=wire.Finish(reason=wire.FINISH_REASON_STOP)).SerializeToString(),
]
EMBEDDED = [
    wire.EmbedResponse(vectors=wire.Tensor(dtype="float32", shape=[1, 2], data=bytes(8))).SerializeToString(),
]
