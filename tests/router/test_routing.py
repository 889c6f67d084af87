"""Which backend answers, who is asked in vain, and what is never sent."""

from __future__ import annotations

import numpy
import pytest

from edgewise.policies.facts import DeviceFacts
from edgewise.router import (
    FailureKind,
    InvalidRequest,
    Message,
    NoBackendPermitted,
    Offline,
    RefusalCode,
    RequestError,
)
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker, failing

SECRET = "Patient Zebulon Quartz"


def test_the_better_backend_answers_and_the_decision_says_so(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud"), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            answer = await router.generate("Hello", data_class="public")
        assert (answer.text, answer.backend) == ("a scripted answer", "cloud")
        assert answer.usage.output_tokens == 3
        assert answer.decision.answered_by == "cloud"
        assert [attempt.backend for attempt in answer.decision.attempts] == ["cloud"]
        assert "answered by cloud" in answer.decision.explain()

    run_in_virtual_time(main())
    assert phone.calls == []


@pytest.mark.parametrize(
    "prompt",
    [
        SECRET,
        [Message.user(SECRET, data_class="health"), Message.assistant("Noted."), Message.user("And the weather?")],
    ],
    ids=["the request's class", "a turn in the history"],
)
@pytest.mark.parametrize("phone_script", [Script(), failing(FailureKind.CRASHED), Script(silent_after=2)])
def test_health_content_never_reaches_the_cloud(
    make_router: RouterMaker, prompt: str | list[Message], phone_script: Script
) -> None:
    cloud, phone = ScriptedBackend("cloud"), ScriptedBackend("phone", phone_script)
    data_class = "health" if isinstance(prompt, str) else "public"

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            try:
                answer = await router.generate(prompt, data_class=data_class)
            except RequestError as error:
                told = f"{error!r} {error}"
            else:
                told = f"{answer!r} {answer.decision}"
                assert phone_script == Script()
                assert answer.backend == "phone"
                assert [refusal.code for refusal in answer.decision.refusals] == [RefusalCode.RESIDENCY]
            assert SECRET not in told

    run_in_virtual_time(main())
    assert len(phone.calls) == 1
    assert cloud.calls == []


def test_a_conversation_keeps_the_strictest_class_it_had(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud"), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            await router.generate(SECRET, data_class="health", conversation="c1")
            later = await router.generate("Thanks", data_class="public", conversation="c1")
            other = await router.generate("Thanks", data_class="public", conversation="c2")
        assert (later.backend, other.backend) == ("phone", "cloud")

    run_in_virtual_time(main())
    assert len(cloud.calls) == 1


def test_content_without_a_class_has_the_default_one(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud")

    async def main() -> None:
        async with make_router(cloud) as router:
            answer = await router.generate("Hello")
        assert answer.data_classes == ("personal",)

    run_in_virtual_time(main())


def test_offline_leaves_every_remote_backend_out(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud"), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            router.connectivity.force("offline")
            answer = await router.generate("Hello", data_class="public")
            assert answer.backend == "phone"
            assert answer.decision.refusals[0].code is RefusalCode.OFFLINE
            with pytest.raises(Offline, match="offline"):
                await router.generate("Hello", data_class="public", backend="cloud")
            router.connectivity.force(None)
            assert (await router.generate("Hello", data_class="public")).backend == "cloud"

    run_in_virtual_time(main())
    assert len(cloud.calls) == 1


def test_what_no_backend_may_take_says_why_for_each(make_router: RouterMaker) -> None:
    cloud, gateway = ScriptedBackend("cloud"), ScriptedBackend("gateway")

    async def main() -> None:
        async with make_router(cloud, gateway) as router:
            with pytest.raises(NoBackendPermitted) as caught:
                await router.generate(SECRET, data_class="secret")
        assert not isinstance(caught.value, Offline)
        assert {refusal.backend for refusal in caught.value.decision.refusals} == {"cloud", "gateway"}
        assert "cloud" in str(caught.value)
        assert "gateway" in str(caught.value)
        assert SECRET not in str(caught.value)

    run_in_virtual_time(main())
    assert cloud.calls == gateway.calls == []


def test_a_backend_not_tried_yet_gets_its_chance_beside_a_known_one(make_router: RouterMaker) -> None:
    fast = Script(words=("yes",), first_after=0.05)
    cloud, phone = ScriptedBackend("cloud", fast), ScriptedBackend("phone", fast)

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            for _ in range(10):
                await router.generate("Hello", data_class="secret", latency_budget=2.5)
            # The guess for an unknown cloud is wide; it still comes first, because its quality is higher.
            answer = await router.generate("Hello", data_class="public", latency_budget=2.5)
            assert answer.backend == "cloud"

    run_in_virtual_time(main())


CLASS_RULE = """
  rules:
    - name: moods are asked in order
      when: request.task == "classify"
      prefer: [moods]
"""


def test_embeddings_and_tensors_are_routed_like_text(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", failing(FailureKind.UNREACHABLE))
    gateway = ScriptedBackend("gateway")

    async def main() -> None:
        async with make_router(cloud, gateway) as router:
            vectors = await router.embed(["one", "three"], data_class="public")
            assert vectors.dtype == numpy.float32
            assert vectors.tolist() == [[3.0, 1.0], [5.0, 1.0]]
            assert vectors.backend == "gateway"
            scores = await router.infer("triage", {"features": [[1.0, 2.0]]}, data_class="public")
            assert scores["features"].tolist() == [[1.0, 2.0]]
            assert scores.backend == "gateway"
            with pytest.raises(NoBackendPermitted):
                await router.embed(["one"], data_class="secret")

    run_in_virtual_time(main())


def test_classifications_are_routed_like_text(make_router: RouterMaker) -> None:
    moods = ScriptedBackend("moods", failing(FailureKind.CRASHED))
    more_moods = ScriptedBackend("more-moods")

    async def main() -> None:
        async with make_router(moods, more_moods, policy=CLASS_RULE) as router:
            judged = await router.classify(["x" * 900, ""], data_class="public")
            assert [[entry.label for entry in text] for text in judged] == [["long", "short"], ["short", "long"]]
            assert judged[0][0].score == pytest.approx(0.9)
            assert judged.backend == "more-moods"
            assert judged.decision.task == "classify"
            assert judged.decision.matched_rules == ("moods are asked in order",)
            assert repr(judged) + repr(judged[0]) == "Classified(2 texts)(LabelScore(), LabelScore())"
            # The device may have every class; a class that it may not have is no class.
            assert (await router.classify(["x"], data_class="secret")).backend == "more-moods"
            with pytest.raises(NoBackendPermitted, match="it cannot embed"):
                await router.embed(["x"], data_class="public")
            with pytest.raises(InvalidRequest, match="classify wants a list of texts"):
                await router.classify("one", data_class="public")
            with pytest.raises(InvalidRequest, match="at least one text"):
                await router.classify([], data_class="public")

    run_in_virtual_time(main())


def test_the_first_request_is_judged_by_the_true_state_of_the_device(make_router: RouterMaker) -> None:
    policy = '  rules: [{name: little memory, when: "device.memory_free_mb < 500", deny: [device]}]\n'
    phone = ScriptedBackend("phone")

    async def main(memory: int) -> bool:
        async with make_router(phone, policy=policy, sample=lambda: DeviceFacts(memory_free_mb=memory)) as router:
            return bool((await router.plan("Hello", data_class="secret")).steps)

    assert run_in_virtual_time(main(4000))
    assert not run_in_virtual_time(main(400))
