"""What retries and hedges may cost a backend, token by token."""

from __future__ import annotations

import pytest

from edgewise.router.execution.retry_budget import RetryBudget

from .conftest import Clock


@pytest.fixture
def budget(clock: Clock) -> RetryBudget:
    """One whose reserve was spent at once, so that only what is earned pays."""
    budget = RetryBudget(clock)
    assert [budget.pay_for_retry() for _ in range(3)] == [True, True, False]
    return budget


def extra(budget: RetryBudget, pays: str = "pay_for_retry") -> int:
    """How many extra attempts it pays for now."""
    paid = 0
    while getattr(budget, pays)():
        paid += 1
        assert paid < 100
    return paid


def test_a_new_bucket_lets_a_quiet_client_retry_or_hedge_twice(clock: Clock) -> None:
    assert RetryBudget(clock).for_retries == RetryBudget(clock).for_hedges == 2.0
    assert extra(RetryBudget(clock)) == 2
    assert extra(RetryBudget(clock), "pay_for_hedge") == 2


def test_every_fifth_first_attempt_earns_a_retry(budget: RetryBudget) -> None:
    for _ in range(4):
        budget.earn()
    assert not budget.pay_for_retry()
    for _ in range(11):
        budget.earn()
    assert budget.for_retries == pytest.approx(3.0)
    assert extra(budget) in (2, 3)  # fifteen times a fifth is not quite three


def test_hedges_take_a_quarter_of_what_is_earned_at_most(budget: RetryBudget) -> None:
    for _ in range(41):
        budget.earn()
    assert budget.for_hedges == pytest.approx(2.05)
    assert extra(budget, "pay_for_hedge") == 2
    assert budget.for_hedges == pytest.approx(0.05)
    # They are paid from the same tokens as retries.
    assert budget.for_retries == pytest.approx(41 * 0.2 - 2)


def test_retries_may_take_what_hedges_leave_and_hedges_then_have_no_more_than_is_left(budget: RetryBudget) -> None:
    for _ in range(50):
        budget.earn()
    assert extra(budget) in (9, 10)
    assert budget.for_hedges == pytest.approx(budget.for_retries)
    assert not budget.pay_for_hedge()


def test_what_is_earned_is_bounded(budget: RetryBudget) -> None:
    for _ in range(1000):
        budget.earn()
    assert (budget.for_retries, budget.for_hedges) == (10.0, 2.5)
    assert extra(budget) == 10


def test_a_first_attempt_that_fails_earns_half_and_never_less_than_nothing(budget: RetryBudget) -> None:
    for _ in range(30):
        budget.earn()
        budget.lose()
    assert budget.for_retries == pytest.approx(3.0)
    assert budget.for_hedges == pytest.approx(0.75)
    for _ in range(100):
        budget.lose()
    assert (budget.for_retries, budget.for_hedges) == (0.0, 0.0)
    for _ in range(5):
        budget.earn()
    assert budget.for_retries == pytest.approx(1.0)
    assert budget.for_hedges == pytest.approx(0.25)


@pytest.mark.parametrize("pays", ["pay_for_retry", "pay_for_hedge"])
def test_the_reserve_gains_a_token_in_ten_seconds_and_holds_two(budget: RetryBudget, clock: Clock, pays: str) -> None:
    clock.now += 9.0
    assert extra(budget, pays) == 0
    clock.now += 1.5
    assert extra(budget, pays) == 1
    clock.now += 1000.0
    assert budget.for_retries == 2.0
    assert extra(budget, pays) == 2
