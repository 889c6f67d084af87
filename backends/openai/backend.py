"""The backend that is a service elsewhere, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial

import httpx

from ...core.answer import Embeddings, Finish, GenerateEvent
from ...core.content import EmbedInput, GenerateInput
from ...core.failure import AttemptError, FailureKind
from ...core.request import Task
from ..backend import CallContext, Capabilities
from ..endpoint import Endpoint
from ..grpc.settings import TlsSettings
from ..remote import RemoteBackend
from ..tls_diagnosis import TlsDiagnosis
from ..tokens import tokens_from
from .client import Clients, tls_context
from .events import EventReader
from .failures import ReportedFailure, failure, from_exception, from_response
from .messages import ChunkReader, embed_body, embeddings, generate_body
from .patience import Patience
from .settings import OpenaiSettings

_LARGEST_BODY = 64 * 1024 * 1024
_LARGEST_ERROR = 64 * 1024

_CALL_ERRORS = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, ValueError, ReportedFailure)
"""What a call can raise: the client's complaints, the end of patience, and what cannot be read or reports a failure."""


class OpenaiBackend(RemoteBackend):
    """A model service over HTTP."""

    def __init__(self, name: str, settings: OpenaiSettings) -> None:
        capabilities = Capabilities(
            tasks=settings.offered,
            context_tokens=settings.context_tokens,
            constrains=settings.constrains,
            logprobs=settings.logprobs,
            max_concurrency=settings.max_concurrency,
        )
        super().__init__(name, capabilities)
        self._settings = settings
        self._clients = Clients(settings)
        tls = settings.tls or TlsSettings() if settings.encrypted else None
        mend = "write `https:` in its `url`"
        longest = settings.connect_timeout
        self._diagnosis = TlsDiagnosis(name, settings.endpoint, tls, tls_context, mend=mend, longest=longest)
        self._answered = False
        self._under_way: set[Patience] = set()
        self._token = "" if settings.credentials is None else settings.credentials.reveal()
        self._tokens = tokens_from(name, settings.credentials_from)
        server_name = None if settings.tls is None else settings.tls.server_name
        self._extensions = {} if server_name is None else {"sni_hostname": server_name}

    async def stop(self) -> None:
        self._stopped = True
        for patience in self._under_way:
            patience.end()
        if self._tokens is not None:
            await self._tokens.close()
        await self._diagnosis.close()
        await self._clients.close()

    @property
    def endpoint(self) -> Endpoint:
        return self._settings.endpoint

    async def probe(self, seconds: float) -> None:
        """Ask for the list of models on a new connection, without credentials. Any answer shows that it is there."""
        await self._clients.renew()
        client = self._take_client()
        try:
            async with asyncio.timeout(seconds):
                request = client.build_request("GET", "models", extensions=self._extensions)
                response = await client.send(request, stream=True)
                await response.aclose()
                return
        except _CALL_ERRORS as error:
            failed = self._judged(error)
        finally:
            await self._clients.leave(client)
        raise failed

    def is_mended(self, kind: FailureKind) -> bool:
        replaced = self._clients.files.replaced() or (self._tokens is not None and self._tokens.has_another())
        return kind is FailureKind.CREDENTIALS and replaced

    async def network_changed(self) -> None:
        await self._clients.renew()

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        self._require(Task.GENERATE)
        body = _encoded(partial(generate_body, self._settings, call))
        client, patience = self._begin(context)
        response: httpx.Response | None = None
        try:
            response = await self._send(client, "chat/completions", body, context, patience)
            events, chunks = EventReader(), ChunkReader()
            next_piece = partial(anext, response.aiter_bytes(), None)
            while (piece := await patience.wait(next_piece)) is not None:
                for data in events.feed(piece):
                    for event in chunks.read(data):
                        yield event
                        if type(event) is Finish:
                            self._last_failure = ""
                            return
            for event in chunks.end():
                self._last_failure = ""
                yield event
                return
            failed = failure(self.name, FailureKind.TRUNCATED)
        except _CALL_ERRORS as error:
            failed = self._judged(error)
        finally:
            await self._end(client, patience, response)
        # Raised out here, no error of the library's hangs on it as its context.
        raise self._noted(await self._explained(failed, response, context))

    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        self._require(Task.EMBED)
        body = _encoded(partial(embed_body, self._settings, call))
        client, patience = self._begin(context)
        response: httpx.Response | None = None
        try:
            response = await self._send(client, "embeddings", body, context, patience)
            answer = embeddings(await patience.wait(partial(_whole, response, _LARGEST_BODY)), len(call.texts))
            self._last_failure = ""
            return answer
        except _CALL_ERRORS as error:
            failed = self._judged(error)
        finally:
            await self._end(client, patience, response)
        raise self._noted(await self._explained(failed, response, context))

    async def _send(
        self, client: httpx.AsyncClient, path: str, body: bytes, context: CallContext, patience: Patience
    ) -> httpx.Response:
        """The beginning of a good answer."""
        if context.deadline.remaining(asyncio.get_running_loop().time()) <= 0.0:
            raise failure(self.name, FailureKind.TIMED_OUT)
        if self._tokens is not None:
            self._token = await self._tokens.get(context.deadline.at)
        self._refuse_when_stopped()
        headers = {"content-type": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        if context.idempotency_key:
            headers["idempotency-key"] = context.idempotency_key
        request = client.build_request("POST", path, content=body, headers=headers, extensions=self._extensions)
        response = await patience.wait(partial(client.send, request, stream=True))
        self._answered = True
        if response.status_code == httpx.codes.OK:
            if self._tokens is not None:
                self._tokens.accepted()
            return response
        try:
            text = await patience.wait(partial(_beginning, response, _LARGEST_ERROR))
        finally:
            await response.aclose()
        failed = from_response(self.name, response.status_code, response.headers, text)
        if failed.kind is FailureKind.CREDENTIALS and self._tokens is not None and self._tokens.refused(self._token):
            failed = AttemptError(
                FailureKind.CONFLICT, f"backend {self.name!r} wants a new token; the next call has one"
            )
        raise self._noted(failed)

    def _take_client(self) -> httpx.AsyncClient:
        self._refuse_when_stopped()
        return self._clients.take()

    def _begin(self, context: CallContext) -> tuple[httpx.AsyncClient, Patience]:
        client, patience = self._take_client(), Patience(context.deadline.at)
        self._under_way.add(patience)
        return client, patience

    async def _end(self, client: httpx.AsyncClient, patience: Patience, response: httpx.Response | None) -> None:
        if response is not None:
            await response.aclose()
        patience.close()
        self._under_way.discard(patience)
        await self._clients.leave(client)

    async def _explained(
        self, failed: AttemptError, response: httpx.Response | None, context: CallContext
    ) -> AttemptError:
        # What has answered in plaintext does not want TLS; a certificate that was taken before may be over now.
        if response is not None or (self._answered and not self._settings.encrypted):
            return failed
        return await self._diagnosis.of(failed, context.deadline.remaining(asyncio.get_running_loop().time()))

    def _judged(self, error: Exception) -> AttemptError:
        if isinstance(error, TimeoutError):
            return failure(self.name, FailureKind.PREEMPTED if self._stopped else FailureKind.TIMED_OUT)
        return from_exception(self.name, error)

    def _noted(self, failed: AttemptError) -> AttemptError:
        self._last_failure = failed.sentence
        return failed


def _encoded(encode: Callable[[], bytes]) -> bytes:
    try:
        return encode()
    except (ValueError, TypeError, RecursionError):
        pass
    # Raised out here, no error whose text may quote the request hangs on it as its context.
    raise AttemptError(FailureKind.INVALID_REQUEST, "the request holds what cannot be sent (bad Unicode?)")


async def _whole(response: httpx.Response, largest: int) -> bytes:
    body = await _beginning(response, largest)
    if len(body) >= largest:
        raise ValueError("the answer is too large")
    return body


async def _beginning(response: httpx.Response, largest: int) -> bytes:
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) >= largest:
            return body[:largest]
    return body
