"""What each of gRPC's seventeen codes comes to mean, over a real connection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from edgewise.backends.grpc.status import KIND_BY_CODE
from edgewise.core.content import EmbedInput
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.protos.v1.status_details_pb2 import ErrorInfo, RetryInfo, StatusDetail, StatusDetails

from .conftest import CALL, SECRET_WORDS, MakeBackend, Servers, collect, within

EXPECTED = {
    "CANCELLED": FailureKind.CONFLICT,
    "UNKNOWN": FailureKind.INTERNAL,
    "INVALID_ARGUMENT": FailureKind.INVALID_REQUEST,
    "DEADLINE_EXCEEDED": FailureKind.TIMED_OUT,
    "NOT_FOUND": FailureKind.MODEL_UNAVAILABLE,
    "ALREADY_EXISTS": FailureKind.CONFLICT,
    "PERMISSION_DENIED": FailureKind.CREDENTIALS,
    "UNAUTHENTICATED": FailureKind.CREDENTIALS,
    "RESOURCE_EXHAUSTED": FailureKind.OVERLOADED,
    "FAILED_PRECONDITION": FailureKind.UNSUPPORTED,
    "ABORTED": FailureKind.CONFLICT,
    "OUT_OF_RANGE": FailureKind.CONTEXT_LENGTH,
    "UNIMPLEMENTED": FailureKind.UNSUPPORTED,
    "INTERNAL": FailureKind.INTERNAL,
    "UNAVAILABLE": FailureKind.UNREACHABLE,
    "DATA_LOSS": FailureKind.INTERNAL,
}


def aborting(code: grpc.StatusCode, trailing: Sequence[tuple[str, str | bytes]] = ()) -> Any:
    async def abort(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.abort(code, f"the server quotes: {SECRET_WORDS}", tuple(trailing))

    return abort


def assert_content_free(error: BaseException) -> None:
    """Neither the error nor anything that hangs on it repeats what was asked or what the server said."""
    seen: BaseException | None = error
    while seen is not None:
        assert SECRET_WORDS not in f"{seen} {seen!r} {seen.args}"
        assert not isinstance(seen, grpc.RpcError)
        seen = seen.__cause__ or seen.__context__


def test_every_code_has_a_meaning() -> None:
    assert KIND_BY_CODE.keys() == set(grpc.StatusCode)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_a_status_becomes_a_kind_without_the_servers_words(
    code: grpc.StatusCode, servers: Servers, make_backend: MakeBackend
) -> None:
    abort = aborting(code)
    backend = make_backend(await servers.start(abort, abort))

    with pytest.raises(AttemptError) as streamed:
        await collect(backend.generate(CALL, within(5)))
    with pytest.raises(AttemptError) as answered:
        await backend.embed(EmbedInput((SECRET_WORDS,)), within(5))

    for caught in (streamed, answered):
        assert caught.value.kind is EXPECTED[code.name]
        assert code.name in caught.value.sentence
        assert caught.value.retry_after is None
        assert_content_free(caught.value)


async def test_an_answer_of_status_ok_without_a_finish_was_cut(servers: Servers, make_backend: MakeBackend) -> None:
    async def silent(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        return None

    with pytest.raises(AttemptError) as caught:
        await collect(make_backend(await servers.start(silent)).generate(CALL, within(5)))
    assert caught.value.kind is FailureKind.TRUNCATED


@pytest.mark.parametrize(("pushback", "expected"), [("250", 0.25), ("0", 0.0), ("-1", math.inf), ("soon", math.inf)])
async def test_pushback_says_when_to_come_back(
    pushback: str, expected: float, servers: Servers, make_backend: MakeBackend
) -> None:
    abort = aborting(grpc.StatusCode.RESOURCE_EXHAUSTED, [("grpc-retry-pushback-ms", pushback)])
    with pytest.raises(AttemptError) as caught:
        await collect(make_backend(await servers.start(abort)).generate(CALL, within(5)))
    assert caught.value.retry_after == expected


async def test_retry_info_says_when_to_come_back(servers: Servers, make_backend: MakeBackend) -> None:
    info = RetryInfo(retry_delay=RetryInfo.Delay(seconds=1, nanos=500_000_000)).SerializeToString()
    detail = StatusDetail(type_url="type.googleapis.com/google.rpc.RetryInfo", value=info)
    status = StatusDetails(details=[StatusDetail(type_url="type.googleapis.com/other"), detail]).SerializeToString()
    abort = aborting(grpc.StatusCode.UNAVAILABLE, [("grpc-status-details-bin", status)])
    with pytest.raises(AttemptError) as caught:
        await collect(make_backend(await servers.start(abort)).generate(CALL, within(5)))
    assert caught.value.retry_after == 1.5


@pytest.mark.parametrize(
    ("domain", "kind"), [("edgewise", FailureKind.CONTENT_FILTER), ("other", FailureKind.INTERNAL)]
)
async def test_error_info_of_our_own_names_the_kind(
    domain: str, kind: FailureKind, servers: Servers, make_backend: MakeBackend
) -> None:
    info = ErrorInfo(reason="CONTENT_FILTER", domain=domain).SerializeToString()
    detail = StatusDetail(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info)
    abort = aborting(
        grpc.StatusCode.INTERNAL, [("grpc-status-details-bin", StatusDetails(details=[detail]).SerializeToString())]
    )
    with pytest.raises(AttemptError) as caught:
        await collect(make_backend(await servers.start(abort)).generate(CALL, within(5)))
    assert caught.value.kind is kind


async def test_unreadable_details_do_no_harm(servers: Servers, make_backend: MakeBackend) -> None:
    abort = aborting(grpc.StatusCode.UNAVAILABLE, [("grpc-status-details-bin", b"\xff\xff\xff")])
    with pytest.raises(AttemptError) as caught:
        await collect(make_backend(await servers.start(abort)).generate(CALL, within(5)))
    assert caught.value.kind is FailureKind.UNREACHABLE
    assert caught.value.retry_after is None


@pytest.mark.parametrize("kind", list(FailureKind))
async def test_a_named_kind_is_more_exact_than_the_code(
    kind: FailureKind, servers: Servers, make_backend: MakeBackend
) -> None:
    abort = aborting(grpc.StatusCode.UNKNOWN, [("edgewise-failure", kind.value)])
    with pytest.raises(AttemptError) as caught:
        await collect(make_backend(await servers.start(abort)).generate(CALL, within(5)))
    assert caught.value.kind is kind


async def test_an_unknown_name_leaves_the_code_to_speak(servers: Servers, make_backend: MakeBackend) -> None:
    abort = aborting(grpc.StatusCode.NOT_FOUND, [("edgewise-failure", "gremlins")])
    with pytest.raises(AttemptError) as caught:
        await collect(make_backend(await servers.start(abort)).generate(CALL, within(5)))
    assert caught.value.kind is FailureKind.MODEL_UNAVAILABLE


async def test_a_call_that_ends_well_without_its_one_answer_was_cut(
    servers: Servers, make_backend: MakeBackend
) -> None:
    async def nothing(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Says nothing."""

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Embed": grpc.unary_stream_rpc_method_handler(nothing)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("edgewise.v1.ModelService", handlers)])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    servers.running.append(server)
    with pytest.raises(AttemptError) as caught:
        await make_backend(target).embed(EmbedInput((SECRET_WORDS,)), within(5))
    assert caught.value.kind is FailureKind.TRUNCATED
