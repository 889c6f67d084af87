"""The backend that is a service elsewhere."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import grpc.aio

from ...core.answer import Classification, Embeddings, Finish, GenerateEvent, Inference
from ...core.content import ClassifyInput, CountTokensInput, EmbedInput, GenerateInput, InferInput
from ...core.failure import AttemptError, FailureKind
from ...core.request import Task
from ..backend import CallContext, Capabilities
from ..endpoint import Endpoint
from ..remote import RemoteBackend
from ..tls_diagnosis import TlsDiagnosis
from .call_metadata import CallMetadata
from .channel import same_trust
from .connection import Connection, Line
from .each_address import EachAddress
from .fork import refuse_after_fork
from .handshake import Handshake
from .named_streams import NamedStreams, first_to_speak
from .protocols import PROTOCOL_TYPES
from .settings import GrpcSettings, TlsSettings
from .status import CALL_ERRORS, attempt_error, failure
from .target import parse_target
from .tensor_messages import join_embeddings
from .wire_protocol import ReportedFailure, StreamReader

C = TypeVar("C")
A = TypeVar("A")

_Beginning = tuple[str, bytes, StreamReader]
"""How a stream begins: the method's path, its message, and what reads the answers."""

_HEALTH_PATH = "/grpc.health.v1.Health/Check"
_NOT_THERE = frozenset({FailureKind.UNREACHABLE, FailureKind.TIMED_OUT})

_STATUS_WAIT = 0.05
"""Seconds that a server gets to end a stream by itself after its finish. The answer is whole either way."""


class GrpcBackend(RemoteBackend):
    """A model service over gRPC."""

    def __init__(self, name: str, settings: GrpcSettings) -> None:
        protocol = PROTOCOL_TYPES[settings.protocol](settings)
        capabilities = Capabilities(
            tasks=settings.offered,
            context_tokens=settings.context_tokens,
            continues=settings.continues and protocol.continues,
            constrains=settings.constrains and protocol.constrains,
            logprobs=settings.logprobs and protocol.logprobs,
            resumes=settings.resumes and protocol.resumes,
            max_concurrency=settings.max_concurrency,
        )
        super().__init__(name, capabilities)
        self._settings = settings
        self._endpoint = parse_target(settings.target).endpoint
        self._protocol = protocol
        self._introduced = not protocol.questions()
        self._metadata = CallMetadata(name, settings, protocol)
        self._connection = Connection(settings)
        self._handshake = Handshake(name, settings, protocol, self._metadata)
        several = settings.balances and self._endpoint.port is not None
        self._each = EachAddress(settings) if several and capabilities.resumes else None
        self._named = NamedStreams(protocol, self._metadata, self._each)
        tls = settings.tls or (None if self._endpoint.local else TlsSettings())
        longest = settings.connect_timeout
        self._diagnosis = TlsDiagnosis(name, self._endpoint, tls, same_trust, mend="give `tls`", longest=longest)

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def probe(self, seconds: float) -> None:
        """Ask for its health on a new connection. Any status of the server's own shows that it is there."""
        await self._connection.renew()
        line = self._take_line(self._connection)
        rpc = line.unary(_HEALTH_PATH)(b"", timeout=seconds)
        line.calls.add(rpc)
        failed: AttemptError | None = None
        try:
            await rpc
        except grpc.aio.AioRpcError as error:
            failed = attempt_error(self.name, error, lambda code, details: None)
        finally:
            await self._leave(line, rpc)
        if failed is not None:
            failed = await self._diagnosis.of(failed, seconds)
            if failed.fault is not None or failed.kind in _NOT_THERE:
                self._last_failure = failed.sentence
                self._connection.failed(line, failed.kind)
                raise failed
        self._connection.succeeded()

    async def network_changed(self) -> None:
        await self._connection.renew()
        if self._each is not None:
            await self._each.renew()

    def is_mended(self, kind: FailureKind) -> bool:
        replaced = self._connection.files.replaced() or self._metadata.has_another()
        return kind is FailureKind.CREDENTIALS and replaced

    async def start(self) -> None:
        refuse_after_fork()

    async def stop(self) -> None:
        self._stopped = True
        await self._named.release_all()
        await self._metadata.close()
        await self._diagnosis.close()
        await self._connection.close()
        if self._each is not None:
            await self._each.close()

    def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        if context.stream and not self._capabilities.resumes:
            context = replace(context, stream="")  # a name that is sent has to be released

        async def begin() -> _Beginning:
            self._require(Task.GENERATE)
            if not self._introduced:
                await self._introduce(Task.GENERATE, context)
            request = self._encode(self._protocol.encode_generate, call, context)
            return self._protocol.generate_path, request, self._protocol.generate_reader(call)

        return self._stream(begin, partial(self._judged, Task.GENERATE), context, self._connection)

    def resume(self, after: int, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        if not self._capabilities.resumes:
            return super().resume(after, context)

        async def begin() -> _Beginning:
            request = self._protocol.encode_resume(context.stream, after)
            return self._protocol.resume_path, request, self._protocol.resume_reader(after)

        if self._each is None:
            return self._stream(begin, self._judged_resumption, context, self._connection)
        return self._found(begin, context, self._each)

    async def _found(
        self, begin: Callable[[], Awaitable[_Beginning]], context: CallContext, each: EachAddress
    ) -> AsyncGenerator[GenerateEvent, None]:
        """The stream, from the address that has it. All are asked at once, without content: a miss is a round trip."""
        unnamed = replace(context, stream="")  # who is asked and does not have it has nothing to release
        connections = await each.connections()
        if not connections:
            raise failure(self.name, FailureKind.UNREACHABLE)
        asked = [self._stream(begin, self._judged_resumption, unnamed, connection) for connection in connections]
        event, rest = await first_to_speak(asked)
        if type(event) is not Finish:
            self._named.begun(context.stream, None)
        try:
            yield event
            async for event in rest:
                if type(event) is Finish:
                    self._named.ended(context.stream)
                yield event
        except AttemptError:
            self._named.ended(context.stream)
            raise
        finally:
            await rest.aclose()
            self._named.left(context.stream)

    async def _stream(
        self,
        begin: Callable[[], Awaitable[_Beginning]],
        judged: Callable[[Exception], AttemptError],
        context: CallContext,
        connection: Connection,
    ) -> AsyncGenerator[GenerateEvent, None]:
        path, request, reader = await begin()
        stream = context.stream if self._capabilities.resumes else ""
        line: Line | None = None
        rpc: grpc.aio.UnaryStreamCall[bytes, bytes] | None = None
        try:
            await self._metadata.renew(context)
            line = self._take_line(connection)
            if context.bounds.attested:
                await self._handshake.prove(line, context, self._remaining(context))
            rpc = line.stream(path)(request, timeout=self._remaining(context), metadata=self._metadata.of(path))
            line.calls.add(rpc)
            if stream:
                self._named.begun(stream, line)
            # Iterating the call instead would put one more generator under every token.
            while isinstance(message := await rpc.read(), bytes):
                for event in reader.read(message):
                    if type(event) is Finish:
                        self._named.ended(stream)
                    yield event
                    if type(event) is Finish:
                        self._succeeded()
                        await _let_end(rpc)
                        return
            # The call ended well: reading on from a bad end raises its status.
            for event in reader.end():
                self._succeeded()
                yield event
                return
            failed = self._noted(line, failure(self.name, FailureKind.TRUNCATED))
        except AttemptError as error:
            failed = self._noted(line, error)
        except CALL_ERRORS as error:
            failed = self._noted(line, judged(error))
        except asyncio.CancelledError:
            if not self._ended_by_stop(line):
                raise
            failed = failure(self.name, FailureKind.PREEMPTED)
        finally:
            if rpc is not None and rpc.done():
                self._named.ended(stream)
            elif rpc is not None:
                rpc.cancel()
                self._named.left(stream)
            await self._leave(line, rpc)
        # Raised out here, no error of the library's, with its server's text, hangs on it as its context.
        raise await self._explained(failed, self._seconds_left(context))

    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        self._require(Task.EMBED)
        if not self._introduced:
            await self._introduce(Task.EMBED, context)
        most = self._protocol.most_texts or len(call.texts)
        if len(call.texts) <= most:
            return await self._embed(call, context)
        parts = [EmbedInput(call.texts[at : at + most]) for at in range(0, len(call.texts), most)]
        joined = join_embeddings([await self._embed(part, context) for part in parts])
        if joined is None:
            raise failure(self.name, FailureKind.PROTOCOL)
        return joined

    async def _embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        def decode(message: bytes) -> Embeddings:
            answer = self._protocol.decode_embed(message)
            if answer.vectors.shape[0] != len(call.texts):
                raise ValueError("there are not as many vectors as texts")
            return answer

        request = self._encode(self._protocol.encode_embed, call, context)
        return await self._unary(Task.EMBED, self._protocol.embed_path, request, decode, context)

    async def classify(self, call: ClassifyInput, context: CallContext) -> Classification:
        self._require(Task.CLASSIFY)

        def decode(message: bytes) -> Classification:
            answer = self._protocol.decode_classify(message)
            if answer.scores.shape[0] != len(call.texts):
                raise ValueError("there are not as many scores as texts")
            return answer

        request = self._encode(self._protocol.encode_classify, call, context)
        return await self._unary(Task.CLASSIFY, self._protocol.classify_path, request, decode, context)

    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        self._require(Task.COUNT_TOKENS)
        request = self._encode(self._protocol.encode_count, call, context)
        return await self._unary(
            Task.COUNT_TOKENS, self._protocol.count_path, request, self._protocol.decode_count, context
        )

    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        self._require(Task.INFER)
        request = self._encode(self._protocol.encode_infer, call, context)
        try:
            return await self._unary(
                Task.INFER, self._protocol.infer_path, request, self._protocol.decode_infer, context
            )
        except AttemptError as error:
            if not call.model or error.kind is not FailureKind.MODEL_UNAVAILABLE:
                raise
        # The caller named the model, not the configuration: nothing is wrong with the backend.
        raise failure(self.name, FailureKind.UNKNOWN_MODEL)

    async def _introduce(self, task: Task, context: CallContext) -> None:
        """Ask the service what the protocol must know of it. Nothing of the request goes with it."""
        answers: list[bytes | None] = []
        for path, question in self._protocol.questions():
            try:
                answers.append(await self._unary(task, path, question, bytes, context))
            except AttemptError as error:
                if error.kind is not FailureKind.UNSUPPORTED:
                    raise
                answers.append(None)
        try:
            self._protocol.learn(answers)
        except CALL_ERRORS as error:
            failed = self._noted(None, self._judged(task, error))
        else:
            self._introduced = True
            return
        raise failed

    async def _unary(
        self, task: Task, path: str, request: bytes, decode: Callable[[bytes], A], context: CallContext
    ) -> A:
        line: Line | None = None
        rpc: grpc.aio.UnaryUnaryCall[bytes, bytes] | None = None
        try:
            await self._metadata.renew(context)
            line = self._take_line(self._connection)
            if context.bounds.attested:
                await self._handshake.prove(line, context, self._remaining(context))
            rpc = line.unary(path)(request, timeout=self._remaining(context), metadata=self._metadata.of(path))
            line.calls.add(rpc)
            message = await rpc
            if not isinstance(message, bytes):  # a good end of the call, and no answer
                raise ReportedFailure(FailureKind.TRUNCATED)
            answer = decode(message)
            self._succeeded()
            return answer
        except AttemptError as error:
            failed = self._noted(line, error)
        except CALL_ERRORS as error:
            failed = self._noted(line, self._judged(task, error))
        except asyncio.CancelledError:
            if not self._ended_by_stop(line):
                raise
            failed = failure(self.name, FailureKind.PREEMPTED)
        finally:
            await self._leave(line, rpc)
        raise await self._explained(failed, self._seconds_left(context))

    def _encode(self, encode: Callable[[C, CallContext, float], bytes], call: C, context: CallContext) -> bytes:
        remaining = self._remaining(context)
        try:
            request = encode(call, context, math.inf if remaining is None else remaining)
        except (ValueError, TypeError, RecursionError):  # their texts may quote the request
            request = None
        if request is None:
            raise AttemptError(FailureKind.INVALID_REQUEST, "the request holds what cannot be sent (bad Unicode?)")
        if len(request) > self._settings.max_message:
            raise failure(self.name, FailureKind.CONTEXT_LENGTH)
        return request

    def _remaining(self, context: CallContext) -> float | None:
        """Seconds to the deadline; ``None`` for one that never comes. Raises where it has passed."""
        remaining = self._seconds_left(context)
        if remaining <= 0.0:
            raise failure(self.name, FailureKind.TIMED_OUT)
        return None if remaining == math.inf else remaining

    def _seconds_left(self, context: CallContext) -> float:
        return context.deadline.remaining(asyncio.get_running_loop().time())

    def _take_line(self, connection: Connection) -> Line:
        self._refuse_when_stopped()
        return connection.take()

    async def _leave(self, line: Line | None, rpc: grpc.aio.Call | None) -> None:
        if rpc is not None:
            rpc.cancel()  # does nothing to one that has ended
        if line is not None:
            await line.connection.ended(line, rpc)

    def _judged_resumption(self, error: Exception) -> AttemptError:
        """A server that cannot resume is no worse for it."""
        failed = self._judged(Task.GENERATE, error)
        if failed.kind in {FailureKind.UNSUPPORTED, FailureKind.MODEL_UNAVAILABLE}:
            return failure(self.name, FailureKind.CONFLICT)
        return failed

    def _judged(self, task: Task, error: Exception) -> AttemptError:
        failed = attempt_error(self.name, error, partial(self._protocol.judge, task))
        if failed.kind is FailureKind.CREDENTIALS and self._metadata.refused():
            return AttemptError(FailureKind.CONFLICT, f"backend {self.name!r} wants a new token; the next call has one")
        return failed

    async def _explained(self, failed: AttemptError, seconds_left: float) -> AttemptError:
        explained = await self._diagnosis.of(failed, seconds_left)
        self._last_failure = explained.sentence
        return explained

    def _succeeded(self) -> None:
        self._last_failure = ""
        self._metadata.accepted()
        self._connection.succeeded()

    def _noted(self, line: Line | None, failed: AttemptError) -> AttemptError:
        self._last_failure = failed.sentence
        if line is not None:
            line.connection.failed(line, failed.kind)
        return failed

    def _ended_by_stop(self, line: Line | None) -> bool:
        """Whether a cancellation is the closing of the channel rather than somebody's wish to cancel this task."""
        task = asyncio.current_task()
        return line is not None and line.closed and (task is None or task.cancelling() == 0)


async def _let_end(rpc: grpc.aio.UnaryStreamCall[bytes, bytes]) -> None:
    """Wait a moment for the server's own end of the call, so that a whole answer is not cancelled at its last step."""
    try:
        async with asyncio.timeout(_STATUS_WAIT):
            await rpc.code()
    except TimeoutError:
        pass
