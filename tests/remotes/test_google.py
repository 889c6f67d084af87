"""What Gemini and Vertex carry beyond the contract: counting, many texts, keys, and what stays turned off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.backends import CallContext
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.settings import Authentication, ProtocolName, check, placeless
from edgewise.backends.tensors import to_array
from edgewise.core.answer import Embeddings
from edgewise.core.content import CountTokensInput, EmbedInput, GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind, Quarantine
from edgewise.core.request import Task
from edgewise.core.settings import Secret
from edgewise.router import AsyncRouter, NoBackendPermitted
from edgewise.router.config import loads

from .counting import vector
from .google_server import EMBED_MODELS, KEY, MODELS, ONE_BY_ONE, GoogleServer

BOTH = (ProtocolName.GEMINI, ProtocolName.VERTEX)
CALL = GenerateInput((Message.system("be short"), Message.user("plover is a word")), max_output_tokens=5)
COUNT = CountTokensInput(CALL.messages)

Opened = Callable[..., GrpcBackend]


@pytest.fixture(params=BOTH)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[GoogleServer]:
    server = GoogleServer(request.param)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def opened(server: GoogleServer) -> AsyncIterator[Opened]:
    made: list[GrpcBackend] = []

    def make(model: str = "", **settings: object) -> GrpcBackend:
        model = model or MODELS[server.protocol]
        given = GrpcSettings(server.target, server.protocol, model, credentials=Secret(KEY))
        made.append(GrpcBackend("google", replace(given, **settings)))  # type: ignore[arg-type]  # by name
        return made[-1]

    yield make
    for backend in made:
        await backend.stop()


def context() -> CallContext:
    return CallContext("r", Deadline(asyncio.get_running_loop().time() + 10))


async def kind_of(backend: GrpcBackend) -> FailureKind:
    with pytest.raises(AttemptError) as caught:
        async for _ in backend.generate(CALL, context()):
            pass
    assert "plover" not in repr(caught.value)
    return caught.value.kind


async def test_a_prompt_is_counted_with_its_system_turn(server: GoogleServer, opened: Opened) -> None:
    assert await opened().count_tokens(COUNT, context()) == 6
    assert server.model.running == 0


async def test_counting_fails_as_calls_do(server: GoogleServer, opened: Opened) -> None:
    with pytest.raises(AttemptError) as caught:
        await opened(MODELS[server.protocol] + "-none").count_tokens(COUNT, context())
    assert caught.value.kind is FailureKind.MODEL_UNAVAILABLE


async def test_the_router_asks_it_to_count_what_may_go_there_and_nothing_else(
    server: GoogleServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_KEY", KEY)
    configuration = f"""
version: 1
backends:
  google:
    kind: grpc
    protocol: {server.protocol}
    target: {server.target}
    model: {MODELS[server.protocol]}
    credentials: ${{GOOGLE_KEY}}
    location: {{process_in: [any], store_in: [], operators: [US]}}
policy:
  data_classes: {{public: {{process_in: [any]}}, health: {{process_in: [EU]}}}}
  default_data_class: health
"""
    async with AsyncRouter(loads(configuration, tmp_path)) as router:
        counted = await router.count_tokens(COUNT.messages, data_class="public")
        assert (counted, counted.backend) == (6, "google")
        assert len(server.seen) == 1
        with pytest.raises(NoBackendPermitted):
            await router.count_tokens("plover is ill")
        mixed = [Message.user("plover is ill", data_class="health"), Message.user("and the weather?")]
        with pytest.raises(NoBackendPermitted):
            await router.count_tokens(mixed, data_class="public")
    assert len(server.seen) == 1


async def embedded(backend: GrpcBackend, texts: tuple[str, ...]) -> Embeddings:
    return await backend.embed(EmbedInput(texts), context())


async def test_more_texts_than_a_call_takes_go_in_several(server: GoogleServer, opened: Opened) -> None:
    texts = tuple(f"text {number}" for number in range(251))
    answer = await embedded(opened(EMBED_MODELS[server.protocol]), texts)
    assert to_array(answer.vectors).tolist() == [vector(text) for text in texts]
    assert len(server.seen) == (3 if server.protocol is ProtocolName.GEMINI else 2)
    if server.protocol is ProtocolName.VERTEX:
        assert answer.usage.prompt_tokens == 502
        server.seen.clear()
        answer = await embedded(opened(ONE_BY_ONE), texts[:3])
        assert len(server.seen) == answer.vectors.shape[0] == 3


async def test_a_key_that_is_revoked_is_named_and_not_tried_again(server: GoogleServer, opened: Opened) -> None:
    server.key = "another"
    for credentials in (Secret(KEY), None):
        backend = opened(credentials=credentials)
        with pytest.raises(AttemptError) as caught:
            await embedded(backend, ("plover",))
        assert caught.value.kind is FailureKind.CREDENTIALS
        assert "`credentials`" in caught.value.sentence
        assert caught.value.disposition.quarantine is Quarantine.BACKEND
        assert not caught.value.disposition.retry_here
        assert KEY not in repr(caught.value)


@pytest.mark.parametrize("shown", Authentication)
async def test_a_key_or_a_token_is_shown(server: GoogleServer, opened: Opened, shown: Authentication) -> None:
    await opened(authentication=shown).count_tokens(COUNT, context())
    key, bearer = ("x-goog-api-key", KEY), ("authorization", f"Bearer {KEY}")
    given = server.metadata[0].items()
    assert (key in given, bearer in given) == (shown is Authentication.KEY, shown is Authentication.BEARER)


async def test_by_default_gemini_gets_a_key_and_vertex_a_token(server: GoogleServer, opened: Opened) -> None:
    await opened().count_tokens(COUNT, context())
    assert ("x-goog-api-key" in server.metadata[0]) is (server.protocol is ProtocolName.GEMINI)


async def test_blocked_prompts_and_filtered_answers_are_told(server: GoogleServer, opened: Opened) -> None:
    server.blocked = True
    assert await kind_of(opened()) is FailureKind.CONTENT_FILTER
    server.blocked = False
    for finish in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"):
        server.finish = finish
        assert await kind_of(opened()) is FailureKind.CONTENT_FILTER
    server.finish = "OTHER"
    assert await kind_of(opened()) is FailureKind.INTERNAL


def test_a_region_in_the_host_and_another_in_the_model_do_not_fit() -> None:
    host = "europe-west4-aiplatform.googleapis.com:443"
    fits = "projects/p/locations/europe-west4/publishers/google/models/m"
    assert check(GrpcSettings(host, ProtocolName.VERTEX, fits)) == []
    for region in ("us-central1", "global"):
        (problem,) = check(GrpcSettings(host, ProtocolName.VERTEX, fits.replace("europe-west4", region)))
        assert problem.path == ("model",)
        assert "europe-west4" in problem.mend


def test_no_host_without_a_region_has_a_place() -> None:
    for host in ("aiplatform.googleapis.com:443", "dns:///global-aiplatform.googleapis.com:443"):
        assert placeless(GrpcSettings(host, ProtocolName.VERTEX, "m"))
    in_the_model = "projects/p/locations/global/publishers/google/models/m"
    assert placeless(GrpcSettings("models.example:443", ProtocolName.VERTEX, in_the_model))
    assert not placeless(GrpcSettings("europe-west4-aiplatform.googleapis.com:443", ProtocolName.VERTEX, "m"))
    assert placeless(GrpcSettings("generativelanguage.googleapis.com:443", ProtocolName.GEMINI, "m"))


def test_both_generate_embed_and_count() -> None:
    for protocol in BOTH:
        tasks = GrpcBackend("google", GrpcSettings("localhost:1", protocol, "m")).capabilities.tasks
        assert tasks == {Task.GENERATE, Task.EMBED, Task.COUNT_TOKENS}
