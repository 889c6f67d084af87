"""A backend fails: who is asked next, who is asked again, and what the caller is told."""

from __future__ import annotations

import asyncio
import logging

import pytest

from edgewise.backends import CallContext
from edgewise.core.answer import Embeddings
from edgewise.core.content import EmbedInput
from edgewise.router import (
    AttemptError,
    BackendError,
    FailureKind,
    InvalidRequest,
    Overloaded,
    RefusalCode,
)
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker, failing

SECRET = "Patient Zebulon Quartz"


@pytest.mark.parametrize(
    "kind",
    [
        FailureKind.UNREACHABLE,
        FailureKind.OVERLOADED,
        FailureKind.INTERNAL,
        FailureKind.CREDENTIALS,
        FailureKind.MODEL_UNAVAILABLE,
        FailureKind.PROTOCOL,
    ],
)
def test_a_failed_backend_is_followed_by_the_next(make_router: RouterMaker, kind: FailureKind) -> None:
    cloud, gateway = ScriptedBackend("cloud", failing(kind)), ScriptedBackend("gateway")

    async def main() -> None:
        async with make_router(cloud, gateway, ScriptedBackend("phone")) as router:
            answer = await router.generate("Hello", data_class="public")
        assert answer.backend == "gateway"
        first, second = answer.decision.attempts
        assert (first.failure, second.failure) == (kind, None)
        assert answer.decision.ended == pytest.approx(0.022)  # the failure's 10 ms and the answer's 12: at once

    run_in_virtual_time(main())


def test_what_needs_a_person_is_reported_loudly_and_left_alone(
    make_router: RouterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    cloud = ScriptedBackend("cloud", failing(FailureKind.CREDENTIALS))
    phone = ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            answers = [await router.generate(SECRET, data_class="public") for _ in range(3)]
            assert [answer.backend for answer in answers] == ["phone"] * 3
            assert answers[-1].decision.refusals[0].code is RefusalCode.QUARANTINED

    with caplog.at_level(logging.ERROR, "edgewise"):
        run_in_virtual_time(main())
    assert len(cloud.calls) == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "cloud" in caplog.text
    assert SECRET not in caplog.text


def test_a_caller_s_own_mistake_harms_nobody_and_is_told_where_all_agree(make_router: RouterMaker) -> None:
    wrong = failing(FailureKind.INVALID_REQUEST)
    scripts = [wrong] * 5 + [Script()]
    cloud, gateway = ScriptedBackend("cloud", lambda number: scripts[number]), ScriptedBackend("gateway", wrong)
    phone = ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, gateway) as router:
            for _ in range(5):
                with pytest.raises(InvalidRequest):
                    await router.generate("Hello", data_class="public")
            assert (await router.generate("Hello", data_class="public")).backend == "cloud"
        async with make_router(ScriptedBackend("cloud", wrong), phone) as router:
            assert (await router.generate("Hello", data_class="public")).backend == "phone"

    run_in_virtual_time(main())


def test_a_content_filter_s_refusal_reaches_the_caller(make_router: RouterMaker) -> None:
    cloud, gateway = ScriptedBackend("cloud", failing(FailureKind.CONTENT_FILTER)), ScriptedBackend("gateway")

    async def main() -> None:
        async with make_router(cloud, gateway) as router:
            with pytest.raises(BackendError, match="content_filter"):
                await router.generate("Hello", data_class="public")

    run_in_virtual_time(main())
    assert gateway.calls == []


def test_a_request_too_long_goes_to_a_larger_context_only(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud")
    gateway = ScriptedBackend("gateway", failing(FailureKind.CONTEXT_LENGTH))
    phone = ScriptedBackend("phone")
    policy = "  rules: [{name: near first, prefer: [gateway]}, {name: far last, avoid: [cloud]}]\n"

    async def main() -> None:
        async with make_router(cloud, gateway, phone, policy=policy) as router:
            answer = await router.generate("Hello", data_class="public")
        assert answer.backend == "cloud"

    run_in_virtual_time(main())
    assert phone.calls == []


def test_a_prompt_too_long_for_all_is_the_caller_s_to_mend(make_router: RouterMaker) -> None:
    phone = ScriptedBackend("phone", failing(FailureKind.CONTEXT_LENGTH))

    async def main() -> None:
        async with make_router(phone) as router:
            with pytest.raises(InvalidRequest, match="too long"):
                await router.generate("Hello", data_class="secret")
            with pytest.raises(InvalidRequest, match="too long"):
                await router.generate("x" * 100_000, data_class="secret")

    run_in_virtual_time(main())
    assert len(phone.calls) == 1


def test_a_single_backend_is_asked_again_with_pauses(make_router: RouterMaker) -> None:
    scripts = [failing(FailureKind.UNREACHABLE), failing(FailureKind.OVERLOADED, retry_after=0.5), Script()]
    cloud = ScriptedBackend("cloud", lambda number: scripts[number])

    async def main() -> None:
        async with make_router(cloud) as router:
            answer = await router.generate("Hello", data_class="public")
        first, second, third = answer.decision.attempts
        assert first.ended is not None
        assert second.ended is not None
        assert second.started - first.ended >= 0.0124  # never at once
        assert third.started - second.ended >= 0.5  # the server's pushback

    run_in_virtual_time(main())


def test_retries_end_after_the_configured_attempts(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", failing(FailureKind.OVERLOADED))

    async def main() -> None:
        async with make_router(cloud) as router:
            with pytest.raises(Overloaded):
                await router.generate("Hello", data_class="public")

    run_in_virtual_time(main())
    assert len(cloud.calls) == 3


def test_a_crash_is_never_retried_on_the_same_engine(make_router: RouterMaker) -> None:
    phone = ScriptedBackend("phone", failing(FailureKind.CRASHED))

    async def main() -> None:
        async with make_router(phone) as router:
            with pytest.raises(BackendError):
                await router.generate("Hello", data_class="public")

    run_in_virtual_time(main())
    assert len(phone.calls) == 1


def test_a_request_that_must_not_run_twice_is_sent_once(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud", failing(FailureKind.UNREACHABLE)), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            with pytest.raises(BackendError):
                await router.generate("Hello", data_class="public", idempotent=False)

    run_in_virtual_time(main())
    assert len(cloud.calls) == 1
    assert phone.calls == []


def test_an_outside_backend_s_exception_is_contained_and_not_quoted(make_router: RouterMaker) -> None:
    class Careless(ScriptedBackend):
        def generate(self, call: object, context: object) -> object:  # type: ignore[override]  # careless on purpose
            raise ValueError(f"cannot parse {SECRET}")

    async def main() -> None:
        async with make_router(Careless("cloud")) as router:
            with pytest.raises(BackendError, match="ValueError") as caught:
                await router.generate(SECRET, data_class="public")
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in str(error)
            error = error.__cause__ or error.__context__
        assert SECRET not in str(caught.value.decision.to_dict())

    run_in_virtual_time(main())


def test_a_breaker_opens_and_a_recovered_backend_is_used_again(make_router: RouterMaker) -> None:
    broken = True
    cloud = ScriptedBackend("cloud", lambda _: failing(FailureKind.INTERNAL) if broken else Script())
    phone = ScriptedBackend("phone")

    async def main() -> None:
        nonlocal broken
        async with make_router(cloud, phone) as router:
            for _ in range(10):
                assert (await router.generate("Hello", data_class="public")).backend == "phone"
            assert len(cloud.calls) == 3
            broken = False
            await asyncio.sleep(1.5)
            assert (await router.generate("Hello", data_class="public")).backend == "cloud"
            assert (await router.generate("Hello", data_class="public")).backend == "cloud"

    run_in_virtual_time(main())


def test_what_a_backend_cannot_do_does_not_cost_it_the_rest(make_router: RouterMaker) -> None:
    class NoEmbeddings(ScriptedBackend):
        async def embed(self, call: object, context: object) -> object:  # type: ignore[override]
            raise AttemptError(FailureKind.UNSUPPORTED, "no embeddings here")

        async def infer(self, call: object, context: object) -> object:  # type: ignore[override]
            raise AttemptError(FailureKind.UNKNOWN_MODEL, "no such model here")

    async def main() -> None:
        async with make_router(NoEmbeddings("cloud")) as router:
            with pytest.raises(BackendError):
                await router.embed(["one"], data_class="public")
            with pytest.raises(BackendError, match="out of use"):
                await router.embed(["one"], data_class="public")
            for _ in range(5):
                with pytest.raises(InvalidRequest, match="no such model"):
                    await router.infer("misspelt", {"x": [1.0]}, data_class="public")
            assert (await router.generate("Hello", data_class="public")).backend == "cloud"

    run_in_virtual_time(main())


def test_what_says_that_it_may_be_mended_is_asked_again(make_router: RouterMaker) -> None:
    class Mendable(ScriptedBackend):
        mended = False

        def is_mended(self, kind: FailureKind) -> bool:
            return self.mended and kind is FailureKind.MODEL_UNAVAILABLE

    phone = Mendable("phone", failing(FailureKind.MODEL_UNAVAILABLE))

    async def main() -> None:
        async with make_router(phone) as router:
            for _ in range(3):
                with pytest.raises(BackendError):
                    await router.generate("Hello", data_class="public")
            assert len(phone.calls) == 1
            assert router.stats().backends["phone"].quarantine
            phone.mended = True
            assert not router.stats().backends["phone"].quarantine
            with pytest.raises(BackendError):
                await router.generate("Hello", data_class="public")
            assert len(phone.calls) == 2

    run_in_virtual_time(main())


def test_a_backend_that_fell_silent_is_tried_again_before_long(make_router: RouterMaker) -> None:
    silent = True
    cloud = ScriptedBackend("cloud", lambda _: Script(silent_after=0) if silent else Script())
    phone = ScriptedBackend("phone")

    async def main() -> None:
        nonlocal silent
        async with make_router(cloud, phone) as router:

            async def ask() -> str:
                await asyncio.sleep(2.0)
                return (await router.generate("Hello", data_class="public", latency_budget=1.5)).backend

            for _ in range(10):
                await router.generate("Hello", data_class="public", latency_budget=1.5, backend="phone")
            assert [await ask() for _ in range(10)] == ["phone"] * 10
            silent = False
            assert "cloud" in [await ask() for _ in range(20)]

    run_in_virtual_time(main())


def test_embeddings_that_do_not_match_the_texts_are_no_answer(make_router: RouterMaker) -> None:
    class Shifted(ScriptedBackend):
        async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
            return await super().embed(EmbedInput(call.texts[1:]), context)

    async def main() -> None:
        async with make_router(Shifted("cloud"), ScriptedBackend("gateway")) as router:
            vectors = await router.embed(["one", "three"], data_class="public")
            assert (vectors.shape, vectors.backend) == ((2, 2), "gateway")

    run_in_virtual_time(main())
