"""OpenAI's API over real HTTP, with the model that counts; it checks keys, models and fields."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from .counting import BrokenError, FullError, TooLongError, vector
from .counting_service import CountingService

KEY = "key-plover-1"
MODELS = {"llm", "vectors"}

_FIELDS = {
    "model", "messages", "max_tokens", "temperature", "top_p", "stream", "stream_options", "seed", "stop", "logprobs",
    "top_logprobs", "response_format",
}  # fmt: skip


class RefusedError(Exception):
    def __init__(self, status: str, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class OpenaiServer(CountingService):
    """Answers `chat/completions` and `embeddings`."""

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    first, *lines = head.strip().split("\r\n")
                    headers = {
                        name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
                    }
                    body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))) or b"{}")
                    await self._answer(first.split(" ")[1], headers, body, reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(
        self,
        path: str,
        headers: dict[str, str],
        body: Any,  # JSON
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            if headers.get("authorization") != f"Bearer {KEY}":
                raise RefusedError("401 Unauthorized", "invalid_api_key")
            if body.get("model") not in MODELS:
                raise RefusedError("404 Not Found", "model_not_found")
            if path == "/v1/embeddings":
                rows = [{"index": at, "embedding": vector(text)} for at, text in enumerate(body["input"])]
                self._whole(writer, "200 OK", {"data": rows, "model": body["model"], "usage": {"prompt_tokens": 7}})
            elif set(body) - _FIELDS:
                raise RefusedError("400 Bad Request", "unknown_parameter")
            else:
                await self._stream(body, reader, writer)
        except RefusedError as refused:
            self._whole(writer, refused.status, {"error": {"code": refused.code, "message": json.dumps(body)}})
        await writer.drain()

    async def _stream(self, body: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        prompt = " ".join(message["content"] for message in body["messages"])
        asked = body.get("response_format", {})
        schema = asked.get("json_schema", {}).get("schema", {})
        form = json.dumps(dict.fromkeys(schema.get("properties", {}), True)) if asked else ""
        words = self.model.words(prompt, body["max_tokens"], stop=body.get("stop", ()), form=form)
        try:
            first = await anext(words)
        except FullError:
            raise RefusedError("429 Too Many Requests", "rate_limit_exceeded") from None
        except TooLongError:
            raise RefusedError("400 Bad Request", "context_length_exceeded") from None
        # Closed afterwards: what is read while it streams, to see whether the client has gone, would be lost otherwise.
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        gone = asyncio.ensure_future(reader.read(1))  # a client sends nothing before its answer has ended
        sending = asyncio.ensure_future(self._send(body, first, words, writer))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = sending.done()
            for task in (gone, sending):
                task.cancel()
            await asyncio.wait({gone, sending})
            await words.aclose()  # type: ignore[attr-defined]  # it is a generator
        if ended:
            sending.result()
        raise ConnectionError

    async def _send(
        self, body: Any, first: tuple[str, str | None], words: AsyncIterator[tuple[str, str | None]], writer: Any
    ) -> None:
        number = 0

        async def pieces() -> AsyncIterator[tuple[str, str | None]]:
            yield first
            async for each in words:
                yield each

        try:
            async for text, reason in pieces():
                number += 1
                choice: dict[str, Any] = {"delta": {"content": text}, "finish_reason": reason}
                if body.get("logprobs"):
                    top = [{"token": f"o{at}", "logprob": -1.0 - at} for at in range(body["top_logprobs"])]
                    choice["logprobs"] = {"content": [{"token": text, "logprob": -0.25, "top_logprobs": top}]}
                await self._event(writer, {"model": "llm-1", "choices": [choice]})
        except BrokenError as broken:
            await self._event(writer, {"error": {"message": str(broken), "code": "server_error"}})
        else:
            usage = {"prompt_tokens": 7, "completion_tokens": number}
            await self._event(writer, {"model": "llm-1", "choices": [], "usage": usage})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()

    async def _event(self, writer: asyncio.StreamWriter, event: Any) -> None:
        data = b"data: " + json.dumps(event).encode() + b"\n\n"
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await writer.drain()

    def _whole(self, writer: asyncio.StreamWriter, status: str, answer: Any) -> None:
        body = json.dumps(answer).encode()
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
