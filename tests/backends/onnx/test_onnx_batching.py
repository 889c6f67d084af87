"""Requests that come together run together, and nobody can tell from the results."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
from onnx import TensorProto, helper

from edgewise.backends import Backend, CallContext
from edgewise.backends.onnx.batching import Batcher
from edgewise.backends.tensors import to_array, to_tensor
from edgewise.core.content import InferInput, Tensor
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Priority
from edgewise.testing import run_in_virtual_time

Start = Callable[..., Awaitable[Backend]]
Outputs = dict[str, Tensor]


def rows_of(first: float, count: int = 1) -> dict[str, Tensor]:
    return {"x": to_tensor(numpy.full((count, 3), first, dtype=numpy.float32))}


def context(*data_classes: str, priority: Priority = Priority.NORMAL, seconds: float = 60.0) -> CallContext:
    deadline = Deadline.after(asyncio.get_running_loop().time(), seconds)
    return CallContext("r", deadline, data_classes, priority)


class Doubler:
    """Runs in the model's place: y = x + x, a second a run."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, Priority, float]] = []
        self.stopped = 0
        self.refuses_value: float | None = None
        self.forgets_rows = False
        self.failure: BaseException | None = None
        self.fails_alone: BaseException | None = None

    async def __call__(
        self, model: str, tensors: Mapping[str, Tensor], priority: Priority, deadline: Deadline
    ) -> Outputs:
        x = to_array(tensors["x"])
        self.runs.append((len(x), priority, round(deadline.at, 3)))
        try:
            await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.failure is not None:
            raise self.failure
        if self.fails_alone is not None and len(x) == 1:
            raise self.fails_alone
        if self.refuses_value is not None and (x == self.refuses_value).any():
            raise AttemptError(FailureKind.INVALID_REQUEST, "it cannot take this value")
        return {"y": to_tensor((x + x)[:1] if self.forgets_rows and len(x) > 1 else x + x)}


def value(outputs: Outputs) -> float:
    return float(to_array(outputs["y"])[0, 0])


def batched(test: Callable[[Doubler, Batcher], Awaitable[None]], *, most: int = 4) -> None:
    async def main() -> None:
        doubler = Doubler()
        await test(doubler, Batcher(doubler, wait=0.002, most=most))
        await asyncio.sleep(0.01)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    run_in_virtual_time(main())


def test_what_comes_within_the_wait_runs_as_one() -> None:
    async def test(doubler: Doubler, batcher: Batcher) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        one = asyncio.create_task(batcher.infer("m", rows_of(1.0), context(seconds=7)))
        await asyncio.sleep(0.0015)
        two = asyncio.create_task(batcher.infer("m", rows_of(2.0, 2), context(priority=Priority.HIGH, seconds=5)))
        await asyncio.sleep(0.001)
        late = asyncio.create_task(batcher.infer("m", rows_of(3.0), context()))
        assert value(await one) == 2.0
        assert clock() - began == pytest.approx(1.002)
        both = (await two)["y"]
        assert to_array(both).tolist() == [[4.0] * 3] * 2
        await late
        assert doubler.runs == [(3, Priority.HIGH, round(began + 7, 3)), (1, Priority.NORMAL, doubler.runs[1][2])]

    batched(test)


def test_a_full_batch_does_not_wait() -> None:
    async def test(doubler: Doubler, batcher: Batcher) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        answers = await asyncio.gather(*(batcher.infer("m", rows_of(float(n)), context()) for n in range(9)))
        assert [value(answer) for answer in answers] == [2.0 * n for n in range(9)]
        assert [rows for rows, _, _ in doubler.runs] == [4, 4, 1]
        assert clock() - began == pytest.approx(1.002)

    batched(test)


def test_what_has_no_time_to_wait_runs_at_once_by_itself() -> None:
    """Also what is late already: it is the worker's to refuse."""

    async def test(doubler: Doubler, batcher: Batcher) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        budgets = (60.0, 0.001, -1.0, 60.0)
        await asyncio.gather(*(batcher.infer("m", rows_of(1), context(seconds=budget)) for budget in budgets))
        alone = [round(began + budget, 3) for budget in (0.001, -1.0)]
        assert [(rows, deadline) for rows, _, deadline in doubler.runs[:2]] == [(1, at) for at in alone]
        assert [rows for rows, _, _ in doubler.runs[2:]] == [2]

    batched(test)


def test_what_differs_does_not_run_together() -> None:
    async def test(doubler: Doubler, batcher: Batcher) -> None:
        wide = {"x": to_tensor(numpy.zeros((1, 4), dtype=numpy.float32))}
        calls = [
            batcher.infer("m", rows_of(1.0), context("public")),
            batcher.infer("m", rows_of(1.0), context("health")),
            batcher.infer("m", rows_of(1.0), context("public", "health")),
            batcher.infer("other", rows_of(1.0), context("public")),
            batcher.infer("m", wide, context("public")),
            batcher.infer("m", rows_of(1.0, 7), context("public")),
        ]
        await asyncio.gather(*calls)
        assert sorted(rows for rows, _, _ in doubler.runs) == [1, 1, 1, 1, 1, 7]

    batched(test)


def test_data_classes_are_a_set() -> None:
    async def test(doubler: Doubler, batcher: Batcher) -> None:
        calls = (batcher.infer("m", rows_of(1.0), context(*classes)) for classes in ("ab", "ba"))
        await asyncio.gather(*calls)
        assert [rows for rows, _, _ in doubler.runs] == [2]

    batched(test)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"x": Tensor("float32", (), b"1234")},
        {"x": Tensor("float32", (1, 3), b"1234")},
        {"x": Tensor("float32", (-1, -3), b"1234" * 3)},
        {"x": Tensor("no-such-type", (1, 3), b"1234")},
        {"x": Tensor("string", (1,), b"\x09\0\0\0abc")},
        {"x": Tensor("float32", (1, 1), b"1234"), "z": Tensor("float32", (2, 1), b"12345678")},
    ],
)
def test_tensors_that_are_not_whole_meet_the_model_alone(tensors: dict[str, Tensor]) -> None:
    async def main() -> None:
        together: list[int] = []

        async def run(model: str, inputs: Mapping[str, Tensor], priority: Priority, deadline: Deadline) -> Outputs:
            together.append(len(inputs))
            return {}

        batcher = Batcher(run, wait=0.002, most=4)
        await asyncio.gather(*(batcher.infer("m", tensors, context()) for _ in range(2)))
        assert together == [len(tensors)] * 2

    run_in_virtual_time(main())


def test_whoever_gives_up_leaves_the_batch() -> None:
    async def test(doubler: Doubler, batcher: Batcher) -> None:
        leaves = asyncio.create_task(batcher.infer("m", rows_of(1.0), context()))
        stays = asyncio.create_task(batcher.infer("m", rows_of(2.0), context()))
        await asyncio.sleep(0.001)
        leaves.cancel()
        assert value(await stays) == 4.0
        assert leaves.cancelled()
        assert [rows for rows, _, _ in doubler.runs] == [1]

    batched(test)


def test_work_that_nobody_waits_for_stops() -> None:
    async def test(doubler: Doubler, batcher: Batcher) -> None:
        calls = [asyncio.create_task(batcher.infer("m", rows_of(1.0), context())) for _ in range(2)]
        await asyncio.sleep(0.5)
        calls[0].cancel()
        await asyncio.sleep(0.1)
        assert doubler.stopped == 0
        calls[1].cancel()
        await asyncio.wait(calls)
        await asyncio.sleep(0.1)
        assert doubler.stopped == 1

    batched(test)


def test_one_requests_values_fail_that_request() -> None:
    async def test(doubler: Doubler, batcher: Batcher) -> None:
        doubler.refuses_value = 2.0
        calls = (batcher.infer("m", rows_of(n), context()) for n in (1.0, 2.0, 3.0))
        first, bad, last = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(first, dict)
        assert isinstance(last, dict)
        assert (value(first), value(last)) == (2.0, 6.0)
        assert isinstance(bad, AttemptError)
        assert bad.kind is FailureKind.INVALID_REQUEST

    batched(test)


def test_a_crash_goes_back_to_all_and_is_not_tried_again() -> None:
    async def test(doubler: Doubler, batcher: Batcher) -> None:
        doubler.failure = AttemptError(FailureKind.CRASHED, "it died")
        calls = (batcher.infer("m", rows_of(n), context()) for n in (1.0, 2.0))
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert [failure.kind for failure in failures if isinstance(failure, AttemptError)] == [FailureKind.CRASHED] * 2
        assert failures[0] is not failures[1]
        assert len(doubler.runs) == 1

    batched(test)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (KeyError("x"), KeyError),  # a mistake of ours, or of an outside engine's
        (MemoryError(), MemoryError),
        (asyncio.CancelledError(), AttemptError),  # not asked for by anybody who waits
    ],
)
@pytest.mark.parametrize("forgets_rows", [False, True], ids=["together", "one by one"])
def test_an_unexpected_exception_leaves_nobody_waiting(
    failure: BaseException, told: type[BaseException], forgets_rows: bool
) -> None:
    async def test(doubler: Doubler, batcher: Batcher) -> None:
        doubler.forgets_rows = forgets_rows
        if forgets_rows:
            doubler.fails_alone = failure
        else:
            doubler.failure = failure
        calls = [asyncio.ensure_future(batcher.infer("m", rows_of(number), context("a"))) for number in range(3)]
        await asyncio.wait(calls, timeout=10.0)
        assert [type(call.exception()) for call in calls if call.done()] == [told] * 3

    batched(test)


def test_a_model_that_mixes_rows_is_run_request_by_request() -> None:
    async def test(doubler: Doubler, batcher: Batcher) -> None:
        doubler.forgets_rows = True
        answers = await asyncio.gather(*(batcher.infer("m", rows_of(n), context()) for n in (1.0, 2.0)))
        assert [value(answer) for answer in answers] == [2.0, 4.0]
        assert [rows for rows, _, _ in doubler.runs] == [2, 1, 1]

    batched(test)


async def test_results_are_those_of_single_runs(start: Start, build: Callable[..., Path]) -> None:
    random = numpy.random.default_rng(3)
    path = build(
        "mixed",
        [
            helper.make_node("MatMul", ["x", "w"], ["flat"]),
            helper.make_node("Tanh", ["flat"], ["y"]),
            helper.make_node("Identity", ["names"], ["called"]),
        ],
        [("x", TensorProto.FLOAT, ["rows", 5]), ("names", TensorProto.STRING, ["rows", 2])],
        [("y", TensorProto.FLOAT, ["rows", 7]), ("called", TensorProto.STRING, ["rows", 2])],
        {"w": random.normal(0, 1, (5, 7)).astype(numpy.float32)},
    )
    alone = await start({"m": path}, task="infer", model="m")
    together = await start({"m": path}, task="infer", model="m", batch_wait=0.05, max_batch=64)
    assert (alone.capabilities.max_concurrency, together.capabilities.max_concurrency) == (1, 64)
    requests = []
    for count in (1, 3, 2, 1, 5):
        names = numpy.array([[f"ü{count}", ""] for _ in range(count)], dtype=object)
        x = random.normal(0, 1, (count, 5)).astype(numpy.float32)
        requests.append(InferInput("m", {"x": to_tensor(x), "names": to_tensor(names)}))
    expected = [await alone.infer(request, context()) for request in requests]
    answers = await asyncio.gather(*(together.infer(request, context()) for request in requests))
    for one, other in zip(expected, answers, strict=True):
        assert numpy.allclose(to_array(one.outputs["y"]), to_array(other.outputs["y"]), atol=1e-6)
        assert to_array(one.outputs["called"]).tolist() == to_array(other.outputs["called"]).tolist()


async def test_a_model_of_a_fixed_number_of_rows_is_not_batched(start: Start, build: Callable[..., Path]) -> None:
    path = build(
        "fixed",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", TensorProto.FLOAT, [1, 3])],
        [("y", TensorProto.FLOAT, [1, 3])],
    )
    backend = await start({"m": path}, task="infer", model="m", batch_wait=0.01)
    calls: Any = (backend.infer(InferInput("m", rows_of(n)), context()) for n in (1.0, 2.0))
    assert [value(answer.outputs) for answer in await asyncio.gather(*calls)] == [2.0, 4.0]
