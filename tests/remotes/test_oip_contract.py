"""The contract over the Open Inference Protocol, in each dialect, against servers that check what they are sent."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy

from edgewise.backends import Backend
from edgewise.backends.contract import EmbeddingTests, GenerationTests, InferenceTests
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.oip_settings import EmbedTensors, GenerateTensors, OipSettings
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.backends.tensors import to_tensor
from edgewise.core.content import InferInput

from .contract import ServedContract
from .counting import CONTEXT
from .oip_server import DYNAMO, KSERVE, MLSERVER, OLDER_TENSORRT_LLM, TENSORRT_LLM, TRITON_VLLM, Dialect, OipServer

TENSORS = InferInput("llm", {"x": to_tensor(numpy.arange(6, dtype=numpy.float32).reshape(3, 2))})
OWN = GenerateTensors(max_output_tokens="max_tokens")


class OipContract(ServedContract[OipServer], GenerationTests, EmbeddingTests, InferenceTests):
    __test__ = False

    dialect: ClassVar[Dialect]
    oip: ClassVar[OipSettings]
    tensors = TENSORS
    continues: ClassVar[bool] = True

    @classmethod
    def server(cls) -> OipServer:
        return OipServer(cls.dialect)

    @classmethod
    def client(cls, server: OipServer, *, knows: bool) -> Backend:
        settings = GrpcSettings(
            server.target,
            ProtocolName.OIP,
            "llm" if knows else "nobody",
            context_tokens=CONTEXT,
            max_concurrency=8,
            continues=cls.continues,
            oip=cls.oip,
        )
        return GrpcBackend("oip", settings)


class TestTritonVllm(OipContract):
    __test__ = True
    dialect = TRITON_VLLM
    oip = OipSettings(generate="vllm", chat="chatml", embed=EmbedTensors())


class TestTensorrtLlm(OipContract):
    __test__ = True
    dialect = TENSORRT_LLM
    oip = OipSettings(generate="tensorrt_llm", chat="chatml", embed=EmbedTensors())


class TestOlderTensorrtLlm(OipContract):
    """Its names and types are others: the model is asked for them."""

    __test__ = True
    dialect = OLDER_TENSORRT_LLM
    oip = OipSettings(generate="discover", chat="chatml", embed=EmbedTensors())


class TestDynamo(OipContract):
    __test__ = True
    dialect = DYNAMO
    oip = OipSettings(generate="dynamo", chat="chatml", embed=EmbedTensors())
    # It reads nothing but the prompt.
    honours_length = honours_stop = False
    continues = False


class TestMlserver(OipContract):
    __test__ = True
    dialect = MLSERVER
    oip = OipSettings(generate=OWN, chat="chatml", embed=EmbedTensors())
    honours_stop = False


class TestKserve(OipContract):
    __test__ = True
    dialect = KSERVE
    oip = OipSettings(generate=replace(OWN, finish_reason="finish_reason"), chat="chatml", embed=EmbedTensors())
    honours_stop = False
    streams = False
