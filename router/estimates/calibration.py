"""How far above a predicted mean the 95th percentile really lies."""

from __future__ import annotations

import math

from ...policies.facts import DEVIATIONS_TO_P95, LogNormal
from ..snapshot import JsonValue, number, table

_MISSES = 0.05

_STEP = 0.5
"""Deviations that a miss adds, less 5 %. Long-run coverage is then off by at most (range of `deviations`) / (step × n);
a smaller step makes a steadier percentile that holds its promise later."""

_FEWEST, _MOST = 0.1, 8.0


class Calibration:
    """Learns from hits and misses how many deviations above the mean 95 % of what comes lies under.

    ``lag`` is how many predictions are made, in the mean, before it is known how one of them came out. All of them may
    miss by the same bad news, and a full step for each would raise the percentile as often. So a step is the shorter
    by the root of that, as in online learning from delayed feedback (Joulani, György & Szepesvári 2013).

    Adaptive conformal inference (Gibbs & Candès 2021), in the form that moves the quantile of the scores itself
    (Angelopoulos, Candès & Tibshirani 2023): a miss raises it, a hit lowers it by a nineteenth of that. So 95 % are
    covered in the long run whatever is observed, where a log-normal alone is too short for heavy tails and too long
    for even ones.
    """

    __slots__ = ("deviations",)

    def __init__(self) -> None:
        self.deviations = DEVIATIONS_TO_P95

    def apply(self, predicted: LogNormal) -> LogNormal:
        """The prediction with its spread set so that its 95th percentile is the calibrated one."""
        return LogNormal(predicted.mu, predicted.sigma * self.deviations / DEVIATIONS_TO_P95)

    def observe(self, predicted: LogNormal, seconds: float, lag: float) -> None:
        """What had been predicted by `apply` took so long."""
        self._learn(1.0 if seconds > predicted.quantile_95() else 0.0, lag)

    def observe_at_least(self, predicted: LogNormal, seconds: float, lag: float) -> None:
        """It was stopped after so long: a miss if that is longer, else one as likely as it then was to become one."""
        if seconds > predicted.quantile_95():
            self._learn(1.0, lag)
        else:
            self._learn(_MISSES / (1.0 - predicted.probability_within(seconds)), lag)

    def forget(self, share: float) -> None:
        """Let ``share`` of what was learned fade, from 0 to 1."""
        self.deviations += share * (DEVIATIONS_TO_P95 - self.deviations)

    def snapshot(self) -> JsonValue:
        """What was learned."""
        return {"deviations": self.deviations}

    def restore(self, value: JsonValue) -> None:
        """Take a snapshot back. Raises `Unreadable`."""
        self.deviations = number(table(value), "deviations", _FEWEST, _MOST)

    def _learn(self, missed: float, lag: float) -> None:
        step = _STEP / math.sqrt(1.0 + lag)
        self.deviations = min(_MOST, max(_FEWEST, self.deviations + step * (missed - _MISSES)))
