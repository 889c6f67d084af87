"""What each protocol carries and how its failures are read, seen in calls that were made: for docs/protocols.md."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio

from edgewise.backends import Backend, CallContext, Capabilities
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.oip_settings import EmbedTensors, GenerateTensors, OipSettings
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.backends.openai import OpenaiSettings
from edgewise.backends.openai.backend import OpenaiBackend
from edgewise.core.answer import Delta, Finish, FinishReason, GenerateEvent, TokenLogprob, Usage
from edgewise.core.content import (
    ClassifyInput,
    CountTokensInput,
    EmbedInput,
    GenerateInput,
    InferInput,
    Message,
    Tensor,
)
from edgewise.core.deadline import Deadline
from edgewise.core.failure import DISPOSITIONS, AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.core.settings import Secret
from edgewise.router.serving import ServeSettings
from edgewise.router.serving.server import ModelServer
from edgewise.testing import Script, ScriptedBackend

from . import oip_server
from .counting import BREAKING, LASTING
from .google_server import EMBED_MODELS, KEY, MODELS, GoogleServer
from .oip_server import OipServer
from .openai_server import OpenaiServer
from .service import Context

OWN = GenerateTensors(max_output_tokens="max_tokens")
TENSORS = {"x": Tensor("float32", (2,), bytes(8))}


@dataclass(frozen=True)
class Column:
    """One protocol with a server behind it. ``idle`` waits until that works on nothing."""

    backend: Backend
    idle: Callable[[], Awaitable[None]]
    embedder: Backend | None = None


def context(seconds: float = 10.0) -> CallContext:
    return CallContext("r", Deadline(asyncio.get_running_loop().time() + seconds), stream=secrets.token_hex(16))


def call(text: str = "count", **options: Any) -> GenerateInput:
    return GenerateInput((Message.user(text),), **{"max_output_tokens": 3, "temperature": 0.0} | options)


class _Counting(ScriptedBackend):
    """Heeds the length, and gives log-probabilities where they are asked for."""

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        said = 0
        async for event in super().generate(call, context):
            if isinstance(event, Delta):
                said += 1
                logprobs = () if call.logprobs is None else (TokenLogprob(event.text, -0.5),)
                yield replace(event, logprobs=logprobs)
            if said == call.max_output_tokens:
                yield Finish(FinishReason.LENGTH, Usage(2, said), model="model")
                return


@asynccontextmanager
async def edgewise() -> AsyncIterator[Column]:
    words = tuple(f"{number} " for number in range(1, 200))
    can = Capabilities(frozenset(Task), logprobs=True, max_concurrency=8)
    scripted = _Counting("model", Script(words, first_after=0.0, every=0.005), capabilities=can)
    server = ModelServer(ServeSettings(listen="127.0.0.1:0", place="NL"), {"model": scripted})
    await server.start()
    backend = GrpcBackend("edgewise", GrpcSettings(server.address, tasks=tuple(Task)))

    async def idle() -> None:
        while not all(each.outcome for each in scripted.calls):  # noqa: ASYNC110  # a script's end is no event
            await asyncio.sleep(0)

    try:
        yield Column(backend, idle)
    finally:
        await backend.stop()
        await server.stop()


@asynccontextmanager
async def oip(dialect: oip_server.Dialect, settings: OipSettings) -> AsyncIterator[Column]:
    server = OipServer(dialect)
    await server.start()
    backend = GrpcBackend("oip", GrpcSettings(server.target, ProtocolName.OIP, "llm", oip=settings))
    try:
        yield Column(backend, server.idle)
    finally:
        await backend.stop()
        await server.stop()


@asynccontextmanager
async def google(protocol: ProtocolName) -> AsyncIterator[Column]:
    server = GoogleServer(protocol)
    await server.start()
    settings = GrpcSettings(server.target, protocol, MODELS[protocol], credentials=Secret(KEY))
    backend = GrpcBackend("google", settings)
    embedder = GrpcBackend("google", replace(settings, model=EMBED_MODELS[protocol]))
    try:
        yield Column(backend, server.idle, embedder)
    finally:
        await backend.stop()
        await embedder.stop()
        await server.stop()


@asynccontextmanager
async def openai() -> AsyncIterator[Column]:
    from .openai_server import KEY as key

    server = OpenaiServer()
    await server.start()
    backend = OpenaiBackend("openai", OpenaiSettings(server.url, "llm", "vectors", credentials=Secret(key)))
    try:
        yield Column(backend, server.idle)
    finally:
        await backend.stop()
        await server.stop()


COLUMNS: Mapping[str, Callable[[], Any]] = {
    "edgewise": edgewise,
    "oip, vllm": lambda: oip(oip_server.TRITON_VLLM, OipSettings(generate="vllm", embed=EmbedTensors())),
    "oip, tensorrt_llm": lambda: oip(
        oip_server.TENSORRT_LLM, OipSettings(generate="tensorrt_llm", embed=EmbedTensors())
    ),
    "oip, dynamo": lambda: oip(oip_server.DYNAMO, OipSettings(generate="dynamo")),
    "oip, MLServer": lambda: oip(oip_server.MLSERVER, OipSettings(generate=OWN, embed=EmbedTensors())),
    "oip, KServe": lambda: oip(
        oip_server.KSERVE, OipSettings(generate=replace(OWN, finish_reason="finish_reason"), embed=EmbedTensors())
    ),
    "gemini": lambda: google(ProtocolName.GEMINI),
    "vertex": lambda: google(ProtocolName.VERTEX),
    "openai": openai,
}


async def carried(column: Column) -> dict[str, bool]:
    """What came with real answers."""
    backend, can = column.backend, column.backend.capabilities
    events = await generation(backend)
    deltas, finish = [each for each in events if isinstance(each, Delta)], events[-1]
    assert isinstance(finish, Finish)
    seen = {
        "a text in pieces": len(deltas) > 1,
        "finish reason": finish.reason is FinishReason.LENGTH,
        "usage: the prompt's tokens": finish.usage.prompt_tokens > 0,
        "usage: the answer's tokens": finish.usage.output_tokens > 0,
        "model": bool(finish.model),
        "place": bool(finish.place),
        "load": finish.queue_depth is not None,
        "embeddings": await _succeeds((column.embedder or backend).embed(EmbedInput(("a",)), context())),
        "classifying": await _succeeds(backend.classify(ClassifyInput(("a",)), context())),
        "tensors": await _succeeds(backend.infer(InferInput("", TENSORS), context())),
        "counting tokens": await _succeeds(backend.count_tokens(CountTokensInput(call().messages), context())),
        "resuming a lost stream": await _goes_on(backend),
        "continuing a text exactly": can.continues,
        "health": await _succeeds(backend.probe(5.0)),
    }
    seen["log-probabilities"] = can.logprobs and await _has_logprobs(backend)
    seen["response formats"] = can.constrains and await _has_formats(backend)
    seen["cancel stops the work"] = await _stops(column)
    return seen


async def generation(backend: Backend, **options: Any) -> list[GenerateEvent]:
    """A whole answer."""
    return [event async for event in backend.generate(call(**options), context())]


async def _goes_on(backend: Backend) -> bool:
    """Whether a stream that is under way can be had once more from its second event, and ends."""
    terms = context()
    stream = backend.generate(call(), terms)
    await anext(stream)
    try:
        rest = [event async for event in backend.resume(1, terms)]
    except AttemptError:
        return False
    finally:
        await stream.aclose()
    return isinstance(rest[0], Delta) and isinstance(rest[-1], Finish)


async def _has_formats(backend: Backend) -> bool:
    return await _succeeds(generation(backend, response_format={"type": "json_object"}))


async def _has_logprobs(backend: Backend) -> bool:
    events = await generation(backend, logprobs=1)
    return any(event.logprobs for event in events if isinstance(event, Delta))


async def _stops(column: Column) -> bool:
    stream = column.backend.generate(call(LASTING, max_output_tokens=150), context())
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.wait([reading], timeout=0.5)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await stream.aclose()
    async with asyncio.timeout(2.0):
        await column.idle()
    return True


async def _succeeds(work: Awaitable[object]) -> bool:
    try:
        await work
    except AttemptError:
        return False
    return True


async def kind_of(backend: Backend, text: str = "count", **options: Any) -> str:
    """How a call fails."""
    try:
        async for _ in backend.generate(call(text, **options), context()):
            pass
    except AttemptError as error:
        return error.kind.value
    return "answered"


class _Aborting(grpc.GenericRpcHandler):
    """Every method of every service, ended with one status."""

    code = grpc.StatusCode.OK

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._abort)

    async def _abort(self, requests: AsyncIterator[bytes], context: Context) -> None:
        if self.code is not grpc.StatusCode.OK:
            await context.abort(self.code, "")


PROTOCOLS = tuple(ProtocolName)


async def statuses() -> dict[grpc.StatusCode, dict[ProtocolName, str]]:
    """The kind of failure that each status of a server becomes."""
    aborting = _Aborting()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([aborting])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    oip = OipSettings(generate="vllm")
    backends = {
        each: GrpcBackend("b", GrpcSettings(target, each, "m", oip=oip if each is ProtocolName.OIP else None))
        for each in PROTOCOLS
    }
    read: dict[grpc.StatusCode, dict[ProtocolName, str]] = {}
    try:
        for code in grpc.StatusCode:
            aborting.code = code
            read[code] = {name: await kind_of(backend) for name, backend in backends.items()}
    finally:
        for backend in backends.values():
            await backend.stop()
        await server.stop(0)
    return read


async def in_band() -> list[tuple[str, str, str]]:
    """Failures that servers tell inside messages: the protocol, what is told, and the kind that it becomes."""
    rows: list[tuple[str, str, str]] = []
    triton = OipServer(oip_server.TRITON_VLLM)
    await triton.start()
    settings = GrpcSettings(triton.target, ProtocolName.OIP, "llm", oip=OipSettings(generate="vllm"))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(triton.stop)
        backend = GrpcBackend("b", settings)
        stranger = GrpcBackend("b", replace(settings, model="nobody"))
        misfit = GrpcBackend("b", replace(settings, oip=OipSettings(generate="tensorrt_llm")))
        for each in (backend, stranger, misfit):
            stack.push_async_callback(each.stop)
        told = "`error_message` with status OK: "
        async with triton.filled():
            rows.append(("oip", told + "the queue is full", await kind_of(backend)))
        rows.append(("oip", told + "the model is unknown", await kind_of(stranger)))
        rows.append(("oip", told + "our tensors are not the model's", await kind_of(misfit)))
        rows.append(("oip", told + "the prompt is too long", await kind_of(backend, "word " * 5000)))
        rows.append(("oip", told + "anything else", await kind_of(backend, BREAKING, max_output_tokens=9)))
    for protocol in (ProtocolName.GEMINI, ProtocolName.VERTEX):
        server = GoogleServer(protocol)
        await server.start()
        google = GrpcSettings(server.target, protocol, MODELS[protocol], credentials=Secret(KEY))
        backend = GrpcBackend("b", google)
        wrong = GrpcBackend("b", replace(google, credentials=Secret("other")))
        try:
            server.blocked = True
            rows.append((protocol, "a blocked prompt", await kind_of(backend)))
            server.blocked = False
            for finish in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "OTHER"):
                server.finish = finish
                rows.append((protocol, f"finish reason `{finish}`", await kind_of(backend)))
            server.finish = "FINISH_REASON_UNSPECIFIED"
            rows.append((protocol, "no finish reason", await kind_of(backend)))
            rows.append((protocol, "too many tokens (INVALID_ARGUMENT)", await kind_of(backend, "word " * 5000)))
            rows.append((protocol, "a key that is not valid", await kind_of(wrong)))
        finally:
            await backend.stop()
            await wrong.stop()
            await server.stop()
    async with openai() as column:
        rows.append(("openai", "an `error` in a stream", await kind_of(column.backend, BREAKING, max_output_tokens=9)))
        rows.append(("openai", "`context_length_exceeded`", await kind_of(column.backend, "word " * 5000)))
    return rows


async def tables() -> dict[str, str]:
    """The page's tables, by the names of their places."""
    names = list(COLUMNS)
    seen = {}
    for name, opened in COLUMNS.items():
        async with opened() as column:
            seen[name] = await carried(column)
    lines = [_row(["", *(f"`{name}`" if "," not in name else name for name in names)]), _rule(len(names) + 1)]
    lines += [_row([what, *("yes" if seen[name][what] else "–" for name in names)]) for what in seen[names[0]]]
    heads = [*(f"`{name}`" for name in PROTOCOLS), "asked again here", "another backend is asked"]
    read = [_row(["status", *heads]), _rule(len(heads) + 1)]
    for code, kinds in (await statuses()).items():
        follows = DISPOSITIONS[FailureKind(kinds[ProtocolName.EDGEWISE])]
        ends = [_word(follows.retry_here), _word(follows.next_backend)]
        read.append(_row([code.name, *(f"`{kinds[name]}`" for name in PROTOCOLS), *ends]))
    told: dict[tuple[str, str], list[str]] = {}
    for protocol, what, kind in await in_band():
        told.setdefault((what, kind), []).append(f"`{protocol}`")
    bands = [_row(["protocol", "what the server says", "failure"]), _rule(3)]
    bands += [_row([", ".join(protocols), what, f"`{kind}`"]) for (what, kind), protocols in told.items()]
    return {"carried": "\n".join(lines), "statuses": "\n".join(read), "in band": "\n".join(bands)}


def _word(truth: bool) -> str:
    return "yes" if truth else "no"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(count: int) -> str:
    return "|" + " --- |" * count
