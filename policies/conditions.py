"""Conditions: CEL over declared, typed facts, compiled one by one, so that each mistake has its place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from cel_expr_python import cel

from ..core.problem import Path, Problem, Severity
from ..core.request import Priority, Task
from ..core.suggestion import one_of
from .expression import Node, read_tree
from .facts import Facts, LinkState

_LONGEST = 4000
_LONGEST_DURATION = 87_660_000 * 3600.0
"""Seconds: ten thousand years, the most that the library takes."""


@dataclass(slots=True)
class Situation:
    """What conditions look at: the facts, and what the policy made of the labels before any rule."""

    facts: Facts
    data_class: str
    data_classes: tuple[str, ...]
    tags: tuple[tuple[str, str], ...]
    latency_budget: float
    first_token_budget: float


def _duration(seconds: float) -> timedelta:
    return timedelta(seconds=min(seconds, _LONGEST_DURATION))


@dataclass(frozen=True, slots=True)
class _Variable:
    type: Any  # cel.Type: the library ships no types
    path: str
    """Where it stands in a `Situation`, as a value that can be hashed (fast: an enum's own text, not the enum).

    Durations are seconds.
    """
    convert: Callable[[Any], Any] | None = None
    """From there to what the library takes."""
    values: frozenset[str] | None = None
    """All the texts it can be, where they are known."""


_INT, _BOOL, _STRING, _DURATION = cel.Type.INT, cel.Type.BOOL, cel.Type.STRING, cel.Type.DURATION
_WEEKDAYS = frozenset({"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"})

VARIABLES: Mapping[str, _Variable] = {
    "request.task": _Variable(_STRING, "facts.labels.task._value_", None, frozenset(map(str, Task))),
    "request.data_class": _Variable(_STRING, "data_class"),
    "request.data_classes": _Variable(cel.Type.List(_STRING), "data_classes", list),
    "request.priority": _Variable(_STRING, "facts.labels.priority._value_", None, frozenset(map(str, Priority))),
    "request.tags": _Variable(cel.Type.Map(_STRING, _STRING), "tags", dict),
    "request.prompt_tokens": _Variable(_INT, "facts.labels.prompt_tokens"),
    "request.max_output_tokens": _Variable(_INT, "facts.labels.max_output_tokens"),
    "request.latency_budget": _Variable(_DURATION, "latency_budget", _duration),
    "request.first_token_budget": _Variable(_DURATION, "first_token_budget", _duration),
    "connectivity.state": _Variable(_STRING, "facts.link.state._value_", None, frozenset(map(str, LinkState))),
    "connectivity.metered": _Variable(_BOOL, "facts.link.metered"),
    "connectivity.confidence_percent": _Variable(_INT, "facts.link.confidence_percent"),
    "connectivity.age": _Variable(_DURATION, "facts.link.age", _duration),
    "device.battery_percent": _Variable(_INT, "facts.device.battery_percent"),
    "device.has_battery": _Variable(_BOOL, "facts.device.has_battery"),
    "device.charging": _Variable(_BOOL, "facts.device.charging"),
    "device.load_percent": _Variable(_INT, "facts.device.load_percent"),
    "device.memory_free_mb": _Variable(_INT, "facts.device.memory_free_mb"),
    "device.thermal": _Variable(_STRING, "facts.device.thermal"),
    "spending.today_cents": _Variable(_INT, "facts.spending.today_cents"),
    "spending.month_cents": _Variable(_INT, "facts.spending.month_cents"),
    "time.hour": _Variable(_INT, "facts.time.hour"),
    "time.minute": _Variable(_INT, "facts.time.minute"),
    "time.weekday": _Variable(_STRING, "facts.time.weekday", None, _WEEKDAYS),
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that the policy at hand declares, which literals in conditions must be among."""

    data_classes: frozenset[str]
    tags: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition that compiles, is boolean and speaks of declared names only.

    ``reads`` are its variables; for one that it only compares with whole numbers, those numbers, else ``None``.
    """

    text: str
    program: Any  # cel.Expression
    reads: Mapping[str, frozenset[int] | None]

    def outcome(self, data: Mapping[str, Any]) -> bool | None:
        """Whether it holds; ``None`` if evaluating it failed."""
        value = self.program.eval(data=data).value()
        return value if isinstance(value, bool) else None


def compile_condition(text: str, path: Path, vocabulary: Vocabulary, problems: list[Problem]) -> Condition | None:
    """The condition, or ``None`` and its mistakes."""
    if len(text) > _LONGEST:
        problems.append(Problem(f"the condition is longer than {_LONGEST} characters", "split the rule in two", path))
        return None
    try:
        program = _environment().compile(text)
    except RuntimeError as error:
        problems += _compile_problems(str(error), text, path)
        return None
    if program.return_type() != _BOOL:
        kind = program.return_type().name().lower()
        problems.append(Problem(f"the condition is {kind}, not true or false", "compare it with something", path))
        return None
    tree = read_tree(program.serialize())
    mistakes = [*_literal_problems(tree, path, vocabulary), *_tag_problems(tree, path, vocabulary)]
    problems += mistakes
    condition = Condition(text, program, _reads(tree))
    if not condition.reads and not mistakes:
        problems.append(_constant(condition, path))
    return None if any(problem.severity is Severity.ERROR for problem in mistakes) else condition


def join(conditions: Iterable[Condition]) -> Any:  # cel.Expression
    """One program whose value is the list of theirs; ``None`` where they are too deep or too long taken together."""
    try:
        # The newlines end a comment that a condition may close with.
        return _environment().compile("[" + ",\n".join(f"({condition.text}\n)" for condition in conditions) + "]")
    except RuntimeError:
        return None


@cache
def _environment() -> Any:  # cel.Env
    return cel.NewEnv(variables={name: variable.type for name, variable in VARIABLES.items()})


_COMPARISONS = frozenset({"_<_", "_<=_", "_>_", "_>=_", "_==_", "_!=_"})


def _reads(tree: Node) -> dict[str, frozenset[int] | None]:
    """Each variable in the tree with the numbers that it is compared with, ``None`` if anything else happens to it."""
    numbers: dict[str, set[int]] = {}
    compared: Counter[str] = Counter()
    for node in tree.walk():
        if node.kind == "call" and node.value in _COMPARISONS:
            for side, other in (node.children, node.children[::-1]):
                if side.kind == "name" and other.kind == "number":
                    numbers.setdefault(side.value, set()).add(int(other.value))
                    compared[side.value] += 1
    names = Counter(node.value for node in tree.walk() if node.kind == "name" and node.value in VARIABLES)
    return {name: frozenset(numbers[name]) if compared[name] == count else None for name, count in names.items()}


def _constant(condition: Condition, path: Path) -> Problem:
    holds = condition.outcome({})
    what = "always fails" if holds is None else f"is always {str(holds).lower()}"
    mend = "remove `when`" if holds else "compare a fact, such as request.prompt_tokens, or remove the rule"
    return Problem(f"the condition reads no fact: it {what}", mend, path, Severity.WARNING)


_ERROR = re.compile(r"^(?:INVALID_ARGUMENT: )?ERROR: <input>:(\d+):(\d+): (.*)$", re.MULTILINE)
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")


def _compile_problems(report: str, text: str, path: Path) -> list[Problem]:
    found = [
        _compile_problem(_offset(text, int(line), int(column)), sentence, text, path)
        for line, column, sentence in _ERROR.findall(report)
    ]
    return found or [Problem("the condition is nested too deeply", "split the rule in two", path)]


def _compile_problem(offset: int, report: str, text: str, path: Path) -> Problem:
    if (match := _UNDECLARED.search(report)) is not None:
        name = match[1]
        start = max(0, offset - len(name.rpartition(".")[0]))
        if text.startswith(name, start):
            offset = start
        return Problem(f"there is no {name!r} to look at", one_of(name, VARIABLES), path, offset=offset)
    sentence = report.removesuffix(" [INVALID_ARGUMENT]").partition(" expecting ")[0]
    if "no matching overload" in sentence:
        mend = "numbers are whole: write 20, not 20.0" if "double" in sentence else "compare values of one type"
        return Problem(f"the types do not fit: {sentence}", mend, path, offset=offset)
    if "'<EOF>'" in sentence:
        sentence = "Syntax error: the condition ends too early" if offset >= len(text.rstrip()) else sentence
    return Problem(sentence, "write a condition in CEL, such as `request.prompt_tokens > 3000`", path, offset=offset)


def _offset(text: str, line: int, column: int) -> int:
    return sum(len(each) + 1 for each in text.split("\n")[: line - 1]) + column - 1


def _literal_problems(tree: Node, path: Path, vocabulary: Vocabulary) -> Iterable[Problem]:
    known = {name: variable.values for name, variable in VARIABLES.items() if variable.values is not None}
    known["request.data_class"] = known["request.data_classes"] = vocabulary.data_classes
    for node in tree.walk():
        if node.kind != "call" or node.value not in ("_==_", "_!=_", "@in"):
            continue
        for side, other in (node.children, node.children[::-1]):
            values = known.get(side.value) if side.kind == "name" else _tag_values(side, vocabulary)
            if values is None:
                continue
            for literal in other.children if other.kind == "list" else (other,):
                if literal.kind == "text" and literal.value not in values:
                    what = side.value if side.kind == "name" else f"the tag {side.value or 'compared'}"
                    sentence = f"{what} is never {literal.value!r}"
                    mend = one_of(literal.value, values)
                    yield Problem(sentence, mend, path, offset=literal.offset, rests_on=_declared(side, literal.value))


def _tag_problems(tree: Node, path: Path, vocabulary: Vocabulary) -> Iterable[Problem]:
    for node in tree.walk():
        tag = _tag(node)
        if tag is not None and tag.value not in vocabulary.tags:
            mend = f"declare it: `tags: {{{tag.value}: [its values]}}`, or {one_of(tag.value, vocabulary.tags)}"
            sentence = f"the tag {tag.value!r} is not declared"
            yield Problem(sentence, mend, path, offset=tag.offset, rests_on=(("tags", tag.value),))


def _declared(side: Node, literal: str) -> tuple[Path, ...]:
    """Where the policy would have to say that this can be so."""
    if side.kind != "name":
        return (("tags", tag.value),) if (tag := _tag(side)) is not None else ()
    return (("data_classes", literal),) if side.value.startswith("request.data_class") else ()


def _tag_values(node: Node, vocabulary: Vocabulary) -> frozenset[str] | None:
    tag = _tag(node)
    return frozenset(vocabulary.tags[tag.value]) if tag is not None and tag.value in vocabulary.tags else None


def _tag(node: Node) -> Node | None:
    """The node that names a tag, where this one looks a tag up."""
    if node.kind == "select" and _is_tags(node.children[0]):
        return node
    if node.kind == "call" and node.value == "_[_]" and _is_tags(node.children[0]):
        return node.children[1] if node.children[1].kind == "text" else None
    if node.kind == "call" and node.value == "@in" and _is_tags(node.children[1]):
        return node.children[0] if node.children[0].kind == "text" else None
    return None


def _is_tags(node: Node) -> bool:
    return node.kind == "name" and node.value == "request.tags"
