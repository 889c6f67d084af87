"""Conditions as trees: what the library serialises is read back whole."""

from __future__ import annotations

import struct

import pytest
from cel_expr_python import cel

from edgewise.policies.conditions import VARIABLES
from edgewise.policies.expression import Node, read_tree

ENVIRONMENT = cel.NewEnv(variables={name: variable.type for name, variable in VARIABLES.items()})


def tree(text: str) -> Node:
    return read_tree(ENVIRONMENT.compile(text).serialize())


def shown(node: Node) -> str:
    inner = f"({', '.join(map(shown, node.children))})" if node.children else ""
    return f"{node.kind}:{node.value}{inner}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("time.hour > 300", "call:_>_(name:time.hour, number:300)"),
        ("time.hour > -5", "call:_>_(name:time.hour, number:-5)"),
        ("time.hour == -9223372036854775808", "call:_==_(name:time.hour, number:-9223372036854775808)"),
        ('time.weekday == "mönday"', "call:_==_(name:time.weekday, text:mönday)"),
        ("!device.charging", "call:!_(name:device.charging)"),
        ('time.weekday in ["a", "b"]', "call:@in(name:time.weekday, list:(text:a, text:b))"),
        ("request.tags.app == 'x'", "call:_==_(select:app(name:request.tags), text:x)"),
        ("time.weekday.startsWith('m')", "call:startsWith(name:time.weekday, text:m)"),
        ("{'k': time.hour} == {'k': 1}", "call:_==_(other:(text:k, name:time.hour), other:(text:k, number:1))"),
        ("{} == {'k': 1}", "call:_==_(other:, other:(text:k, number:1))"),
        ("[] == [0]", "call:_==_(list:, list:(number:0))"),
        ('"" == time.weekday', "call:_==_(text:, name:time.weekday)"),
        ("true", "other:"),
        ("1.5 > 2.5", "call:_>_(other:, other:)"),
    ],
)
def test_a_condition_s_tree_is_read_whole(text: str, expected: str) -> None:
    assert shown(tree(text)) == expected


def test_a_comprehension_s_parts_are_all_read() -> None:
    found = tree("request.data_classes.exists(c, c == time.weekday && size(c) > 7)")
    assert (found.kind, len(found.children)) == (
        "other",
        5,
    )  # the range, the start, whether to go on, the step, the end
    values = {(node.kind, node.value) for node in found.walk()}
    assert values >= {
        ("name", "request.data_classes"),
        ("name", "time.weekday"),
        ("name", "c"),
        ("number", "7"),
        ("call", "_||_"),
    }
    start = tree("request.data_classes.map(c, c + 'x') == ['ax']").children[0].children[1]
    assert (start.kind, start.children) == ("list", ())


def test_each_node_knows_where_it_stands() -> None:
    text = 'device.charging && time.weekday == "monday"'
    places = {node.value: node.offset for node in tree(text).walk()}
    assert places == {
        "_&&_": text.index("&&"),
        "device.charging": 0,
        "_==_": text.index("=="),
        "time.weekday": text.index("time"),
        "monday": text.index('"monday'),
    }


def test_a_double_and_bytes_are_stepped_over() -> None:
    assert shown(tree("[1.5, 2.5] == [0.5] || time.hour == 3")) == (
        "call:_||_(call:_==_(list:(other:, other:), list:(other:)), call:_==_(name:time.hour, number:3))"
    )
    ends_like_a_number = struct.unpack("<d", bytes([0, 0, 0, 0, 0x18, 5, 0, 0x40]))[0]  # field 3, a varint, 5
    assert shown(tree(f"[{ends_like_a_number!r}] == [0.5]")) == "call:_==_(list:(other:), list:(other:))"
