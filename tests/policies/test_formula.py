"""Conditions as logic."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.policies.expression import Node
from edgewise.policies.formula import Atom, Combined, Effort, Formula, evaluate, membership, read_formula, solve

from .test_expression import tree

A, B = Atom("a"), Atom("b")


def combined(operator: str, *parts: Formula) -> Combined:
    return Combined(operator, parts)


formulas = st.recursive(
    st.sampled_from([A, B, Atom("c"), True, False]),
    lambda inner: st.one_of(
        st.builds(combined, st.just("not"), inner),
        st.builds(combined, st.sampled_from(["and", "or"]), inner, inner),
    ),
    max_leaves=8,
)


def truth(formula: Formula, assignment: dict[str, bool]) -> bool:
    if isinstance(formula, bool):
        return formula
    if isinstance(formula, Atom):
        return assignment[formula.text]
    values = [truth(part, assignment) for part in formula.parts]
    if formula.operator == "not":
        return not values[0]
    return all(values) if formula.operator == "and" else any(values)


@given(formula=formulas, other=formulas, value=st.booleans())
def test_a_solution_is_found_where_there_is_one_and_is_one(formula: Formula, other: Formula, value: bool) -> None:
    worlds = [dict(zip("abc", each, strict=True)) for each in product([False, True], repeat=3)]
    fitting = [world for world in worlds if truth(formula, world) is value and truth(other, world)]
    found = solve([(formula, value), (other, True)], {})
    assert (found is not None) is bool(fitting)
    if found is not None:
        assert all(
            (truth(formula, world), truth(other, world)) == (value, True)
            for world in worlds
            if world.items() >= found.items()
        )


@given(formula=formulas, assignment=st.dictionaries(st.sampled_from("abc"), st.booleans()))
def test_what_is_known_of_a_formula_holds_in_every_world(formula: Formula, assignment: dict[str, bool]) -> None:
    rest = [name for name in "abc" if name not in assignment]
    values = {
        truth(formula, {**assignment, **dict(zip(rest, each, strict=True))})
        for each in product([False, True], repeat=len(rest))
    }
    found = evaluate(formula, assignment)
    assert found is None or values == {found}
    if not rest:
        assert values == {found}


def test_what_is_fixed_stays_so_and_too_much_effort_means_possible() -> None:
    assert solve([(combined("and", A, B), True)], {"a": False}) is None
    assert solve([(combined("or", A, B), True)], {"a": False}) == {"a": False, "b": True}
    never: list[tuple[Formula, bool]] = [
        (combined("and", *(Atom(str(at)) for at in range(9))), True),
        (Atom("8"), False),
    ]
    assert solve(never, {}) is None
    effort = Effort(3)
    assert solve(never, {"x": True}, effort) == {"x": True}
    assert effort.left < 0


@pytest.mark.parametrize(
    ("text", "as_health", "as_public"),
    [
        ('request.data_class == "health"', True, False),
        ('"health" == request.data_class', True, False),
        ('request.data_class != "health"', False, True),
        ('request.data_class in ["health", "other"]', True, False),
        ("device.charging", Atom("device.charging"), Atom("device.charging")),
        ('"health" in request.data_classes', Atom(membership("health")), Atom(membership("health"))),
        ('request.data_class < "h"', Atom('request.data_class < "h" (as health)'), None),
        (
            "request.data_class in request.data_classes",
            Atom("request.data_class in request.data_classes (as health)"),
            None,
        ),
        ('time.weekday == "health"', Atom('time.weekday == "health"'), Atom('time.weekday == "health"')),
        ('time.weekday in ["health"]', Atom('time.weekday in ["health"]'), Atom('time.weekday in ["health"]')),
        ("request.data_class == time.weekday", Atom("request.data_class == time.weekday (as health)"), None),
    ],
)
def test_a_comparison_of_the_one_class_is_known(text: str, as_health: Formula, as_public: Formula | None) -> None:
    assert read_formula(tree(text), "health") == as_health
    if as_public is not None:
        assert read_formula(tree(text), "public") == as_public


@pytest.mark.parametrize(
    ("text", "atom"),
    [
        ("request.tags.app == 'x'", 'request.tags.app == "x"'),
        ("request.tags['app'] == 'x'", 'request.tags["app"] == "x"'),
        ("time.hour - (time.minute - 1) > 2", "(time.hour - (time.minute - 1)) > 2"),
        ("(time.hour - time.minute) - 1 > 2", "((time.hour - time.minute) - 1) > 2"),
        ("time.weekday.startsWith('m')", 'startsWith(time.weekday, "m")'),
        ("-time.hour > 3", "-_(time.hour) > 3"),
    ],
)
def test_different_comparisons_have_different_texts(text: str, atom: str) -> None:
    assert read_formula(tree(text), "") == Atom(atom)


def test_operators_combine_and_what_cannot_be_told_by_its_text_is_never_the_same() -> None:
    both = "device.charging && !(connectivity.metered || time.hour > 1)"
    assert read_formula(tree(both), "") == combined(
        "and",
        Atom("device.charging"),
        combined("not", combined("or", Atom("connectivity.metered"), Atom("time.hour > 1"))),
    )
    macro = tree("request.data_classes.all(c, c == 'x')")
    assert read_formula(macro, "") != read_formula(macro, "")
    assert read_formula(Node("other", "", 0), "") != read_formula(Node("other", "", 0), "")
