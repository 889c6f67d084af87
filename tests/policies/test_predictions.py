"""What is predicted of a time: a log-normal distribution, held to the normal one of its logarithm."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest

from edgewise.policies.facts import LogNormal

PREDICTED, LOGARITHM = LogNormal(math.log(0.4), 0.7), NormalDist(math.log(0.4), 0.7)


@pytest.mark.parametrize("seconds", [0.01, 0.2, 0.4, 0.5, 2.0, 60.0])
def test_a_time_is_as_likely_as_its_logarithm(seconds: float) -> None:
    assert PREDICTED.probability_within(seconds) == pytest.approx(LOGARITHM.cdf(math.log(seconds)))


def test_no_time_at_all_is_enough_for_nothing() -> None:
    assert PREDICTED.probability_within(0.0) == 0.0


def test_its_percentiles_are_those_of_its_logarithm() -> None:
    assert PREDICTED.median() == pytest.approx(0.4)
    assert PREDICTED.quantile_95() == pytest.approx(math.exp(LOGARITHM.inv_cdf(0.95)))
