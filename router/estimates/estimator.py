"""One backend's predicted times for one kind of work."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ...core.request import Labels
from ...policies.facts import LogNormal, Prediction
from ..snapshot import JsonValue, Unreadable, number, table
from .posterior import LogNormalPosterior

HALF_LIFE = 120.0
"""Seconds after which what was learned counts half."""

AVOIDED_HALF_LIFE = 15.0
AVOIDED_AFTER = 5.0
"""The same for one that looks slower than the prior and was not tried for `AVOIDED_AFTER` seconds: whoever is avoided
for being slow cannot show that it is over."""

RECOVERED = -1.5
"""So many deviations faster than predicted, a first token says that a bad time is over: half of its memory goes."""

KNOWN = 5.0
"""From so many observations a backend counts as known, and its prediction as measured."""

_AGE_EVERY = 1.0
_LENGTH_MEDIAN = 100.0
_LENGTH_SIGMA = 0.8
_P95 = 1.6448536269514722


@dataclass(frozen=True, slots=True)
class Prior:
    """What is taken for granted before anything was measured.

    ``first`` is the median time to the first token of a short prompt (for ``embed`` and ``infer``: to the result),
    ``prompt_token`` what each further prompt token adds to it, ``output_token`` the time per output token, ``load``
    what a cold load takes; all in seconds. ``sigma`` is the deviation of their logarithms.
    """

    first: float
    prompt_token: float
    output_token: float
    load: float
    sigma: float = 0.5


ON_DEVICE = Prior(first=0.08, prompt_token=0.004, output_token=0.025, load=1.5)
REMOTE = Prior(first=0.3, prompt_token=0.0002, output_token=0.015, load=1.0)
ON_DEVICE_ARRAYS = Prior(first=0.02, prompt_token=0.0003, output_token=0.0, load=1.0)
REMOTE_ARRAYS = Prior(first=0.1, prompt_token=0.0001, output_token=0.0, load=1.0)


class Estimator:
    """Learns time to first token (TTFT), time per output token (TPOT) and answer length, and predicts from them.

    ``clock`` is monotonic, in seconds. TTFT is learned relative to the prior's line over prompt tokens, so that one
    long prompt says something about short ones. The total is TTFT plus length × TPOT, summed as log-normals by their
    moments (Fenton 1960).
    """

    def __init__(self, prior: Prior, clock: Callable[[], float]) -> None:
        self._prior = prior
        self._clock = clock
        self._aged_at = self._observed_at = clock()
        self._first = LogNormalPosterior(1.0, prior.sigma)
        self._per_token = LogNormalPosterior(prior.output_token, prior.sigma) if prior.output_token else None
        self._length = LogNormalPosterior(_LENGTH_MEDIAN, _LENGTH_SIGMA)
        self._load = LogNormalPosterior(prior.load, prior.sigma)
        self._predicted: dict[tuple[int, int], Prediction] = {}

    def observe_first(self, prompt_tokens: int, seconds: float) -> None:
        """A first token (or a whole result) came after so long."""
        self._predicted.clear()
        self._observed_at = self._clock()
        relative = seconds / self._line(prompt_tokens)
        if self._first.score(relative) < RECOVERED:
            self._first.forget(0.5)
        self._first.observe(relative)

    def observe_no_first(self, prompt_tokens: int, seconds: float) -> None:
        """An attempt was stopped after so long without a first token."""
        self._predicted.clear()
        self._observed_at = self._clock()
        self._first.observe_at_least(seconds / self._line(prompt_tokens))

    def observe_rest(self, tokens: int, seconds: float) -> None:
        """So many tokens after the first took so long."""
        self._predicted.clear()
        if self._per_token is not None and tokens > 0 and seconds > 0:
            self._per_token.observe(seconds / tokens)

    def observe_length(self, tokens: int) -> None:
        """A whole answer had so many tokens."""
        self._predicted.clear()
        self._length.observe(max(1, tokens))

    def observe_load(self, seconds: float) -> None:
        """A cold load took so long."""
        self._predicted.clear()
        self._load.observe(seconds)

    @property
    def observations(self) -> float:
        """How many first tokens (or results) count now."""
        return self._first.observations

    def output_token(self) -> LogNormal | None:
        """The predicted time per output token; ``None`` for work with one result."""
        posterior = self._per_token
        return None if posterior is None else LogNormal(posterior.mu, posterior.sigma)

    def output_token_p95(self) -> float:
        """The predicted 95th percentile of the time per output token, in seconds."""
        posterior = self._per_token
        return 0.0 if posterior is None else math.exp(posterior.mu + _P95 * posterior.sigma)

    def predict(self, labels: Labels, waiting: float, loading: bool) -> Prediction:
        """What this request would take here from now, after ``waiting`` mean answers ahead of it."""
        self._age()
        tokens = _rounded_up(labels.prompt_tokens)
        if waiting or loading:
            return self._predict(tokens, labels.max_output_tokens, waiting, loading)
        key = (tokens, labels.max_output_tokens)
        prediction = self._predicted.get(key)
        if prediction is None:
            prediction = self._predicted[key] = self._predict(tokens, labels.max_output_tokens, 0.0, loading=False)
        return prediction

    def snapshot(self) -> JsonValue:
        """What was learned, and when."""
        return {
            "aged_at": self._aged_at,
            "observed_at": self._observed_at,
            **{name: posterior.snapshot() for name, posterior in self._posteriors().items()},
        }

    def restore(self, value: JsonValue, shift: float) -> None:
        """Take the snapshot of one with the same prior back, as if the time between had passed without a request.

        Raises `Unreadable`, and has then learned nothing.
        """
        stored, now = table(value), self._clock()
        self._predicted.clear()
        try:
            aged_at = number(stored, "aged_at") + shift
            observed_at = number(stored, "observed_at") + shift
            for name, posterior in self._posteriors().items():
                posterior.restore(table(stored, name))
        except Unreadable:
            for posterior in self._posteriors().values():
                posterior.forget(1.0)
            raise
        self._aged_at, self._observed_at = min(now, aged_at), min(now, observed_at)

    def _posteriors(self) -> dict[str, LogNormalPosterior]:
        named = {"first": self._first, "length": self._length, "load": self._load}
        return named if self._per_token is None else {**named, "per_token": self._per_token}

    def _predict(self, prompt_tokens: int, max_output_tokens: int, waiting: float, loading: bool) -> Prediction:
        known = self._first.observations >= KNOWN
        first = LogNormal(self._first.mu + math.log(self._line(prompt_tokens)), self._first.sigma)
        delay = math.exp(self._load.mu + 0.5 * self._load.sigma**2) if loading else 0.0
        if self._per_token is None:
            delay += waiting * first.median()
            whole = _sum(first, None, delay) if delay else first
            return Prediction(whole, whole, known)
        rest = self._rest(max_output_tokens)
        delay += waiting * (first.median() + rest.median())
        if delay:
            first = _sum(first, None, delay)
        return Prediction(first, _sum(first, rest, 0.0), known)

    def _age(self) -> None:
        now = self._clock()
        elapsed = now - self._aged_at
        if elapsed < _AGE_EVERY:
            return
        self._aged_at = now
        avoided = self._first.mu > math.log(2.0) and now - self._observed_at > AVOIDED_AFTER
        self._predicted.clear()
        share = 1.0 - 0.5 ** (elapsed / (AVOIDED_HALF_LIFE if avoided else HALF_LIFE))
        self._first.forget(share)
        if self._per_token is not None:
            self._per_token.forget(share)

    def _line(self, prompt_tokens: int) -> float:
        return self._prior.first + self._prior.prompt_token * prompt_tokens

    def _rest(self, max_output_tokens: int) -> LogNormal:
        assert self._per_token is not None
        limit = math.log(max(1, max_output_tokens))
        mu, sigma = self._length.mu, self._length.sigma
        if mu >= limit:
            mu, sigma = limit, 0.0
        elif mu + _P95 * sigma > limit:
            sigma = (limit - mu) / _P95
        return LogNormal(mu + self._per_token.mu, math.hypot(sigma, self._per_token.sigma))


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
