"""A model server on loopback over a scripted backend, and clients of the real stack."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from edgewise.backends import Backend, BackendHealth, CallContext, Capabilities, HealthState
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.core.answer import (
    Classification,
    Delta,
    Embeddings,
    Finish,
    FinishReason,
    GenerateEvent,
    Inference,
    TokenLogprob,
    Usage,
)
from edgewise.core.content import (
    ClassifyInput,
    Content,
    CountTokensInput,
    EmbedInput,
    GenerateInput,
    InferInput,
    Message,
    Tensor,
)
from edgewise.core.deadline import Deadline
from edgewise.core.request import Task
from edgewise.core.settings import FilePath
from edgewise.router.serving import ServeSettings
from edgewise.router.serving.server import ModelServer

from .cutting_proxy import CuttingProxy

SECRET_WORDS = "the patient's word is plover"


class Scripted(Backend):
    """A backend without an engine: it answers two words, holds where a test says so, or raises what it is given."""

    def __init__(self, name: str, tasks: frozenset[Task] = frozenset(Task), limit: int = 1) -> None:
        super().__init__(name)
        self._capabilities = Capabilities(tasks, 512, continues=True, logprobs=True, max_concurrency=limit)
        self.state = HealthState.READY
        self.seen: list[tuple[Content, CallContext]] = []
        self.failure: Exception | None = None
        self.cut = False
        self.silent = False
        self.hold: asyncio.Event | None = None
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()
        self.closed = asyncio.Event()

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def health(self) -> BackendHealth:
        return BackendHealth(self.state)

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        await self._begin(call, context)
        logprobs = (TokenLogprob("hello", -0.25, (("hi", -1.5),)),) if call.logprobs is not None else ()
        try:
            if self.silent:
                await asyncio.Event().wait()
            yield Delta("hello ", 1, logprobs)
            await self._wait()
            yield Delta("there", 2)
            if not self.cut:
                yield Finish(FinishReason.LENGTH, Usage(7, 3), "scripted-1", "", 0)
        finally:
            self.closed.set()

    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        await self._begin(call, context)
        await self._wait()
        count = len(call.texts)
        return Embeddings(Tensor("float32", (count, 2), bytes(8 * count)), Usage(count, 0), "scripted-1")

    async def classify(self, call: ClassifyInput, context: CallContext) -> Classification:
        await self._begin(call, context)
        scores = Tensor("float32", (len(call.texts), 2), struct.pack("<2f", 0.25, 0.75) * len(call.texts))
        return Classification(("calm", "angry"), scores, Usage(len(call.texts), 0), "scripted-1")

    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        await self._begin(call, context)
        return Inference(dict(call.inputs), "scripted-1")

    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        await self._begin(call, context)
        return 7

    async def _begin(self, call: Content, context: CallContext) -> None:
        self.seen.append((call, context))
        if self.failure is not None:
            raise self.failure

    async def _wait(self) -> None:
        if self.hold is None:
            return
        self.started.set()
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.stopped.set()
            raise


Serve = Callable[..., Awaitable[ModelServer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[ModelServer] = []

    async def start(*backends: Backend, **settings: Any) -> ModelServer:
        configured = replace(ServeSettings(listen="127.0.0.1:0", place="NL"), **settings)
        server = ModelServer(configured, {backend.name: backend for backend in backends})
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


Connect = Callable[..., GrpcBackend]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    made: list[GrpcBackend] = []

    def make(server: ModelServer | CuttingProxy, **settings: Any) -> GrpcBackend:
        made.append(GrpcBackend("remote", replace(GrpcSettings(target=server.address), **settings)))
        return made[-1]

    yield make
    for backend in made:
        await backend.stop()


def within(seconds: float, **more: Any) -> CallContext:
    return CallContext("request-1", Deadline.after(asyncio.get_running_loop().time(), seconds), **more)


CALL = GenerateInput((Message.user(SECRET_WORDS),))


async def collect(events: AsyncGenerator[GenerateEvent, None]) -> list[GenerateEvent]:
    return [event async for event in events]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> tuple[FilePath, FilePath, FilePath]:
    """A certificate chain for localhost, its key, and the roots that vouch for it."""
    issued = authority.issue_cert("localhost")
    chain, key, roots = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "roots.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    roots.write_bytes(authority.cert_pem.bytes())
    return FilePath(str(chain)), FilePath(str(key)), FilePath(str(roots))
