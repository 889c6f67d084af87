"""One backend's predicted times for one kind of work."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

from ...core.request import Labels
from ...policies.facts import DEVIATIONS_TO_P95, LogNormal, Prediction
from ..snapshot import JsonValue, Unreadable, number, table
from .calibration import Calibration
from .posterior import LogNormalPosterior
from .prior import Prior

HALF_LIFE = 120.0
"""Seconds after which what was learned counts half."""

AVOIDED_HALF_LIFE = 5.0
AVOIDED_AFTER = 5.0
PASSED_OVER = 5
"""The same for one that looks slower than the prior and was passed over by so many plans for `AVOIDED_AFTER` seconds:
whoever is avoided for being slow cannot show that it is over."""

RECOVERED = -1.5
"""So many deviations faster than predicted, a first token says that a bad time is over: half of its memory goes."""

REDEEMED = 0.9
"""And so much where it was avoided before: what it was avoided for is over."""

IDLE_AFTER = 10.0
"""After so many seconds without a call the next one meets an idle backend: a radio that sleeps, a closed connection."""

KNOWN = 5.0
"""From so many observations a backend counts as known, and its prediction as measured."""

_LAG_MEMORY = 200.0
"""Over so many outcomes the lag of what is learned is averaged. A shorter memory would give those that come in a crowd,
which are the late ones, less weight than the others."""

_AGE_EVERY = 1.0
_SHORTEST_LOAD = 0.001
_LENGTH_MEDIAN = 100.0
_LENGTH_SIGMA = 0.8


class State(Enum):
    """How a call finds a backend. Each has times of its own."""

    WARM = "warm"
    IDLE = "idle"
    COLD = "cold"


class Estimator:
    """Learns time to first token (TTFT), time per output token (TPOT) and answer length, and predicts from them.

    ``clock`` is monotonic, in seconds. TTFT is learned relative to the prior's line over prompt tokens, so that one
    long prompt says something about short ones. The total is TTFT plus length × TPOT, summed as log-normals by their
    moments (Fenton 1960). An idle backend takes a learned factor of that TTFT, a cold one the time to load more.
    Every 95th percentile is calibrated by how often it was missed. Whoever calls opens a `trial`, which learns.
    """

    def __init__(self, prior: Prior, clock: Callable[[], float]) -> None:
        self._prior = prior
        self._clock = clock
        self._aged_at = self._called_at = clock()
        self._first = LogNormalPosterior(1.0, prior.sigma)
        self._idle = LogNormalPosterior(1.0, prior.sigma)
        self._load = LogNormalPosterior(prior.load, prior.sigma)
        self._per_token = LogNormalPosterior(prior.output_token, prior.sigma) if prior.output_token else None
        self._length = LogNormalPosterior(_LENGTH_MEDIAN, _LENGTH_SIGMA)
        self._first_calibrations = {state: Calibration() for state in State}
        self._total_calibrations = {state: Calibration() for state in State}
        self._per_token_calibration = Calibration()
        self._begun = 0
        self._lag = 0.0
        self._passed_over = 0
        self._predicted: dict[tuple[int, int, bool], Prediction] = {}

    def trial(self, labels: Labels, loading: bool) -> Trial:
        """A call begins now."""
        now = self._clock()
        expected = self.predict(labels, 0.0, loading)
        state = self._state(loading, now)
        avoided = self._avoided(now)
        self._called_at = now
        self._passed_over = 0
        self._begun += 1
        return Trial(self, self._begun, state, expected, labels, avoided)

    def observe_load(self, seconds: float) -> None:
        """A cold load took so long."""
        self._predicted.clear()
        self._load.observe(max(_SHORTEST_LOAD, seconds))

    @property
    def observations(self) -> float:
        """How many first tokens (or results) count now."""
        return self._first.observations

    def output_token(self) -> LogNormal | None:
        """The predicted time per output token; ``None`` for work with one result."""
        posterior = self._per_token
        return None if posterior is None else LogNormal(posterior.mu, posterior.sigma)

    def output_token_p95(self) -> float:
        """The predicted 95th percentile of an answer's time per output token, in seconds."""
        posterior = self._per_token
        if posterior is None:
            return 0.0
        return self._per_token_calibration.apply(LogNormal(posterior.mu, posterior.sigma)).quantile_95()

    def predict(self, labels: Labels, waiting: float, loading: bool) -> Prediction:
        """What this request would take here from now, after ``waiting`` mean answers ahead of it."""
        now = self._clock()
        self._age(now)
        self._passed_over += 1
        tokens = _rounded_up(labels.prompt_tokens)
        state = self._state(loading, now)
        if waiting or loading:
            return self._predict(tokens, labels.max_output_tokens, waiting, state)
        key = (tokens, labels.max_output_tokens, state is State.IDLE)
        prediction = self._predicted.get(key)
        if prediction is None:
            prediction = self._predicted[key] = self._predict(tokens, labels.max_output_tokens, 0.0, state)
        return prediction

    def snapshot(self) -> JsonValue:
        """What was learned, and when."""
        return {
            "aged_at": self._aged_at,
            "called_at": self._called_at,
            **{name: learned.snapshot() for name, learned in self._learned().items()},
        }

    def restore(self, value: JsonValue, shift: float) -> None:
        """Take the snapshot of one with the same prior back, as if the time between had passed without a request.

        Raises `Unreadable`, and has then learned nothing.
        """
        stored, now = table(value), self._clock()
        self._predicted.clear()
        try:
            aged_at = number(stored, "aged_at") + shift
            called_at = number(stored, "called_at") + shift
            for name, learned in self._learned().items():
                learned.restore(table(stored, name))
        except Unreadable:
            for learned in self._learned().values():
                learned.forget(1.0)
            raise
        self._aged_at, self._called_at = min(now, aged_at), min(now, called_at)

    def _learned(self) -> dict[str, LogNormalPosterior | Calibration]:
        named: dict[str, LogNormalPosterior | Calibration] = {
            "first": self._first,
            "idle": self._idle,
            "load": self._load,
            "length": self._length,
            "per_token_calibration": self._per_token_calibration,
        }
        if self._per_token is not None:
            named["per_token"] = self._per_token
        for state in State:
            named[f"first_calibration_{state.value}"] = self._first_calibrations[state]
            named[f"total_calibration_{state.value}"] = self._total_calibrations[state]
        return named

    def _state(self, loading: bool, now: float) -> State:
        if loading:
            return State.COLD
        return State.IDLE if now - self._called_at > IDLE_AFTER else State.WARM

    def _predict(self, prompt_tokens: int, max_output_tokens: int, waiting: float, state: State) -> Prediction:
        known = self._first.observations >= KNOWN
        first = LogNormal(self._first.mu + math.log(self._line(prompt_tokens)), self._first.sigma)
        rest = None if self._per_token is None else self._rest(self._per_token, max_output_tokens)
        ahead = waiting * (first.median() + (rest.median() if rest else 0.0))
        if state is State.IDLE:
            first = LogNormal(first.mu + self._idle.mu, self._idle.sigma)
        elif state is State.COLD:
            first = _sum(first, LogNormal(self._load.mu, self._load.sigma), 0.0)
        if ahead:
            first = _sum(first, None, ahead)
        calibrated = self._first_calibrations[state].apply(first)
        if rest is None:
            return Prediction(calibrated, calibrated, known)
        return Prediction(calibrated, self._total_calibrations[state].apply(_sum(first, rest, 0.0)), known)

    def _learn_first(self, trial: Trial, seconds: float) -> None:
        self._predicted.clear()
        self._first_calibrations[trial.state].observe(trial.expected.first, seconds, self._lag_since(trial))
        posterior, value = self._lesson(trial, seconds)
        if posterior is self._first and posterior.score(value) < RECOVERED:
            posterior.forget(REDEEMED if trial.avoided else 0.5)
            if trial.avoided:
                self._forgive(REDEEMED)
        posterior.observe(value)

    def _learn_no_first(self, trial: Trial, seconds: float) -> None:
        self._predicted.clear()
        lag = self._lag_since(trial)
        self._first_calibrations[trial.state].observe_at_least(trial.expected.first, seconds, lag)
        self._total_calibrations[trial.state].observe_at_least(trial.expected.total, seconds, lag)
        if trial.state is State.COLD:
            self._load.observe_at_least(self._load_within(trial, seconds))
            return
        # A silence says that a backend is slow or gone, never that it only slept: else an outage, in which calls are
        # rare, would be remembered as how it wakes.
        self._first.observe_at_least(seconds / self._line(trial.labels.prompt_tokens))

    def _lesson(self, trial: Trial, seconds: float) -> tuple[LogNormalPosterior, float]:
        """Which quantity a first token after so long says something of, and what."""
        relative = seconds / self._line(trial.labels.prompt_tokens)
        if trial.state is State.COLD:
            return self._load, self._load_within(trial, seconds)
        if trial.state is State.IDLE and self._first.observations >= KNOWN:
            return self._idle, relative / math.exp(self._first.mu)
        return self._first, relative

    def _load_within(self, trial: Trial, seconds: float) -> float:
        """What of a cold start's time was loading."""
        return max(_SHORTEST_LOAD, seconds - math.exp(self._first.mu) * self._line(trial.labels.prompt_tokens))

    def _learn_whole(self, trial: Trial, tokens: int, rest: float, total: float) -> None:
        self._predicted.clear()
        self._called_at = self._clock()
        self._total_calibrations[trial.state].observe(trial.expected.total, total, self._lag_since(trial))
        self._learn_rate(tokens - 1, rest)
        self._length.observe(max(1, tokens))

    def _learn_cut(self, trial: Trial, tokens: int, rest: float, total: float) -> None:
        self._predicted.clear()
        self._called_at = self._clock()
        self._total_calibrations[trial.state].observe_at_least(trial.expected.total, total, self._lag_since(trial))
        self._learn_rate(tokens - 1, rest)

    def _learn_rate(self, tokens: int, seconds: float) -> None:
        posterior = self._per_token
        if posterior is None or tokens <= 0 or seconds <= 0:
            return
        expected = self._per_token_calibration.apply(LogNormal(posterior.mu, posterior.sigma))
        self._per_token_calibration.observe(expected, seconds / tokens, 0.0)
        posterior.observe(seconds / tokens)

    def _lag_since(self, trial: Trial) -> float:
        """How many calls begin, in the mean, before one's outcome is known; ``trial``'s is known now."""
        self._lag += (self._begun - trial.number - self._lag) / _LAG_MEMORY
        return self._lag

    def _age(self, now: float) -> None:
        elapsed = now - self._aged_at
        if elapsed < _AGE_EVERY:
            return
        self._aged_at = now
        avoided = self._avoided(now)
        self._predicted.clear()
        share = 1.0 - 0.5 ** (elapsed / (AVOIDED_HALF_LIFE if avoided else HALF_LIFE))
        self._first.forget(share)
        if avoided:
            self._idle.forget(share)
            self._forgive(share)
        if self._per_token is not None:
            self._per_token.forget(share)

    def _avoided(self, now: float) -> bool:
        if self._passed_over < PASSED_OVER or now - self._called_at <= AVOIDED_AFTER:
            return False
        slowest = self._first.mu + self._first_calibrations[State.WARM].deviations * self._first.sigma
        slow_to_begin = slowest > math.log(2.0) + DEVIATIONS_TO_P95 * self._prior.sigma
        return slow_to_begin or self._total_calibrations[State.WARM].deviations > 1.25 * DEVIATIONS_TO_P95

    def _forgive(self, share: float) -> None:
        """Let the misses of a bad time fade: in an outage there are many, and hits would take long to outweigh them."""
        for calibration in (*self._first_calibrations.values(), *self._total_calibrations.values()):
            calibration.forget(share)

    def _line(self, prompt_tokens: int) -> float:
        return self._prior.first + self._prior.prompt_token * prompt_tokens

    def _rest(self, per_token: LogNormalPosterior, max_output_tokens: int) -> LogNormal:
        limit = math.log(max(1, max_output_tokens))
        mu, sigma = self._length.mu, self._length.sigma
        if mu >= limit:
            mu, sigma = limit, 0.0
        elif mu + DEVIATIONS_TO_P95 * sigma > limit:
            sigma = (limit - mu) / DEVIATIONS_TO_P95
        return LogNormal(mu + per_token.mu, math.hypot(sigma, per_token.sigma))


class Trial:
    """One call: what was expected of it, and what it shows. All times are seconds from its beginning.

    `first` or `no_first` once; after `first`, for work that comes in tokens, `whole` or `cut` once.
    """

    __slots__ = ("_estimator", "avoided", "expected", "labels", "number", "state")

    def __init__(
        self, estimator: Estimator, number: int, state: State, expected: Prediction, labels: Labels, avoided: bool
    ) -> None:
        self._estimator = estimator
        self.number = number
        self.state = state
        self.expected = expected
        self.labels = labels
        self.avoided = avoided

    def first(self, seconds: float) -> None:
        """A first token (or a whole result) came."""
        self._estimator._learn_first(self, seconds)

    def no_first(self, seconds: float) -> None:
        """It was stopped without a first token."""
        self._estimator._learn_no_first(self, seconds)

    def whole(self, tokens: int, first: float, last: float) -> None:
        """A whole answer of so many tokens came."""
        self._estimator._learn_whole(self, tokens, last - first, last)

    def cut(self, tokens: int, first: float, last: float, stopped: float) -> None:
        """It was stopped after so many tokens, of which the last came at ``last``."""
        self._estimator._learn_cut(self, tokens, last - first, stopped)


def _rounded_up(tokens: int) -> int:
    """To the next of about 11 % steps: requests of like length share a prediction, which is no more exact than that."""
    shift = max(0, tokens.bit_length() - 4)
    return -(-tokens >> shift) << shift


def _sum(a: LogNormal, b: LogNormal | None, constant: float) -> LogNormal:
    mean, variance = _moments(a)
    if b is not None:
        more, spread = _moments(b)
        mean += more
        variance += spread
    mean += constant
    sigma_squared = math.log1p(variance / (mean * mean))
    return LogNormal(math.log(mean) - 0.5 * sigma_squared, max(math.sqrt(sigma_squared), 1e-3))


def _moments(x: LogNormal) -> tuple[float, float]:
    squared = x.sigma * x.sigma
    mean = math.exp(x.mu + 0.5 * squared)
    return mean, math.expm1(squared) * mean * mean
