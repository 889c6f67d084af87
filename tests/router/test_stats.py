"""What a router tells of its backends."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext

import pytest

from edgewise.backends import BackendHealth, Capabilities, HealthState
from edgewise.core.request import Task
from edgewise.router import AttemptError, BackendError, FailureKind, Router, RouterStats
from edgewise.router.execution.breaker import BreakerState
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker

SECRET = "Patient Zebulon Quartz"


def test_it_tells_what_was_learned_and_what_became_of_every_attempt(make_router: RouterMaker) -> None:
    broken = AttemptError(FailureKind.INTERNAL, "it failed")
    cloud = ScriptedBackend(
        "cloud", lambda number: Script(failure=broken) if number % 4 == 3 else Script(first_after=0.2, every=0.05)
    )

    async def main() -> None:
        async with make_router(cloud, ScriptedBackend("phone")) as router:
            before = router.stats().backends["cloud"]
            assert (before.attempts.started, before.attempts.cost) == (0, 0.0)
            assert (before.tasks[Task.GENERATE].observations, before.tasks[Task.GENERATE].known) == (0.0, False)
            for number in range(20):
                with pytest.raises(BackendError) if number % 4 == 3 else nullcontext():
                    await router.generate(SECRET, data_class="public", backend="cloud")
            stats = router.stats()
        after = stats.backends["cloud"]
        learned = after.tasks[Task.GENERATE]
        assert learned.known
        assert 10.0 < learned.observations <= 15.0
        assert 0.15 < learned.first_token.p50 <= 0.3
        assert learned.first_token.p50 < learned.first_token.p95
        assert learned.output_token is not None
        # Between what is taken for granted of a remote model, and what came.
        assert 0.02 < learned.output_token.p50 <= 0.06
        assert learned.total.p50 > learned.first_token.p50
        attempts = after.attempts
        assert (attempts.started, attempts.succeeded, attempts.stopped) == (20, 15, 0)
        assert attempts.failed == {FailureKind.INTERNAL: 5}
        assert (attempts.prompt_tokens, attempts.output_tokens) == (15, 45)
        assert attempts.cost == pytest.approx(15 * 1.0e-6 + 45 * 10.0e-6)
        assert list(stats.backends) == ["cloud", "phone"]
        assert stats.backends["phone"].attempts.cost is None
        assert after.breaker.failure_share == pytest.approx(0.25)
        # A dashboard may have it, and it tells nothing of what was asked.
        told = json.dumps(stats.to_dict())
        assert "Zebulon" not in told
        assert json.loads(told)["backends"]["cloud"]["attempts"]["failed"] == {"internal": 5}

    run_in_virtual_time(main())


def test_it_tells_the_queue_and_what_was_stopped(make_router: RouterMaker) -> None:
    one_at_a_time = Capabilities(tasks=frozenset({Task.GENERATE}), max_concurrency=1)
    phone = ScriptedBackend("phone", Script(first_after=5.0), capabilities=one_at_a_time)
    cloud = ScriptedBackend("cloud", Script(silent_after=0))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            calls = [
                asyncio.ensure_future(router.generate("Hello", backend=backend, data_class="public"))
                for backend in ("phone", "phone", "cloud")
            ]
            in_reserve = asyncio.ensure_future(router.generate("Hello", data_class="public"))
            await asyncio.sleep(0.1)
            queue = router.stats().backends["phone"].queue
            assert (queue.capacity, queue.running, queue.waiting, queue.promised) == (1, 1, 1, 1)
            assert router.stats().backends["cloud"].queue.running == 2
            for call in (*calls, in_reserve):
                call.cancel()
            await asyncio.gather(*calls, in_reserve, return_exceptions=True)
            await asyncio.sleep(0.1)
            stats = router.stats()
        for backend in stats.backends.values():
            assert (backend.queue.running, backend.queue.waiting, backend.queue.promised) == (0, 0, 0)
            assert (backend.attempts.started, backend.attempts.stopped) == (2, 2)

    run_in_virtual_time(main())


def test_it_tells_who_is_out_of_order_and_why(make_router: RouterMaker) -> None:
    wrong_key = AttemptError(FailureKind.CREDENTIALS, "backend 'cloud' does not accept our credentials")
    down = AttemptError(FailureKind.UNREACHABLE, "it cannot be reached")
    cloud, gateway = (
        ScriptedBackend("cloud", Script(failure=wrong_key)),
        ScriptedBackend("gateway", Script(failure=down)),
    )
    phone = ScriptedBackend("phone", health=BackendHealth(HealthState.LOADING, "the engine loads its model"))

    async def main() -> None:
        async with make_router(cloud, gateway, phone) as router:
            full = router.stats().backends["gateway"].retry_tokens
            for _ in range(3):
                with pytest.raises(BackendError):
                    await router.generate("Hello", data_class="public", backend=["cloud", "gateway"])
            backends = router.stats().backends
        assert set(backends["cloud"].quarantine) == {Task.GENERATE, Task.EMBED, Task.INFER, Task.COUNT_TOKENS}
        assert set(backends["cloud"].quarantine.values()) == {wrong_key.sentence}
        assert backends["gateway"].quarantine == {}
        breaker = backends["gateway"].breaker
        assert (breaker.state, breaker.failure_share) == (BreakerState.OPEN, 1.0)
        assert breaker.failures_in_a_row >= 3
        assert 0.0 < breaker.pause <= 1.2
        assert (backends["phone"].health, backends["phone"].health_sentence) == (
            HealthState.LOADING,
            "the engine loads its model",
        )
        assert backends["gateway"].retry_tokens.retries < full.retries

    run_in_virtual_time(main())


def test_the_blocking_router_tells_the_same(make_router: RouterMaker) -> None:
    phone = ScriptedBackend("phone")
    with Router(make_router(phone).configuration, backends={"phone": phone}) as router:
        router.generate("Hello")
        stats = router.stats()
    assert isinstance(stats, RouterStats)
    assert stats.backends["phone"].attempts.succeeded == 1
