"""Named tensors in, named tensors out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgewise.backends import Backend
from edgewise.core.content import EmbedInput, Tensor
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task

Infer = Callable[..., Awaitable[dict[str, Any]]]
StartInfer = Callable[..., Awaitable[Backend]]

NUMBERS = {
    name: getattr(TensorProto, onnx_name)
    for name, onnx_name in [
        ("bool", "BOOL"),
        ("int8", "INT8"),
        ("int16", "INT16"),
        ("int32", "INT32"),
        ("int64", "INT64"),
        ("uint8", "UINT8"),
        ("uint16", "UINT16"),
        ("uint32", "UINT32"),
        ("uint64", "UINT64"),
        ("float16", "FLOAT16"),
        ("float32", "FLOAT"),
        ("float64", "DOUBLE"),
    ]
}


async def test_a_model_runs_on_any_number_of_rows(start_infer: StartInfer, infer: Infer, doubling: Path) -> None:
    backend = await start_infer(doubling=doubling)
    for rows in (1, 5, 0):
        x = numpy.arange(rows * 3, dtype=numpy.float32).reshape(rows, 3)
        outputs = await infer(backend, "doubling", x=x)
        assert list(outputs) == ["y"]
        assert numpy.array_equal(outputs["y"], x + x)
        assert outputs["y"].dtype == numpy.float32


async def test_the_numbers_are_onnx_runtimes_own(start_infer: StartInfer, infer: Infer) -> None:
    path = Path(onnxruntime.__file__).parent / "datasets" / "logreg_iris.onnx"
    x = numpy.array([[5.1, 3.5], [6.2, 2.9], [4.4, 1.3]], dtype=numpy.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = [port.name for port in session.get_inputs()]
    outputs = await infer(await start_infer(iris=path), "iris", **{name: x})
    # Its other output is a sequence of maps, which is no tensor.
    assert list(outputs) == ["label"]
    assert numpy.array_equal(outputs["label"], session.run(["label"], {name: x})[0])


async def test_every_element_type_goes_in_and_comes_out(
    start_infer: StartInfer, infer: Infer, build: Callable[..., Path]
) -> None:
    types = {**NUMBERS, "string": TensorProto.STRING}
    path = build(
        "echo",
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in types],
        [(f"in_{name}", type_, [None, None]) for name, type_ in types.items()],
        [(f"out_{name}", type_, [None, None]) for name, type_ in types.items()],
    )
    given: dict[str, Any] = {name: numpy.array([[0, 1], [1, 0], [1, 1]]).astype(name) for name in NUMBERS}
    given["float32"][0, 0] = numpy.nan
    given["string"] = numpy.array([["", "zürich"], ["a\0b", "nul\0"]], dtype=object)
    outputs = await infer(await start_infer(echo=path), "echo", **{f"in_{name}": a for name, a in given.items()})
    for name, array in given.items():
        assert outputs[f"out_{name}"].dtype == array.dtype
        assert outputs[f"out_{name}"].tolist() == array.tolist() or (name == "float32")
    assert numpy.isnan(outputs["out_float32"][0, 0])


async def test_scalars_have_no_axes(start_infer: StartInfer, infer: Infer, build: Callable[..., Path]) -> None:
    path = build(
        "scalar",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", TensorProto.INT64, [])],
        [("y", TensorProto.INT64, [])],
    )
    backend = await start_infer(scalar=path)
    outputs = await infer(backend, "scalar", x=numpy.int64(21))
    assert outputs["y"].shape == ()
    assert outputs["y"] == 42
    text = await refusal(infer(backend, "scalar", x=numpy.ones((2, 2), numpy.int64)), FailureKind.INVALID_REQUEST)
    assert "'x' is int64 [2, 2] and must be int64 []" in text


async def test_a_tensor_of_no_declared_shape_takes_any(
    start_infer: StartInfer, infer: Infer, build: Callable[..., Path]
) -> None:
    path = build(
        "any",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", TensorProto.INT64, None)],
        [("y", TensorProto.INT64, None)],
    )
    backend = await start_infer(any=path)
    for shape in ((), (2,), (2, 0, 3)):
        assert (await infer(backend, "any", x=numpy.ones(shape, numpy.int64)))["y"].shape == shape


async def test_one_backend_serves_several_models_by_name(
    start_infer: StartInfer, infer: Infer, doubling: Path, endless: Path
) -> None:
    backend = await start_infer(triage=doubling, simulate=endless)
    assert backend.capabilities.tasks == {Task.INFER}
    ones = numpy.ones((1, 3), dtype=numpy.float32)
    assert (await infer(backend, "triage", x=ones))["y"].tolist() == [[2.0, 2.0, 2.0]]
    square = numpy.zeros((64, 64), dtype=numpy.float32)
    assert (await infer(backend, "simulate", rounds=numpy.int64(3), v=square))["result"].shape == (64, 64)


async def test_one_model_is_served_by_its_name_in_the_models_section(
    start: Callable[..., Awaitable[Backend]], infer: Infer, doubling: Path
) -> None:
    backend = await start({"double-it": doubling}, task="infer", model="double-it")
    assert (await infer(backend, "double-it", x=numpy.ones((1, 3), dtype=numpy.float32)))["y"].shape == (1, 3)


async def refusal(call: Awaitable[object], kind: FailureKind) -> str:
    with pytest.raises(AttemptError) as refused:
        await call
    assert refused.value.kind is kind
    return str(refused.value)


async def test_a_model_that_is_not_served_is_refused_with_those_that_are(
    start_infer: StartInfer, infer: Infer, doubling: Path
) -> None:
    backend = await start_infer(triage=doubling)
    text = await refusal(infer(backend, "triag", x=numpy.ones((1, 3))), FailureKind.UNKNOWN_MODEL)
    assert "no model 'triag'; it has 'triage'" in text


async def test_an_infer_backend_does_not_embed(
    start_infer: StartInfer, doubling: Path, context: Callable[[], Any]
) -> None:
    backend = await start_infer(triage=doubling)
    await refusal(backend.embed(EmbedInput(("a",)), context()), FailureKind.UNSUPPORTED)


FLOATS = numpy.full((2, 3), 4242.0, dtype=numpy.float32)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, ["'x' is missing, it is float32 [any, 3]"]),
        ({"z": FLOATS}, ["'x' is missing", "'z' is none of its inputs, they are 'x'"]),
        ({"x": FLOATS, "z": FLOATS}, ["'z' is none of its inputs"]),
        ({"x": FLOATS.astype("float64")}, ["'x' is float64 [2, 3] and must be float32 [any, 3]"]),
        ({"x": FLOATS[:, :2]}, ["'x' is float32 [2, 2] and must be float32 [any, 3]"]),
        ({"x": FLOATS[0]}, ["'x' is float32 [3] and must be"]),
        ({"x": FLOATS[None]}, ["'x' is float32 [1, 2, 3] and must be"]),
        ({"x": Tensor("float32", (2, 3), b"4242")}, ["tensor 'x' is float32 [2, 3] and needs 24 bytes, but has 4"]),
        ({"x": Tensor("float32", (-1, 3), b"4242" * 3)}, ["tensor 'x' has a negative extent"]),
    ],
)
async def test_tensors_that_do_not_fit_are_named_with_what_would(
    start_infer: StartInfer, infer: Infer, doubling: Path, inputs: dict[str, Any], says: list[str]
) -> None:
    backend = await start_infer(doubling=doubling)
    text = await refusal(infer(backend, "doubling", **inputs), FailureKind.INVALID_REQUEST)
    assert all(part in text for part in says), text
    assert "4242" not in text
    assert (await infer(backend, "doubling", x=FLOATS))["y"][0, 0] == 8484.0


async def test_values_that_a_model_cannot_take_are_the_callers_mistake_and_are_not_quoted(
    start_infer: StartInfer, infer: Infer, build: Callable[..., Path]
) -> None:
    path = build(
        "table",
        [helper.make_node("Gather", ["table", "row"], ["y"])],
        [("row", TensorProto.INT64, [None])],
        [("y", TensorProto.FLOAT, [None])],
        {"table": numpy.arange(3, dtype=numpy.float32)},
    )
    backend = await start_infer(table=path)
    text = await refusal(infer(backend, "table", row=numpy.array([4242])), FailureKind.INVALID_REQUEST)
    assert "model 'table' cannot take these values" in text
    assert "4242" not in text
    assert (await infer(backend, "table", row=numpy.array([2])))["y"].tolist() == [2.0]


async def test_what_an_operator_fails_over_is_the_callers_mistake_too(
    start_infer: StartInfer, infer: Infer, build: Callable[..., Path]
) -> None:
    """ONNX Runtime says `Fail` and `RuntimeException` of these."""
    expand = build(
        "expand",
        [helper.make_node("Expand", ["x", "shape"], ["y"])],
        [("x", TensorProto.FLOAT, [1]), ("shape", TensorProto.INT64, ["rank"])],
        [("y", TensorProto.FLOAT, None)],
    )
    number = build(
        "number",
        [helper.make_node("Cast", ["text"], ["y"], to=TensorProto.FLOAT)],
        [("text", TensorProto.STRING, ["n"])],
        [("y", TensorProto.FLOAT, ["n"])],
    )
    backend = await start_infer(expand=expand, number=number)
    one = numpy.ones(1, dtype=numpy.float32)
    for extent in (-4242, 10**13):
        call = infer(backend, "expand", x=one, shape=numpy.array([extent]))
        assert "4242" not in await refusal(call, FailureKind.INVALID_REQUEST)
    call = infer(backend, "number", text=numpy.array(["secret"], dtype=object))
    assert "secret" not in await refusal(call, FailureKind.INVALID_REQUEST)
    assert (await infer(backend, "expand", x=one, shape=numpy.array([2])))["y"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("named", "says"),
    [(["n", "n"], "the axis 'n' is 2 long in 'a' and 3 in 'b'"), (["n", None], "cannot take these values")],
)
async def test_shapes_that_differ_are_the_callers_mistake(
    start_infer: StartInfer, infer: Infer, build: Callable[..., Path], named: list[str | None], says: str
) -> None:
    """Where the model names no axis, only running it shows."""
    path = build(
        "sums",
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [("a", TensorProto.FLOAT, named[:1]), ("b", TensorProto.FLOAT, named[1:])],
        [("y", TensorProto.FLOAT, ["n"])],
    )
    backend = await start_infer(sums=path)
    two, three = numpy.ones(2, dtype=numpy.float32), numpy.ones(3, dtype=numpy.float32)
    assert says in await refusal(infer(backend, "sums", a=two, b=three), FailureKind.INVALID_REQUEST)
    assert (await infer(backend, "sums", a=two, b=two))["y"].tolist() == [2.0, 2.0]
    signature = backend.signature("sums")
    assert signature is not None
    assert [spec.shape for spec in signature.inputs] == [(None,), (None,)]


async def test_a_request_before_the_start_waits_for_it(
    make: Callable[..., Backend], infer: Infer, doubling: Path
) -> None:
    backend = make({"d": doubling}, task="infer", model="d")
    early = asyncio.ensure_future(infer(backend, "d", x=FLOATS))
    await backend.start()
    assert (await early)["y"].shape == (2, 3)
