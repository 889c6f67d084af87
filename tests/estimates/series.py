"""What calls took, one after another: series made here, and recorded ones."""

from __future__ import annotations

import csv
import heapq
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

_LONG_RUN = 1500
"""A recorded series goes on from its beginning until it has so many calls: of 150 answers one is two thirds of a point,
and even true percentiles would miss by two points in every third such series."""

_LENGTH = 3000
_UPLOAD = 0.8
"""Megabits of a request with a picture."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call. ``first`` and ``last`` are seconds from ``at`` to its first and its last token."""

    at: float
    first: float
    last: float
    prompt_tokens: int = 500
    tokens: int = 150


Series = dict[str, list[Call]]


def made() -> Series:
    """Series whose times shift, drift, have heavy tails, two peaks, bad spells, pauses."""
    return {
        "steady": _calls(source.lognormvariate(-1.0, 0.4) for source in _each("steady")),
        "steps, ten times and back": _calls(
            source.lognormvariate(math.log((0.2, 2.0, 0.6, 5.0)[at // 200 % 4]), 0.3)
            for at, source in enumerate(_each("steps"))
        ),
        "random walk": _calls(_walk(random.Random("walk"))),
        "day and night": _calls(
            source.lognormvariate(-1.0 + 1.2 * math.sin(at / 80), 0.25) for at, source in enumerate(_each("day"))
        ),
        "Pareto tail": _calls(0.2 * source.paretovariate(1.5) for source in _each("pareto")),
        "every tenth is slow": _calls(
            source.lognormvariate(*((0.0, 0.15) if source.random() < 0.9 else (2.0, 0.3))) for source in _each("two")
        ),
        "bad spells": _calls(_spells(random.Random("spells"))),
        "evenly spread": _calls(source.uniform(0.1, 0.5) for source in _each("even")),
        "long and short prompts": _prompts(random.Random("prompts")),
        "one call every half minute": _calls(
            (source.lognormvariate(-1.0, 0.3) for source in _each("rare")), spacing=30.0
        ),
        "slow, and one call every half minute": _calls(
            (source.lognormvariate(2.0, 0.3) for source in _each("slow")), spacing=30.0
        ),
        "a radio that sleeps": _radio(random.Random("radio")),
        "a crowd that comes and goes": _queued(_crowd(random.Random("crowd")), slots=20),
    }


def recorded(folder: Path) -> Series:
    """The recorded series in a folder laid out like the one that ``--traces`` names."""
    services = {path.stem: _service(path) for path in sorted((folder / "llm_latency").glob("*.json"))}
    network = {path.name: _transfers(path) for path in sorted((folder / "network").iterdir())}
    return {
        **{name: _long(calls) for name, calls in services.items()},
        "the services one after another": _joined(list(services.values())),
        **{name: _long(calls) for name, calls in network.items()},
        "the networks one after another": _joined(list(network.values())),
        **{
            f"Azure's requests at {slots} slots": _queued(_arrivals(folder / "AzureLLMInferenceTrace_conv.csv"), slots)
            for slots in (26, 30)
        },
    }


def _each(name: str) -> Iterator[random.Random]:
    source = random.Random(name)
    return (source for _ in range(_LENGTH))


def _calls(firsts: Iterator[float], spacing: float = 1.0) -> list[Call]:
    """Calls with these times to the first token, and an answer whose length and pace vary."""
    source = random.Random("answers")
    calls = []
    for at, first in enumerate(firsts):
        tokens = max(2, round(source.lognormvariate(4.5, 0.6)))
        rate = source.lognormvariate(math.log(0.02), 0.2)
        calls.append(Call(at * spacing, first, first + (tokens - 1) * rate, tokens=tokens))
    return calls


def _walk(source: random.Random) -> Iterator[float]:
    level = 0.0
    for _ in range(_LENGTH):
        level = 0.999 * level + source.gauss(0.0, 0.05)
        yield 0.4 * math.exp(level + source.gauss(0.0, 0.2))


def _spells(source: random.Random) -> Iterator[float]:
    bad = False
    for _ in range(_LENGTH):
        bad = source.random() < (0.8 if bad else 0.02)
        yield source.lognormvariate(math.log(6.0 if bad else 0.3), 0.3)


def _prompts(source: random.Random) -> list[Call]:
    calls = []
    for at in range(_LENGTH):
        prompt = source.choice((20, 200, 2000, 6000))
        first = (0.2 + 0.0003 * prompt) * source.lognormvariate(0.0, 0.3)
        calls.append(Call(float(at), first, first + 3.0 * source.lognormvariate(0.0, 0.3), prompt_tokens=prompt))
    return calls


def _radio(source: random.Random) -> list[Call]:
    """Bursts of calls; the first of each comes after a pause and waits a second for the radio."""
    calls, now = [], 0.0
    for at in range(_LENGTH):
        sleeps = at % 4 == 0
        now += source.uniform(20.0, 60.0) if sleeps else 2.0
        first = source.lognormvariate(-1.2, 0.3) + (source.uniform(0.8, 1.4) if sleeps else 0.0)
        calls.append(Call(now, first, first + 2.0 * source.lognormvariate(0.0, 0.3)))
    return calls


def _service(path: Path) -> list[Call]:
    answers = [each for each in json.loads(path.read_text()) if not each["error_code"]]
    return [
        Call(
            at * 1.0,
            each["ttft_s"],
            each["end_to_end_latency_s"],
            each["number_input_tokens"],
            each["number_output_tokens"],
        )
        for at, each in enumerate(answers)
    ]


def _transfers(path: Path) -> list[Call]:
    """An upload at each recorded instant, at the bandwidth of that instant."""
    calls = []
    for line in path.read_text().splitlines():
        at, bandwidth = map(float, line.split())
        first = 0.3 + _UPLOAD / max(0.01, bandwidth)
        calls.append(Call(at, first, first + 2.0))
    return calls


def _crowd(source: random.Random) -> Iterator[tuple[float, int, int]]:
    """Half a minute of more than 20 slots can take, and half a minute of less, in turn."""
    now = 0.0
    for _ in range(2 * _LENGTH):
        now += source.expovariate(7.0 if now % 60.0 < 30.0 else 4.0)
        yield now, source.randint(50, 2000), max(2, round(source.lognormvariate(5.0, 0.6)))


def _arrivals(path: Path) -> Iterator[tuple[float, int, int]]:
    """When each recorded request came, its prompt's tokens and its answer's."""
    begun: datetime | None = None
    with path.open() as lines:
        for row in csv.DictReader(lines):
            arrived = datetime.fromisoformat(row["TIMESTAMP"][:26])
            begun = begun or arrived
            yield (arrived - begun).total_seconds(), int(row["ContextTokens"]), int(row["GeneratedTokens"])


def _queued(arrivals: Iterator[tuple[float, int, int]], slots: int) -> list[Call]:
    """Requests at a service of so many slots, with the waiting that their own arrivals make."""
    free = [0.0] * slots
    calls: list[Call] = []
    for at, prompt, tokens in arrivals:
        start = max(at, heapq.heappop(free))
        first, last = start + 0.05 + 0.0002 * prompt, start + 0.05 + 0.0002 * prompt + 0.02 * (tokens - 1)
        heapq.heappush(free, last)
        calls.append(Call(at, first - at, last - at, prompt, tokens))
    return calls


def _long(calls: Sequence[Call]) -> list[Call]:
    return _joined([calls] * -(-_LONG_RUN // len(calls)))


def _joined(series: Sequence[Sequence[Call]]) -> list[Call]:
    joined: list[Call] = []
    for calls in series:
        after = joined[-1].at + 1.0 if joined else 0.0
        joined += [replace(each, at=after + each.at) for each in calls]
    return joined
