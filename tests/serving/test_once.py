"""Two calls with one idempotency key are one piece of work, for its caller and its content alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from edgewise.backends import CallContext
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.core.answer import GenerateEvent
from edgewise.core.content import EmbedInput, GenerateInput, InferInput, Message, Tensor
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import Seconds, Secret
from edgewise.router.serving import work, works

from .conftest import CALL, Connect, Scripted, Serve, collect, within


def keyed(key: str = "key-1", **more: Any) -> CallContext:
    return within(10, idempotency_key=key, **more)


async def generated(remote: GrpcBackend, context: CallContext, call: GenerateInput = CALL) -> list[GenerateEvent]:
    return await collect(remote.generate(call, context))


async def test_a_second_call_joins_the_first_while_it_runs(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    remote = connect(await serve(backend))
    first = asyncio.create_task(generated(remote, keyed()))
    await asyncio.wait_for(backend.started.wait(), 5)
    second = remote.generate(CALL, keyed(attempt=2))
    joined = [await anext(second)]
    backend.hold.set()
    assert [*joined, *[event async for event in second]] == await first
    assert len(backend.seen) == 1


async def test_a_second_call_gets_the_answer_of_the_first(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    remote = connect(await serve(backend))
    assert await generated(remote, keyed()) == await generated(remote, keyed(attempt=2))
    assert len(backend.seen) == 1


async def test_so_it_is_with_vectors_and_tensors(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    remote = connect(await serve(backend))
    texts, tensors = EmbedInput(("a",)), InferInput("m", {"x": Tensor("bool", (1,), b"\x01")})
    for _ in range(2):
        await remote.embed(texts, keyed())
        await remote.infer(tensors, keyed())
    assert [seen for seen, _ in backend.seen] == [texts, tensors]


async def test_who_leaves_a_call_that_another_joined_does_not_stop_it(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    remote = connect(await serve(backend))
    first = remote.generate(CALL, keyed(stream="one"))
    await anext(first)
    second = remote.generate(CALL, keyed(stream="two"))
    await anext(second)
    await first.aclose()
    backend.hold.set()
    assert len([event async for event in second]) == 2
    assert not backend.stopped.is_set()


class SlowToStop(Scripted):
    """Takes a while to end what was cancelled."""

    async def _wait(self) -> None:
        try:
            await super()._wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            raise


async def test_work_that_is_being_stopped_is_joined_by_nobody(serve: Serve, connect: Connect) -> None:
    backend = SlowToStop("m", limit=2)
    backend.hold = asyncio.Event()
    remote = connect(await serve(backend))
    first = remote.generate(CALL, keyed(stream="one"))
    await anext(first)
    await asyncio.wait_for(backend.started.wait(), 5)
    await first.aclose()
    await asyncio.wait_for(backend.stopped.wait(), 5)
    backend.hold.set()
    assert len(await generated(remote, keyed(stream="two"))) == 3
    assert len(backend.seen) == 2


@pytest.mark.parametrize(
    ("context", "call"),
    [
        ({}, replace(CALL, messages=(Message.user("something else"),))),
        ({}, replace(CALL, max_output_tokens=7)),
        ({"data_classes": ("health",)}, CALL),
        ({"idempotency_key": "key-2"}, CALL),
    ],
    ids=["content", "parameters", "class", "key"],
)
async def test_what_is_not_the_same_is_answered_by_itself(
    context: dict[str, Any], call: GenerateInput, serve: Serve, connect: Connect
) -> None:
    backend = Scripted("m")
    remote = connect(await serve(backend))
    await generated(remote, keyed())
    await generated(remote, replace(keyed(), **context), call)
    assert len(backend.seen) == 2


async def test_nobody_gets_an_answer_by_anothers_key(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    server = await serve(backend, tokens=(Secret("mine"), Secret("other")))
    for token in ("mine", "other"):
        await generated(connect(server, credentials=Secret(token)), keyed())
    assert len(backend.seen) == 2


async def test_what_failed_may_be_tried_again(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.failure = AttemptError(FailureKind.INTERNAL, "it failed")
    remote = connect(await serve(backend))
    with pytest.raises(AttemptError):
        await generated(remote, keyed())
    backend.failure = None
    await generated(remote, keyed())
    assert len(backend.seen) == 2


async def test_an_answer_is_forgotten_after_the_stated_time(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    remote = connect(await serve(backend, remember=Seconds(0.05)))
    await generated(remote, keyed())
    while len(backend.seen) < 2:
        await asyncio.sleep(0.02)
        await generated(remote, keyed())


async def test_the_oldest_answers_make_room(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(works, "MOST_KEPT", 2)
    backend = Scripted("m")
    remote = connect(await serve(backend))
    for key in ("1", "2", "3", "3", "2", "1"):
        await generated(remote, keyed(key))
    assert [context.idempotency_key for _, context in backend.seen] == ["1", "2", "3", "1"]


async def test_an_answer_too_long_to_be_kept_is_read_whole_and_made_again(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "LARGEST_ANSWER", 8)
    backend = Scripted("m")
    remote = connect(await serve(backend))
    for _ in range(2):
        assert len(await generated(remote, keyed())) == 3
    assert len(backend.seen) == 2
