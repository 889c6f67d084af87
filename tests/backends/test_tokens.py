"""Tokens that do not last: fetched once for all, renewed in time, replaced when refused, and never shown."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import grpc
import grpc.aio
import pytest
import trustme

from edgewise.backends import CallContext
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.settings import ProtocolName, check
from edgewise.backends.token_source import TokenSource
from edgewise.backends.tokens import tokens_from
from edgewise.core.content import EmbedInput
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import FilePath, Seconds, Secret
from edgewise.protos.v1 import model_service_pb2 as wire

TOKEN = "token-plover-1"


def printing(folder: Path, text: str = "print('token-' + str(count))") -> tuple[str, ...]:
    """A program that counts its runs in a file, and prints a token."""
    script = folder / "token.py"
    script.write_text(
        "import pathlib, sys, time\n"
        f"runs = pathlib.Path({str(folder / 'runs')!r})\n"
        "count = len(runs.read_text()) + 1 if runs.exists() else 1\n"
        "runs.write_text('x' * count)\n"
        f"{text}\n"
    )
    return sys.executable, str(script)


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text())


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_command_runs_once_for_all_who_wait_and_without_a_shell(tmp_path: Path) -> None:
    (tmp_path / "$(touch here)").touch()
    command = (*printing(tmp_path, "print('token-1' if sys.argv[1] == '$(touch here)' else '')"), "$(touch here)")
    tokens = tokens_from("cloud", TokenSource(command=command))
    assert tokens is not None
    assert await asyncio.gather(*(tokens.get(now() + 30) for _ in range(5))) == ["token-1"] * 5
    assert await tokens.get(now() + 30) == "token-1"
    assert runs(tmp_path) == 1
    await tokens.close()


async def test_a_token_is_renewed_behind_the_back_of_the_calls(tmp_path: Path) -> None:
    tokens = tokens_from("cloud", TokenSource(command=printing(tmp_path), lifetime=Seconds(600.0)))
    assert tokens is not None
    assert await tokens.get(now() + 30) == "token-1"
    tokens._renew_at = now()  # as after most of its life
    assert await tokens.get(now() + 30) == "token-1"
    assert tokens._fetching is not None
    await tokens._fetching
    assert await tokens.get(now() + 30) == "token-2"
    tokens._dead_at = now()  # as after a night in which nobody asked
    assert await tokens.get(now() + 30) == "token-3"
    await tokens.close()


@pytest.mark.parametrize(
    ("program", "kind", "says"),
    [
        ("sys.stderr.write('token-plover'); sys.exit(7)", FailureKind.UNREACHABLE, "code 7"),
        ("print('token-plover with spaces')", FailureKind.CREDENTIALS, "no token"),
        ("print('p' * 100_000)", FailureKind.CREDENTIALS, "much more"),
        ("print('')", FailureKind.CREDENTIALS, "no token"),
    ],
)
async def test_a_command_that_fails_is_named_and_its_output_is_not_shown(
    tmp_path: Path, program: str, kind: FailureKind, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = tokens_from("cloud", TokenSource(command=printing(tmp_path, program)))
    assert tokens is not None
    with caplog.at_level(logging.DEBUG), pytest.raises(AttemptError) as caught:
        await tokens.get(now() + 30)
    assert caught.value.kind is kind
    assert says in caught.value.sentence
    assert "`credentials_from`" in caught.value.sentence
    assert "plover" not in caplog.text + repr(caught.value)


async def test_a_command_that_hangs_ends_the_call_by_its_deadline_and_is_ended_with_the_backend(tmp_path: Path) -> None:
    command = printing(
        tmp_path, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(__import__('os').getpid())); time.sleep(60)"
    )
    tokens = tokens_from("cloud", TokenSource(command=command))
    assert tokens is not None
    began = now()
    with pytest.raises(AttemptError) as caught:
        await tokens.get(began + 1.0)
    assert caught.value.kind is FailureKind.TIMED_OUT
    assert now() - began < 2.0
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.02)
    await tokens.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    tokens = tokens_from("cloud", TokenSource(file=FilePath(str(file))))
    assert tokens is not None
    assert await tokens.get(now() + 1) == "first"
    (tmp_path / "new").write_text("other\n")
    (tmp_path / "new").rename(file)  # as whoever rotates secrets does it: same length, at once
    assert await tokens.get(now() + 1) == "other"
    file.unlink()
    with pytest.raises(AttemptError) as caught:
        await tokens.get(now() + 1)
    assert caught.value.kind is FailureKind.CREDENTIALS
    assert str(file) in caught.value.sentence


class Guarded:
    """A server that takes one token."""

    def __init__(self) -> None:
        self.good = ""
        self.seen: list[str] = []

    async def embed(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        given = str(dict(context.invocation_metadata() or ()).get("authorization", "")).removeprefix("Bearer ")
        self.seen.append(given)
        if given != self.good:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"{given} has expired")
        tensor = wire.Tensor(dtype="float32", shape=[1, 2], data=bytes(8))
        return wire.EmbedResponse(vectors=tensor).SerializeToString()

    async def start(self) -> tuple[grpc.aio.Server, str]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Embed": grpc.unary_unary_rpc_method_handler(self.embed)
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("edgewise.v1.ModelService", handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, f"127.0.0.1:{port}"


async def test_a_token_that_expired_early_is_replaced_for_the_next_attempt(tmp_path: Path) -> None:
    guarded = Guarded()
    server, target = await guarded.start()
    source = TokenSource(command=printing(tmp_path))
    backend = GrpcBackend("cloud", GrpcSettings(target, credentials_from=source))

    sentences: list[str] = []

    async def ask() -> FailureKind | None:
        try:
            await backend.embed(EmbedInput(("a",)), CallContext("r", Deadline(now() + 30)))
        except AttemptError as error:
            sentences.append(error.sentence)
            return error.kind
        return None

    try:
        guarded.good = "token-1"
        assert await ask() is None
        guarded.good = "token-2"
        # Another attempt may pass: the router makes it, with its permit judged again.
        assert await ask() is FailureKind.CONFLICT
        assert await ask() is None
        guarded.good = "revoked"
        assert await ask() is FailureKind.CONFLICT
        assert await ask() is FailureKind.CREDENTIALS, "a new token that was never taken helps nobody"
        assert not any("expired" in sentence for sentence in sentences)
        assert guarded.seen == ["token-1", "token-1", "token-2", "token-2", "token-3"]
    finally:
        await backend.stop()
        await server.stop(0)


@pytest.fixture
def token_endpoint() -> Iterator[tuple[str, list[str]]]:
    """What Google's token endpoint does, on loopback."""
    asked: list[str] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["content-length"])).decode())
            body = json.dumps({"access_token": f"ya29.{len(asked)}", "expires_in": 3600, "token_type": "Bearer"})
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token", asked
    server.shutdown()
    server.server_close()


async def test_google_auth_gives_the_token(
    tmp_path: Path, token_endpoint: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = token_endpoint
    key = trustme.CA(key_type=trustme.KeyType.RSA).private_key_pem.bytes().decode()
    account = {
        "type": "service_account",
        "client_email": "robot@example.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": key,
        "token_uri": url,
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    tokens = tokens_from("cloud", TokenSource(google=True))
    assert tokens is not None
    assert await tokens.get(now() + 30) == "ya29.1"
    assert await tokens.get(now() + 30) == "ya29.1"
    assert len(asked) == 1
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    without = tokens_from("cloud", TokenSource(google=True))
    assert without is not None
    with pytest.raises(AttemptError) as caught:
        await without.get(now() + 30)
    assert caught.value.kind is FailureKind.CREDENTIALS


@pytest.mark.parametrize(
    ("source", "constant", "path"),
    [
        (TokenSource(), None, ("credentials_from",)),
        (TokenSource(command=("sh",), google=True), None, ("credentials_from",)),
        (TokenSource(command=("sh",)), Secret("also"), ("credentials_from",)),
        (TokenSource(command=("no-such-program",)), None, ("credentials_from", "command")),
        (TokenSource(file=FilePath("/no/such/token")), None, ("credentials_from", "file")),
        (TokenSource(command=("sh",), lifetime=Seconds(0.0)), None, ("credentials_from", "lifetime")),
        (None, Secret("two words"), ("credentials",)),
    ],
)
def test_mistakes_are_named(source: TokenSource | None, constant: Secret | None, path: tuple[str, ...]) -> None:
    settings = GrpcSettings("localhost:1", credentials=constant, credentials_from=source)
    (problem,) = check(settings)
    assert problem.path == path
    assert problem.mend


def test_without_google_auth_its_source_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings = GrpcSettings("localhost:1", ProtocolName.VERTEX, "m", credentials_from=TokenSource(google=True))
    assert [problem.mend for problem in check(settings)] == ["run `pip install 'edgewise[google]'`"]
