"""Predictions: honest with little knowledge, right with much, and not fooled by attempts that were cut short."""

from __future__ import annotations

import math
import random

import pytest

from edgewise.core.request import Labels, Task
from edgewise.policies.facts import LogNormal
from edgewise.router.estimates import Estimator
from edgewise.router.estimates.posterior import LogNormalPosterior
from edgewise.router.estimates.prior import ON_DEVICE, REMOTE, REMOTE_ARRAYS

LABELS = Labels(Task.GENERATE, prompt_tokens=100, max_output_tokens=200)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def quantile_95(posterior: LogNormalPosterior) -> float:
    return LogNormal(posterior.mu, posterior.sigma).quantile_95()


def test_the_p95_covers_19_of_20_of_what_comes_next() -> None:
    source = random.Random(1)
    covered = total = 0
    for median in (0.02, 0.3, 4.0):
        posterior = LogNormalPosterior(0.3, 0.5)
        for number in range(4000):
            value = source.lognormvariate(math.log(median), 0.4)
            if number >= 30:
                covered += value <= quantile_95(posterior)
                total += 1
            posterior.observe(value)
    assert covered / total == pytest.approx(0.95, abs=0.02)


def test_a_changed_load_is_followed() -> None:
    source = random.Random(2)
    posterior = LogNormalPosterior(0.1, 0.5)
    for median in (0.05, 0.5):
        for _ in range(200):
            posterior.observe(source.lognormvariate(math.log(median), 0.2))
        assert math.exp(posterior.mu) == pytest.approx(median, rel=0.2)


def test_the_prior_counts_as_five_and_fades_in() -> None:
    posterior = LogNormalPosterior(1.0, 0.5)
    for _ in range(5):
        posterior.observe(math.e)
    assert posterior.mu == pytest.approx(0.5, abs=0.03)
    posterior.forget(1.0)
    assert (posterior.mu, posterior.observations) == (0.0, 0.0)


def test_attempts_that_were_cut_short_do_not_hide_the_tail() -> None:
    """A hedge cancels every attempt at 0.5 s, and a third of the true values are slower than that."""
    source = random.Random(3)
    dropped, learned = LogNormalPosterior(0.4, 0.5), LogNormalPosterior(0.4, 0.5)
    for _ in range(2000):
        value = source.lognormvariate(math.log(0.4), 0.5)
        if value <= 0.5:
            dropped.observe(value)
            learned.observe(value)
        else:
            learned.observe_at_least(0.5)
    assert math.exp(dropped.mu) < 0.34  # what ignoring them makes of it
    assert math.exp(learned.mu) == pytest.approx(0.4, rel=0.15)


def test_what_was_learned_fades_with_time() -> None:
    clock = Clock()
    estimator = Estimator(REMOTE, clock)
    untried = estimator.predict(LABELS, 0.0, loading=False)
    for _ in range(20):
        estimator.trial(LABELS, loading=False).first(5.0)
    slow = estimator.predict(LABELS, 0.0, loading=False)
    assert slow.known
    assert slow.first.median() > 5 * untried.first.median()
    clock.now = 3600.0
    later = estimator.predict(LABELS, 0.0, loading=False)
    assert not later.known
    assert later.first.median() == pytest.approx(untried.first.median(), rel=0.01)


def test_a_long_prompt_takes_longer_and_says_something_of_short_ones() -> None:
    estimator = Estimator(ON_DEVICE, Clock())
    short = Labels(Task.GENERATE, prompt_tokens=10, max_output_tokens=10)
    long = Labels(Task.GENERATE, prompt_tokens=2000, max_output_tokens=10)
    before = estimator.predict(short, 0.0, loading=False).first.median()
    assert estimator.predict(long, 0.0, loading=False).first.median() > 10 * before
    for _ in range(30):
        estimator.trial(long, loading=False).first(2.0)
    assert estimator.predict(short, 0.0, loading=False).first.median() < before


@pytest.mark.parametrize(("tokens", "seconds"), [(101, 1.0), (10, 0.25)], ids=["faster tokens", "shorter answers"])
def test_faster_tokens_and_shorter_answers_shorten_the_total(tokens: int, seconds: float) -> None:
    estimator = Estimator(ON_DEVICE, Clock())
    before = estimator.predict(LABELS, 0.0, loading=False).total
    for _ in range(20):
        estimator.trial(LABELS, loading=False).whole(tokens, first=0.1, last=0.1 + seconds)
    after = estimator.predict(LABELS, 0.0, loading=False).total
    assert after.median() < 0.8 * before.median()


def test_an_answer_is_never_predicted_longer_than_allowed() -> None:
    estimator = Estimator(REMOTE, Clock())
    one = Labels(Task.GENERATE, prompt_tokens=100, max_output_tokens=1)
    prediction = estimator.predict(one, 0.0, loading=False)
    assert prediction.total.median() < prediction.first.median() + 2 * REMOTE.output_token


def test_a_start_that_took_no_time_at_all_leaves_predictions_that_can_be_compared() -> None:
    estimator = Estimator(ON_DEVICE, Clock())
    estimator.observe_load(0.0)
    prediction = estimator.predict(LABELS, 0.0, loading=True)
    assert 0.0 < prediction.first.median() <= prediction.total.quantile_95() < math.inf


def test_waiting_and_loading_count() -> None:
    for prior in (ON_DEVICE, REMOTE_ARRAYS):
        estimator = Estimator(prior, Clock())
        free = estimator.predict(LABELS, 0.0, loading=False)
        assert estimator.predict(LABELS, 2.0, loading=False).first.median() > 1.5 * free.first.median()
        assert estimator.predict(LABELS, 0.0, loading=True).first.median() > free.first.median() + 0.5 * prior.load
