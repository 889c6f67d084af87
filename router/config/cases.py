"""Test cases of a policy: given facts in YAML, and what is expected of the plan for them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from ...core.decision import RefusalCode
from ...core.errors import ConfigurationError
from ...core.problem import Problem
from ...core.request import Labels, Priority, Task
from ...core.settings import Seconds
from ...core.suggestion import one_of
from ...policies import Policy
from ...policies.facts import (
    BackendFacts,
    DeviceFacts,
    Facts,
    LinkFacts,
    LinkState,
    LogNormal,
    NotReady,
    Prediction,
    SpendingFacts,
    TimeFacts,
)
from ...policies.places import Places
from .excerpt import Excerpts
from .reader import Reader
from .text import decode, read_bytes, unreadable
from .tree import mark_of, parse, show_all

_SPREAD = 0.25
_A_SECOND = Seconds(1.0)
_FIRST_TOKEN_SHARE = 0.2


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class GivenSettings:
    """A request's labels and the state of the world. What is left out is an everyday request on a good day."""

    task: Annotated[Task, "the kind of work"] = Task.GENERATE
    data_class: Annotated[tuple[str, ...], "the content's classes; none is content without one"] = ()
    prompt_tokens: Annotated[int, "the prompt's length"] = 100
    max_output_tokens: Annotated[int, "the most that may come back"] = 256
    latency_budget: Annotated[Seconds | None, "the caller's, if it gives one"] = None
    first_token_budget: Annotated[Seconds | None, "the caller's, if it gives one"] = None
    priority: Annotated[Priority, "the request's"] = Priority.NORMAL
    tags: Annotated[Mapping[str, str], "tags with their values"] = field(default_factory=_nothing)
    backend: Annotated[tuple[str, ...], "the caller's own choice of backends"] = ()
    process_in: Annotated[tuple[str, ...] | None, "the caller's own narrowing of places"] = None
    streaming: Annotated[bool, "the answer is streamed"] = False
    link: Annotated[LinkState, "how far the network reaches"] = LinkState.ONLINE
    metered: Annotated[bool, "the link costs by volume"] = False
    battery_percent: Annotated[int, "the battery's charge"] = 100
    has_battery: Annotated[bool, "the device has a battery"] = True
    charging: Annotated[bool, "the device is on power"] = True
    load_percent: Annotated[int, "of all processors"] = 0
    memory_free_mb: Annotated[int, "memory that is free"] = 4096
    thermal: Annotated[str, "`nominal`, `serious` or `critical`"] = "nominal"
    spent_today_cents: Annotated[int, "what requests have cost today, in US cents"] = 0
    spent_month_cents: Annotated[int, "what they have cost this month"] = 0
    time: Annotated[str, "local time, such as 22:30"] = "12:00"
    weekday: Annotated[str, "`monday` to `sunday`"] = "monday"
    down: Annotated[tuple[str, ...], "backends that cannot be reached now"] = ()
    latency: Annotated[Mapping[str, Seconds], "how long backends typically take in all; 1s when missing"] = field(
        default_factory=_nothing
    )


@dataclass(frozen=True, slots=True)
class ExpectSettings:
    """What must be so. What is left out is not looked at."""

    order: Annotated[tuple[str, ...] | None, "the backends in the order of the plan; `[]` is that nobody may"] = None
    refused: Annotated[Mapping[str, RefusalCode], "backends that are refused, each with its code"] = field(
        default_factory=_nothing
    )
    reasons: Annotated[Mapping[str, str], "backends, each with words of its reason"] = field(default_factory=_nothing)
    matched: Annotated[tuple[str, ...] | None, "the rules that match, in the file's order"] = None
    latency_budget: Annotated[Seconds | None, "the budget that holds"] = None
    first_token_budget: Annotated[Seconds | None, "the budget that holds"] = None
    hedge: Annotated[bool | None, "whether a second backend may be asked meanwhile"] = None
    queue: Annotated[bool | None, "whether it may be kept on disk"] = None


@dataclass(frozen=True, slots=True)
class CaseSettings:
    """One case."""

    name: Annotated[str, "what the case shows, in words"]
    expect: Annotated[ExpectSettings, "what must be so"]
    given: Annotated[GivenSettings, "the request and the state of the world"] = GivenSettings()


@dataclass(frozen=True, slots=True)
class CasesSettings:
    """A file of cases."""

    cases: Annotated[tuple[CaseSettings, ...], "the cases, each by itself"]


def load_cases(path: str | os.PathLike[str], policy: Policy) -> tuple[CaseSettings, ...]:
    """The cases of a file. Raises `ConfigurationError` with every mistake in it."""
    file = str(path)
    text = decode(read_bytes(path, "name a file of cases, such as edgewise.tests.yaml"), file)
    parsed = parse(text)
    excerpts = Excerpts(file, text, parsed.texts)
    if parsed.tree is None and not parsed.complaints:
        raise unreadable(file, "is empty", "begin with `cases:`")
    complaints = list(parsed.complaints)
    problems: list[Problem] = []
    cases: tuple[CaseSettings, ...] = ()
    if parsed.tree is not None:
        show_all(parsed.tree)
        reader = Reader(Path(path).absolute().parent, {})
        read = reader.value(CasesSettings, parsed.tree, (), parsed.tree.mark)
        complaints += reader.complaints
        if not complaints:
            cases = read.cases
            marks = [(each, mark_of(parsed.tree, each.path)) for each in _judge(cases, policy)]
            problems = [replace(each, position=excerpts.position(mark)) for each, mark in marks]
    problems += [
        Problem(each.sentence, each.mend, each.path, position=excerpts.position(each.mark)) for each in complaints
    ]
    if problems:
        raise ConfigurationError(sorted(problems, key=lambda each: each.position.line if each.position else 0))
    return cases


def facts_of(given: GivenSettings, policy: Policy) -> Facts:
    """The facts that a case gives. Raises `InvalidRequest` for a place that is not known.

    A backend's total time is log-normal about its typical one, the first token comes after a fifth of it.
    """
    hour, minute = clock(given.time) or (12, 0)
    labels = Labels(
        task=given.task,
        data_classes=given.data_class,
        unclassed=not given.data_class,
        latency_budget=given.latency_budget,
        first_token_budget=given.first_token_budget,
        max_output_tokens=given.max_output_tokens,
        prompt_tokens=given.prompt_tokens,
        priority=given.priority,
        tags=given.tags,
        residency=None if given.process_in is None else policy.residency({"process_in": given.process_in}),
        backends=given.backend,
        streaming=given.streaming,
    )
    device = DeviceFacts(
        given.battery_percent,
        given.has_battery,
        given.charging,
        given.load_percent,
        given.memory_free_mb,
        given.thermal,
    )
    return Facts(
        request_id="case",
        labels=labels,
        link=LinkFacts(given.link, given.metered, 100, 60.0),
        device=device,
        time=TimeFacts(hour, minute, given.weekday),
        backends=tuple(_backend(terms.name, given) for terms in policy.terms),
        spending=SpendingFacts(given.spent_today_cents, given.spent_month_cents),
    )


def _backend(name: str, given: GivenSettings) -> BackendFacts:
    total = given.latency.get(name, _A_SECOND)
    prediction = Prediction(
        LogNormal(math.log(total * _FIRST_TOKEN_SHARE), _SPREAD), LogNormal(math.log(total), _SPREAD)
    )
    down = NotReady(RefusalCode.UNREACHABLE, "it cannot be reached now") if name in given.down else None
    return BackendFacts(name, prediction, down)


def _judge(cases: Sequence[CaseSettings], policy: Policy) -> list[Problem]:
    """Names in cases that the policy does not know: such a case would pass or fail for the wrong reason."""
    problems: list[Problem] = []
    backends = [terms.name for terms in policy.terms]
    rules = [rule.name for rule in policy.rules]
    for at, case in enumerate(cases):
        given, expect = case.given, case.expect
        for part, key, names, known in (
            ("given", "data_class", given.data_class, list(policy.walls.by_class)),
            ("given", "backend", given.backend, backends),
            ("given", "down", given.down, backends),
            ("given", "latency", given.latency, backends),
            ("expect", "order", expect.order or (), backends),
            ("expect", "refused", expect.refused, backends),
            ("expect", "reasons", expect.reasons, backends),
            ("expect", "matched", expect.matched or (), rules),
        ):
            for position, name in enumerate(names):
                if name not in known:
                    last = name if isinstance(names, Mapping) else position
                    mend = one_of(name, known)
                    problems.append(Problem(f"the policy knows no {name!r}", mend, ("cases", at, part, key, last)))
        path = ("cases", at, "given")
        if clock(given.time) is None:
            problems.append(Problem(f"{given.time!r} is no time", "write one such as 22:30", (*path, "time")))
        for name, seconds in given.latency.items():
            if seconds <= 0:
                problems.append(Problem("nothing takes no time", "write one such as 800ms", (*path, "latency", name)))
        _judge_places(given, policy.places, at, problems)
    return problems


def _judge_places(given: GivenSettings, places: Places, at: int, problems: list[Problem]) -> None:
    places.read(given.process_in or (), ("cases", at, "given", "process_in"), problems)


def clock(text: str) -> tuple[int, int] | None:
    """Hour and minute of a text such as ``22:30``; ``None`` where it is none."""
    hour, colon, minute = text.partition(":")
    if not (colon and hour.isdecimal() and minute.isdecimal() and int(hour) < 24 and int(minute) < 60):
        return None
    return int(hour), int(minute)
