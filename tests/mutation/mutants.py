"""Small wrong changes to a module, by the operators of cosmic-ray."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
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


@dataclass(frozen=True, slots=True)
class Spot:
    """Where an operator can change a module: the so-manieth place for it. Making the mutant takes its time."""

    module: str
    path: Path
    operator: str
    occurrence: int

    def mutant(self) -> Mutant | None:
        """The module with the change made; ``None`` where that is no Python, as with a ``not`` before ``:=``."""
        code = self.path.read_text("utf-8")
        mutated = mutate_code(code, get_operator(f"core/{self.operator}")(), self.occurrence)
        try:
            ast.parse(mutated)
        except SyntaxError:
            return None
        lines = zip(code.splitlines(), mutated.splitlines(), strict=False)
        line, was, now = next((line, was, now) for line, (was, now) in enumerate(lines, 1) if was != now)
        return Mutant(self.module, self.operator, mutated, line, was.strip(), now.strip())


def spots(module: str, path: Path) -> Iterator[Spot]:
    """Every spot in the module at a path, in a fixed order."""
    code = path.read_text("utf-8")
    lines, nodes = code.splitlines(), list(ast_nodes(get_ast(code)))
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        found = [(node, line) for node in nodes for (line, _), _ in operator.mutation_positions(node)]
        for occurrence, (node, line) in enumerate(found):
            layout = lines[line - 1].startswith("@dataclass")  # slots and frozen: what it forbids, no program does
            star = node.parent is not None and node.parent.type == "parameters"  # of a signature, no multiplication
            if not layout and not star:
                yield Spot(module, path, name, occurrence)
