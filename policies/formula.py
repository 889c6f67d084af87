"""A condition as logic: what is known of it once the data classes are, and nothing else is.

Every comparison of a fact counts as free: it may be true or false, whatever the others are. What can happen to a
request can therefore happen here; what cannot happen here can never happen to a request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from .expression import Node

MOST_STEPS = 100_000
"""Formulas looked at until an answer is 'possible', because it would take too long to say."""

Assignment = Mapping[str, bool]
"""What each atom is taken to be, by its text."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A part of a condition that is true or false. Equal texts are one atom: they come out alike."""

    text: str


@dataclass(frozen=True, slots=True)
class Combined:
    """``operator`` is ``and``, ``or`` or ``not``."""

    operator: str
    parts: tuple[Formula, ...]


Formula = bool | Atom | Combined

_OPERATORS = {"_&&_": "and", "_||_": "or", "!_": "not"}
_INFIX = {
    **{f"_{sign}_": sign for sign in ("<", "<=", ">", ">=", "==", "!=", "+", "-", "*", "/", "%", "&&", "||")},
    "@in": "in",
}
_LOOKS_AT_ONE_CLASS = "request.data_class"
_LOOKS_AT_CLASSES = "request.data_classes"


def membership(data_class: str) -> str:
    """The text of the atom that says whether a class is among the request's."""
    return f"{json.dumps(data_class, ensure_ascii=False)} in {_LOOKS_AT_CLASSES}"


_NUMBERS = count()
"""What cannot be told apart by its text gets a number, so that no two are confused, nor those of two policies."""


def read_formula(tree: Node, data_class: str) -> Formula:
    """The condition where ``request.data_class`` is this one."""
    if tree.kind == "call" and tree.value in _OPERATORS:
        return Combined(_OPERATORS[tree.value], tuple(read_formula(each, data_class) for each in tree.children))
    known = _about_class(tree, data_class)
    if known is not None:
        return known
    text = _text(tree)
    if any(each.kind == "other" for each in tree.walk()):
        text += f" #{next(_NUMBERS)}"
    if looks_at_one_class(tree):
        text += f" (as {data_class})"
    return Atom(text)


def looks_at_one_class(tree: Node) -> bool:
    """Whether the condition reads ``request.data_class``: else its formula is the same for every class."""
    return any(each.kind == "name" and each.value == _LOOKS_AT_ONE_CLASS for each in tree.walk())


def _about_class(node: Node, data_class: str) -> bool | None:
    """The value of a comparison of the request's one class with literals; ``None`` for anything else."""
    if node.kind != "call" or len(node.children) != 2:
        return None
    left, right = node.children
    if node.value in ("_==_", "_!=_"):
        for side, other in ((left, right), (right, left)):
            if side.kind == "name" and side.value == _LOOKS_AT_ONE_CLASS and other.kind == "text":
                return (other.value == data_class) is (node.value == "_==_")
    listed = node.value == "@in" and right.kind == "list" and all(each.kind == "text" for each in right.children)
    if listed and left.kind == "name" and left.value == _LOOKS_AT_ONE_CLASS:
        return data_class in [each.value for each in right.children]
    return None


def evaluate(formula: Formula, assignment: Assignment) -> bool | None:
    """Its value, ``None`` while the atoms that are known leave it open."""
    if isinstance(formula, bool):
        return formula
    if isinstance(formula, Atom):
        return assignment.get(formula.text)
    values = [evaluate(part, assignment) for part in formula.parts]
    if formula.operator == "not":
        (value,) = values
        return None if value is None else not value
    decisive = formula.operator == "or"
    if decisive in values:
        return decisive
    return None if None in values else not decisive


class Effort:
    """How many formulas may still be looked at, by all who share it."""

    def __init__(self, steps: int = MOST_STEPS) -> None:
        self.left = steps


def solve(wanted: Sequence[tuple[Formula, bool]], fixed: Assignment, effort: Effort | None = None) -> Assignment | None:
    """How the atoms that are not fixed must be for every formula to have its value; ``None`` if that cannot be.

    Where it would take too long to say, the answer is what is fixed: 'possible' is then a guess, and 'never' is not.
    """
    effort = effort or Effort()
    branches: list[tuple[Assignment, Sequence[tuple[Formula, bool]]]] = [(fixed, wanted)]
    while branches:
        assignment, before = branches.pop()
        open_ones: list[tuple[Formula, bool]] = []
        for formula, value in before:
            found = evaluate(formula, assignment)
            if found is None:
                open_ones.append((formula, value))
            elif found is not value:
                break
        else:
            if not open_ones:
                return assignment
            formula, value = open_ones[0]
            text = next(text for text in _atoms(formula) if text not in assignment)
            branches += [({**assignment, text: each}, open_ones) for each in (not value, value)]
        effort.left -= len(before)
        if effort.left < 0:
            return fixed
    return None


def _atoms(formula: Formula) -> Iterator[str]:
    if isinstance(formula, Atom):
        yield formula.text
    elif isinstance(formula, Combined):
        for part in formula.parts:
            yield from _atoms(part)


def _text(node: Node) -> str:
    match node.kind:
        case "name" | "number":
            return node.value
        case "text":
            return json.dumps(node.value, ensure_ascii=False)
        case "select":
            (whole,) = node.children
            return f"{_text(whole)}.{node.value}"
        case "list":
            return "[" + ", ".join(map(_text, node.children)) + "]"
        case "call" if node.value == "_[_]":
            whole, key = node.children
            return f"{_text(whole)}[{_text(key)}]"
        case "call" if node.value in _INFIX and len(node.children) == 2:
            left, right = (_operand(each) for each in node.children)
            return f"{left} {_INFIX[node.value]} {right}"
        case "call":
            return f"{node.value}({', '.join(map(_text, node.children))})"
    return "…"


def _operand(node: Node) -> str:
    """A side of an operator: in brackets where it is one itself, so that different trees have different texts."""
    inner = node.kind == "call" and node.value in _INFIX
    return f"({_text(node)})" if inner else _text(node)
