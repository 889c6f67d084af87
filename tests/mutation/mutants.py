"""Small wrong changes to a module, by the operators of cosmic-ray."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

OPERATORS = (
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBinaryOperator_Mul_Div",
    "ReplaceBinaryOperator_Div_Mul",
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_Lt_GtE",
    "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_LtE_Gt",
    "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_Gt_LtE",
    "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_GtE_Lt",
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "AddNot",
    "NumberReplacer",
    "ZeroIterationForLoop",
)
"""Those that change what a program does. Of the many arithmetic replacements, the inverse alone: the others break as
loudly. None of the bitwise ones, which would hit unions of types."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong version of a module. ``line`` is the first that differs, ``was`` and ``now`` what stands there."""

    module: str
    operator: str
    source: str
    line: int
    was: str
    now: str


def mutants(module: str, path: Path) -> Iterator[Mutant]:
    """Every mutant of the module at a path, in a fixed order."""
    code = path.read_text("utf-8")
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        occurrence = 0
        while (mutated := mutate_code(code, operator, occurrence)) is not None:
            occurrence += 1
            if name != "ReplaceBinaryOperator_Mul_Div" or _products(mutated) < _products(code):
                line, was, now = _difference(code, mutated)
                if was.startswith("@dataclass"):  # slots and frozen: what the layout forbids, no program does
                    continue
                yield Mutant(module, name, mutated, line, was, now)


def _products(code: str) -> int:
    """How many multiplications: the star of a signature is none, though the operator takes it for one."""
    try:
        return sum(isinstance(node, ast.Mult) for node in ast.walk(ast.parse(code)))
    except SyntaxError:  # what ``*args`` becomes
        return sys.maxsize


def _difference(code: str, mutated: str) -> tuple[int, str, str]:
    lines = zip(code.splitlines(), mutated.splitlines(), strict=False)
    return next((line, was.strip(), now.strip()) for line, (was, now) in enumerate(lines, 1) if was != now)
