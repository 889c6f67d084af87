"""The faults of a real server, each as what it does with a connection or a request."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import trustme
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from .h2_server import Session, Talk, listening
from .right_answers import EMBEDDED, GENERATED, TIME_TO_READ

SECRET = "plover"
"""Stands in every request. No error and no decision may hold it."""

ROOT = Path(__file__).parents[2]

LARGEST_STREAM = 2**31 - 1
_INTERNAL, _UNAVAILABLE, _OK = 13, 14, 0

Where = tuple[str, str]
"""The target, and what the configuration says beside it."""

Fault = Callable[[Path], AbstractAsyncContextManager[Where]]
"""Makes a faulty server for as long as it is entered; the folder is for files."""

Answer = Callable[[Session, int, list[bytes]], Awaitable[None]]
"""What a server does with a request: its session, its stream, and the messages of a right answer."""


async def _for_ever() -> None:
    await asyncio.Event().wait()


def _answering(answer: Answer, settings: dict[SettingCodes, int] | None = None) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(reader, writer)
        session.begin(settings)
        async for stream, path in session.requests():
            await answer(session, stream, EMBEDDED if path.endswith("Embed") else GENERATED)
        await _for_ever()

    return talk


def _server(talk: Talk) -> Fault:
    @asynccontextmanager
    async def fault(folder: Path) -> AsyncIterator[Where]:
        async with listening(talk) as target:
            yield target, ""

    return fault


# ---- before HTTP/2


@asynccontextmanager
async def refuses(folder: Path) -> AsyncIterator[Where]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        yield f"127.0.0.1:{taken.getsockname()[1]}", ""


@asynccontextmanager
async def has_no_address(folder: Path) -> AsyncIterator[Where]:
    yield "nowhere.invalid:50051", ""


@asynccontextmanager
async def hangs_while_looked_up(folder: Path) -> AsyncIterator[Where]:
    yield "service.example:50051", ""  # in the network of `own_network`, whose name server is silent


async def _accept_and_be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _for_ever()


async def _accept_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return


async def _speak_http_1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(64)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await _for_ever()


async def _speak_garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\x01 SSH-2.0-whatever, this is no HTTP/2 at all\r\n" * 8)
    await _for_ever()


def _certified(*names: str, expired: bool = False, trusted: bool = True) -> Fault:
    """A right server behind a certificate that is not."""

    @asynccontextmanager
    async def fault(folder: Path) -> AsyncIterator[Where]:
        ours, theirs = trustme.CA(), trustme.CA()
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        issued = (ours if trusted else theirs).issue_cert(*names, not_after=yesterday if expired else None)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.set_alpn_protocols(["h2"])
        issued.configure_cert(tls)
        roots = folder / "roots.pem"
        roots.write_bytes(ours.cert_pem.bytes())
        async with listening(_answering(_answer_rightly), tls, host="localhost") as target:
            yield target, f"tls: {{root_certificates: {roots}}}"

    return fault


@asynccontextmanager
async def stalls_in_tls(folder: Path) -> AsyncIterator[Where]:
    roots = folder / "roots.pem"
    roots.write_bytes(trustme.CA().cert_pem.bytes())
    async with listening(_accept_and_be_silent, host="localhost") as target:
        yield target, f"tls: {{root_certificates: {roots}}}"


# ---- a process of its own


def _process(signal_name: str, when: str) -> Fault:
    """A real process, stopped or killed when it is asked, or within its answer."""

    @asynccontextmanager
    async def fault(folder: Path) -> AsyncIterator[Where]:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.dying_server", signal_name, when),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert server.stdout is not None
        try:
            yield (await server.stdout.readline()).decode().strip(), ""
        finally:
            with suppress(ProcessLookupError):
                server.kill()
            await server.wait()

    return fault


# ---- within HTTP/2


async def _answer_rightly(session: Session, stream: int, messages: list[bytes]) -> None:
    session.headers(stream)
    for message in messages:
        session.message(stream, message)
    session.trailers(stream, _OK)


async def _be_silent(session: Session, stream: int, messages: list[bytes]) -> None:
    return


def _go_away(last: int | None) -> Answer:
    async def answer(session: Session, stream: int, messages: list[bytes]) -> None:
        session.goaway(stream if last is None else last)

    return answer


async def _refuse_stream(session: Session, stream: int, messages: list[bytes]) -> None:
    session.reset(stream, ErrorCodes.REFUSED_STREAM)


async def _reset_before_headers(session: Session, stream: int, messages: list[bytes]) -> None:
    session.reset(stream, ErrorCodes.INTERNAL_ERROR)


async def _reset_after_headers(session: Session, stream: int, messages: list[bytes]) -> None:
    session.headers(stream)
    session.reset(stream, ErrorCodes.INTERNAL_ERROR)


async def _reset_within_data(session: Session, stream: int, messages: list[bytes]) -> None:
    session.headers(stream)
    for message in messages[:-1]:
        session.message(stream, message)
    session.part_of_a_message(stream, messages[-1])
    await asyncio.sleep(TIME_TO_READ)
    session.reset(stream, ErrorCodes.INTERNAL_ERROR)


async def _reset_after_data(session: Session, stream: int, messages: list[bytes]) -> None:
    session.headers(stream)
    for message in messages:
        session.message(stream, message)
    await asyncio.sleep(TIME_TO_READ)
    session.reset(stream, ErrorCodes.INTERNAL_ERROR)


async def _stop_within_data(session: Session, stream: int, messages: list[bytes]) -> None:
    session.headers(stream)
    for message in messages[:-1]:
        session.message(stream, message)
    session.part_of_a_message(stream, messages[-1])


async def _drip(session: Session, stream: int, messages: list[bytes]) -> None:
    """A byte of the answer now and then."""
    session.headers(stream)
    whole = b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)
    for at in range(len(whole)):
        session.frames.send_data(stream, whole[at : at + 1])
        session.send()
        await asyncio.sleep(0.2)


async def _send_corrupt_messages(session: Session, stream: int, messages: list[bytes]) -> None:
    session.headers(stream)
    session.message(stream, b"\x0a\xff" + SECRET.encode())
    session.trailers(stream, _OK)


async def _send_twice(session: Session, stream: int, messages: list[bytes]) -> None:
    session.headers(stream)
    for message in messages:
        session.message(stream, message)
        session.message(stream, message)
    session.trailers(stream, _OK)


async def _end_well_without_body(session: Session, stream: int, messages: list[bytes]) -> None:
    session.headers(stream)
    session.trailers(stream, _OK)


async def _end_well_at_once(session: Session, stream: int, messages: list[bytes]) -> None:
    session.status_alone(stream, _OK)


async def _end_well_before_the_finish(session: Session, stream: int, messages: list[bytes]) -> None:
    session.headers(stream)
    for message in messages[:-1]:
        session.message(stream, message)
    session.trailers(stream, _OK)


async def _send_much_metadata(session: Session, stream: int, messages: list[bytes]) -> None:
    session.headers(stream, *((f"x-padding-{at}", "x" * 1000) for at in range(40)))
    session.trailers(stream, _OK)


def _fail(status: int) -> Answer:
    async def answer(session: Session, stream: int, messages: list[bytes]) -> None:
        session.headers(stream)
        session.trailers(stream, status, f"cannot answer '{SECRET}'")

    return answer


async def _answer_as_a_proxy(session: Session, stream: int, messages: list[bytes]) -> None:
    session.frames.send_headers(stream, [(":status", "503"), ("content-type", "text/html")], end_stream=True)
    session.send()


async def _answer_slowly(session: Session, stream: int, messages: list[bytes]) -> None:
    await asyncio.sleep(SLOW)
    await _answer_rightly(session, stream, messages)


SLOW = 0.25
"""Seconds that each answer of the server takes which takes one stream at a time."""

ONE_SLOW_STREAM = _server(_answering(_answer_slowly, {SettingCodes.MAX_CONCURRENT_STREAMS: 1}))
"""For several calls at once. The library keeps those to itself that the server does not take."""

FAULTS: dict[str, Fault] = {
    "connection refused": refuses,
    "name without an address": has_no_address,
    "accepts, then silence": _server(_accept_and_be_silent),
    "accepts, then closes": _server(_accept_and_close),
    "HTTP/1 instead of HTTP/2": _server(_speak_http_1),
    "garbage instead of HTTP/2": _server(_speak_garbage),
    "silence within the TLS handshake": stalls_in_tls,
    "expired certificate": _certified("localhost", expired=True),
    "certificate of another authority": _certified("localhost", trusted=False),
    "certificate for another name": _certified("other.example"),
    "SETTINGS, then silence": _server(_answering(_be_silent)),
    "no stream allowed": _server(_answering(_be_silent, {SettingCodes.MAX_CONCURRENT_STREAMS: 0})),
    "window of zero": _server(_answering(_be_silent, {SettingCodes.INITIAL_WINDOW_SIZE: 0})),
    "one stream at a time": _server(_answering(_answer_rightly, {SettingCodes.MAX_CONCURRENT_STREAMS: 1})),
    "GOAWAY, last stream 0": _server(_answering(_go_away(0))),
    "GOAWAY, last stream this one": _server(_answering(_go_away(None))),
    "GOAWAY, last stream the largest": _server(_answering(_go_away(LARGEST_STREAM))),
    "REFUSED_STREAM": _server(_answering(_refuse_stream)),
    "RST_STREAM before headers": _server(_answering(_reset_before_headers)),
    "RST_STREAM after headers": _server(_answering(_reset_after_headers)),
    "RST_STREAM within data": _server(_answering(_reset_within_data)),
    "RST_STREAM after data": _server(_answering(_reset_after_data)),
    "silence within data": _server(_answering(_stop_within_data)),
    "slow drip": _server(_answering(_drip)),
    "corrupt protobuf": _server(_answering(_send_corrupt_messages)),
    "every message twice": _server(_answering(_send_twice)),
    "OK and an empty body": _server(_answering(_end_well_without_body)),
    "OK and nothing else": _server(_answering(_end_well_at_once)),
    "OK before the finish": _server(_answering(_end_well_before_the_finish)),
    "oversized metadata": _server(_answering(_send_much_metadata)),
    "INTERNAL, quoting the request": _server(_answering(_fail(_INTERNAL))),
    "UNAVAILABLE, quoting the request": _server(_answering(_fail(_UNAVAILABLE))),
    "a proxy's 503": _server(_answering(_answer_as_a_proxy)),
    "kill -9 when asked": _process("SIGKILL", "asked"),
    "kill -9 within the answer": _process("SIGKILL", "within"),
    "SIGSTOP when asked": _process("SIGSTOP", "asked"),
    "SIGSTOP within the answer": _process("SIGSTOP", "within"),
}
