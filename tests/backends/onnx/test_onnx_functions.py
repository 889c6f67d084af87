"""A file of a kilobyte may hold functions that ONNX Runtime would write out for hours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import numpy
import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.backends import Backend
from edgewise.backends.onnx import functions, nodes
from edgewise.backends.onnx.functions import MOST_NODES, require_bounded
from edgewise.core.failure import AttemptError, FailureKind

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("ours", 1)]


def chain(operator: str, domain: str, length: int) -> list[onnx.NodeProto]:
    """y = operator(operator(... x))."""
    names = ["x", *(f"v{number}" for number in range(length - 1)), "y"]
    return [helper.make_node(operator, [before], [after], domain=domain) for before, after in pairwise(names)]


def function(name: str, nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    return helper.make_function("ours", name, ["x"], ["y"], nodes, OPSETS)


def write(path: Path, nodes: list[onnx.NodeProto], *functions: onnx.FunctionProto) -> Path:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    model = helper.make_model(graph, functions=list(functions), opset_imports=OPSETS, ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def nested(depth: int, calls: int) -> list[onnx.FunctionProto]:
    """Each calls the one before it so often; the first is operators."""
    inner = [function("f0", chain("Neg", "", calls))]
    return inner + [function(f"f{level}", chain(f"f{level - 1}", "ours", calls)) for level in range(1, depth)]


def refusal(path: Path) -> str:
    with pytest.raises(AttemptError) as caught:
        require_bounded("m", path)
    assert caught.value.kind is FailureKind.MODEL_UNAVAILABLE
    return str(caught.value)


@pytest.mark.parametrize("depth", [5, 12, 500])
async def test_a_bomb_of_functions_is_refused_before_it_is_opened(
    start: Callable[..., Awaitable[Backend]], tmp_path: Path, depth: int
) -> None:
    path = write(tmp_path / "m.onnx", chain(f"f{depth - 1}", "ours", 1), *nested(depth, 10))
    with pytest.raises(AttemptError, match=f"written out to more than {MOST_NODES:,} operators"):
        await start({"m": path}, task="infer", model="m")


async def test_functions_within_the_bound_are_run(
    start: Callable[..., Awaitable[Backend]], infer: Callable[..., Awaitable[dict[str, object]]], tmp_path: Path
) -> None:
    path = write(tmp_path / "m.onnx", chain("f2", "ours", 3), *nested(3, 3))
    backend = await start({"m": path}, task="infer", model="m")
    assert (await infer(backend, "m", x=numpy.ones(1, dtype=numpy.float32)))["y"] == [-1.0]


def test_the_bound_counts_operators_as_they_are_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.onnx", chain("f1", "ours", 2) + chain("Neg", "", 5), *nested(2, 4))
    monkeypatch.setattr(functions, "MOST_NODES", 32)
    require_bounded("m", path)
    monkeypatch.setattr(functions, "MOST_NODES", 31)
    assert "more than 31 operators" in refusal(path)


@pytest.mark.parametrize("inside", ["graph", "function"])
def test_calls_within_inner_graphs_count(tmp_path: Path, inside: str) -> None:
    branch = helper.make_graph(chain("f4", "ours", 1), "b", [], [helper.make_tensor_value_info("y", 1, [None])])
    choice = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    outer = [function("outer", choice)] if inside == "function" else []
    path = write(tmp_path / "m.onnx", chain("outer", "ours", 1) if outer else choice, *nested(5, 10), *outer)
    assert "written out" in refusal(path)


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.onnx",
        chain("a", "ours", 1),
        function("a", chain("b", "ours", 1)),
        function("b", chain("a", "ours", 1)),
    )
    assert "its functions call themselves" in refusal(path)


def test_an_operator_of_the_same_name_in_another_domain_is_no_call(tmp_path: Path) -> None:
    """As exporters write it: a function Gelu that is made of operators, one of which is Gelu."""
    require_bounded("m", write(tmp_path / "m.onnx", chain("Gelu", "ours", 1), function("Gelu", chain("Gelu", "", 1))))


def test_the_fields_are_those_of_the_format() -> None:
    node, whole = onnx.NodeProto.DESCRIPTOR.fields_by_name, onnx.FunctionProto.DESCRIPTOR.fields_by_name
    assert tuple(node[name].number for name in ("domain", "op_type", "overload")) == nodes._NODE_ID
    assert tuple(whole[name].number for name in ("domain", "name", "overload")) == nodes._FUNCTION_ID
    assert onnx.ModelProto.DESCRIPTOR.fields_by_name["functions"].number == nodes.FUNCTION
    assert onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number == nodes.GRAPH
    for kind, leads in nodes._LEADS.items():
        known = getattr(onnx, f"{kind}Proto").DESCRIPTOR.fields_by_number
        assert {number: known[number].message_type.name for number in leads} == {
            number: f"{lead}Proto" for number, lead in leads.items()
        }
