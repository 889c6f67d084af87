"""A log-normal quantity learned online from a prior, whole observations, and ones that were cut short."""

from __future__ import annotations

import math

from ..snapshot import JsonValue, number, table

PRIOR_WEIGHT = 5.0
"""The prior counts as so many observations."""

_DECAY = 0.98
"""An observation's weight after each later one: about fifty count, so that a changed load is followed."""

_MIN_SIGMA = 0.05
_FARTHEST = 50.0
"""So far, as logarithms, no observation lies from its prior: a stored one that does was not ours."""

_SQRT_2 = math.sqrt(2.0)
_SQRT_2PI = math.sqrt(2.0 * math.pi)


class LogNormalPosterior:
    """The mean and deviation of a positive quantity's logarithm.

    The prior counts as `PRIOR_WEIGHT` observations; observations decay exponentially. The deviation predicts the next
    value, so it is widened by what is not known of the mean: ``sigma² (1 + 1/n)``.
    """

    __slots__ = ("_mu", "_prior_mu", "_prior_variance", "_sigma", "_sum", "_sum_squares", "_weight")

    def __init__(self, median: float, sigma: float) -> None:
        self._prior_mu = math.log(median)
        self._prior_variance = sigma * sigma
        self._weight = 0.0
        self._sum = 0.0
        self._sum_squares = 0.0
        self._mu = self._prior_mu
        self._sigma = sigma
        self._update()

    @property
    def mu(self) -> float:
        """The logarithm's predicted mean."""
        return self._mu

    @property
    def sigma(self) -> float:
        """The logarithm's predicted deviation."""
        return self._sigma

    @property
    def observations(self) -> float:
        """How many observations count now, the prior not among them."""
        return self._weight

    def score(self, value: float) -> float:
        """How many deviations a value lies above the prediction; below it, negative."""
        return (math.log(max(value, 1e-9)) - self._mu) / self._sigma

    def forget(self, share: float) -> None:
        """Let ``share`` of what was learned fade, from 0 to 1: the prediction moves back towards the prior."""
        self._weight *= 1.0 - share
        self._sum *= 1.0 - share
        self._sum_squares *= 1.0 - share
        self._update()

    def observe(self, value: float) -> None:
        """Learn from a whole observation, which is above zero."""
        self._learn(math.log(max(value, 1e-9)))

    def observe_at_least(self, value: float) -> None:
        """Learn from an observation that was stopped at ``value`` without an end (right-censored).

        It counts as its expectation given that it is larger: ``mu + sigma · h(z)`` with the inverse Mills ratio h, the
        expectation step for a censored normal (Tobin 1958). To drop it instead would let a hedge hide its own tail.
        """
        self._learn(self._mu + self._sigma * _inverse_mills(self.score(value)))

    def snapshot(self) -> JsonValue:
        """What was observed."""
        return {"weight": self._weight, "sum": self._sum, "squares": self._sum_squares}

    def restore(self, value: JsonValue) -> None:
        """Take a snapshot of one with the same prior back. Raises `Unreadable`."""
        stored = table(value)
        weight = number(stored, "weight", 0.0, 1.0 / (1.0 - _DECAY))
        total = number(stored, "sum", -_FARTHEST * weight, _FARTHEST * weight)
        self._sum_squares = number(stored, "squares", 0.0, _FARTHEST**2 * weight)
        self._weight, self._sum = weight, total
        self._update()

    def _learn(self, log_value: float) -> None:
        # Kept relative to the prior's mean, so that the squares stay small and exact.
        offset = log_value - self._prior_mu
        self._weight = self._weight * _DECAY + 1.0
        self._sum = self._sum * _DECAY + offset
        self._sum_squares = self._sum_squares * _DECAY + offset * offset
        self._update()

    def _update(self) -> None:
        total = PRIOR_WEIGHT + self._weight
        mean = self._sum / total
        observed = self._sum / self._weight if self._weight > 1e-9 else mean
        within = max(0.0, self._sum_squares - self._weight * observed * observed)
        # How far the prior still pulls the mean away from what was observed is an error of the prediction, too.
        variance = (PRIOR_WEIGHT * self._prior_variance + within) / total + (observed - mean) ** 2
        self._mu = self._prior_mu + mean
        self._sigma = max(_MIN_SIGMA, math.sqrt(variance * (1.0 + 1.0 / total)))


def _inverse_mills(z: float) -> float:
    tail = 0.5 * math.erfc(z / _SQRT_2)
    if tail < 1e-12:
        return z + 1.0 / z  # the asymptote, where the quotient loses its digits
    return math.exp(-0.5 * z * z) / _SQRT_2PI / tail
