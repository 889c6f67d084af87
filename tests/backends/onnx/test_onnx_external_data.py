"""Weights in other files than the model's own: where they may lie, and whether they are proven."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.backends import Backend
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.backends.onnx import external_data
from edgewise.backends.onnx.external_data import proven_data
from edgewise.core.failure import AttemptError, FailureKind
from tests.backends.onnx._tiny_generator import write_generator

Start = Callable[..., Awaitable[Backend]]
Infer = Callable[..., Awaitable[dict[str, Any]]]
Build = Callable[..., Path]

ONES = numpy.ones((1, 3), dtype=numpy.float32)


async def failed_start(start: Start, model: Path | ModelSettings, **settings: Any) -> str:
    with pytest.raises(AttemptError) as caught:
        await start({"m": model}, **{"task": "infer", "model": "m", **settings})
    assert caught.value.kind is FailureKind.MODEL_UNAVAILABLE
    return str(caught.value)


@pytest.fixture
def beside(tmp_path: Path, build: Build) -> Callable[..., Path]:
    """A model in a folder of its own that adds what lies in another file."""

    def beside(location: str, *, offset: int = 0, length: int = 12) -> Path:
        weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
            weights.external_data.add(key=key, value=value)
        path = build(
            "external",
            [helper.make_node("Add", ["x", "w"], ["y"])],
            [("x", TensorProto.FLOAT, [1, 3])],
            [("y", TensorProto.FLOAT, [1, 3])],
        )
        model = onnx.load_model_from_string(path.read_bytes())
        model.graph.initializer.append(weights)
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "m.onnx").write_bytes(model.SerializeToString())
        for folder in (tmp_path, tmp_path / "own"):
            (folder / "weights.bin").write_bytes(ONES.tobytes())
        return tmp_path / "own" / "m.onnx"

    return beside


def folder_of(path: Path) -> ModelSettings:
    """The whole folder of a model, pinned as ``sha256sum`` makes the sum."""
    command = "find * -xtype f -not -path '*/.*' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=path.parent, check=True, capture_output=True, text=True).stdout
    return ModelSettings(f"file:{path.parent}/", printed.split()[0])


async def test_it_is_read_from_the_models_own_folder(start: Start, infer: Infer, beside: Callable[..., Path]) -> None:
    backend = await start({"m": beside("./weights.bin")}, task="infer", model="m")
    assert (await infer(backend, "m", x=ONES))["y"].tolist() == [[2.0, 2.0, 2.0]]


async def test_a_pinned_folder_is_whole_until_a_byte_of_it_changes(
    start: Start, infer: Infer, beside: Callable[..., Path]
) -> None:
    path = beside("weights.bin")
    pinned = folder_of(path)
    backend = await start({"m": pinned}, task="infer", model="m")
    assert (await infer(backend, "m", x=ONES))["y"].tolist() == [[2.0, 2.0, 2.0]]
    await backend.stop()
    weights = bytearray((path.parent / "weights.bin").read_bytes())
    weights[5] ^= 1
    (path.parent / "weights.bin").write_bytes(weights)
    with pytest.raises(AttemptError) as caught:
        await backend.start()
    assert caught.value.kind is FailureKind.MODEL_UNAVAILABLE
    assert "is altered" in str(caught.value)
    assert "over all its files" in str(caught.value)


@pytest.mark.parametrize("change", ["add", "remove", "rename"])
async def test_a_file_more_or_less_is_another_folder(beside: Callable[..., Path], start: Start, change: str) -> None:
    path = beside("weights.bin")
    (path.parent / "notes.txt").write_text("notes")
    pinned = folder_of(path)
    match change:
        case "add":
            (path.parent / "more.txt").write_text("")
        case "remove":
            (path.parent / "notes.txt").unlink()
        case "rename":
            (path.parent / "notes.txt").rename(path.parent / "other.txt")
    assert "is altered" in await failed_start(start, pinned)


async def test_what_the_sum_of_one_file_does_not_prove_is_refused(start: Start, beside: Callable[..., Path]) -> None:
    path = beside("weights.bin")
    pinned = ModelSettings(f"file:{path}", hashlib.sha256(path.read_bytes()).hexdigest())
    assert "it reads 'weights.bin' beside it, which its sha256 does not prove" in await failed_start(start, pinned)


async def test_what_a_pinned_folder_leaves_out_is_refused(start: Start, beside: Callable[..., Path]) -> None:
    path = beside(".hidden.bin")
    (path.parent / "weights.bin").rename(path.parent / ".hidden.bin")
    assert "'.hidden.bin' beside it, which its sha256" in await failed_start(start, folder_of(path))


async def test_a_link_to_elsewhere_is_refused(start: Start, beside: Callable[..., Path], tmp_path: Path) -> None:
    path = beside("link.bin")
    path.with_name("link.bin").symlink_to(tmp_path / "weights.bin")
    assert "external data that does not lie in the model's own folder" in await failed_start(start, path)


@pytest.mark.parametrize(
    "location",
    ["../weights.bin", "{root}/weights.bin", "sub/../../weights.bin", "../../../../../../etc/passwd", "..\\w.bin", ""],
)
async def test_data_from_elsewhere_is_refused_before_it_is_opened(
    start: Start, beside: Callable[..., Path], tmp_path: Path, location: str
) -> None:
    text = await failed_start(start, beside(location.format(root=tmp_path)))
    assert "takes data from outside of its own folder" in text


@pytest.mark.parametrize("location", ["gone.bin", "*/_ORT_MEM_ADDR_/*", "weights.bin/x"])
async def test_data_that_is_not_there_is_told(start: Start, beside: Callable[..., Path], location: str) -> None:
    assert f"it reads {location!r}, which is not beside it" in await failed_start(start, beside(location))


@pytest.mark.parametrize(("offset", "length"), [(1, 12), (1 << 62, 12), (-12, 12), (0, 1 << 40), (0, 11)])
async def test_data_beyond_its_file_is_refused(
    start: Start, beside: Callable[..., Path], offset: int, length: int
) -> None:
    assert "cannot be used" in await failed_start(start, beside("weights.bin", offset=offset, length=length))


async def test_data_that_does_not_fit_into_memory_is_told_before_it_is_opened(
    start: Start, beside: Callable[..., Path]
) -> None:
    path = beside("m.data")
    with path.with_name("m.data").open("wb") as sparse:
        sparse.truncate(1 << 43)
    assert "8388608 MiB, and" in await failed_start(start, path)


async def test_a_folder_with_several_models_is_opened_where_it_says(
    start: Start, infer: Infer, beside: Callable[..., Path]
) -> None:
    path = beside("weights.bin")
    path.with_name("other.onnx").write_bytes(b"no model")
    pinned = folder_of(path)
    assert "2 files that an engine could open" in await failed_start(start, pinned)
    pinned = ModelSettings(pinned.source, pinned.sha256, file="m.onnx")
    backend = await start({"m": pinned}, task="infer", model="m")
    assert (await infer(backend, "m", x=ONES))["y"].tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.parametrize("altered", ["model.onnx", "tokenizer.json", "genai_config.json"])
async def test_all_files_of_a_generator_are_proven(start: Start, tmp_path: Path, altered: str) -> None:
    path = write_generator(tmp_path)
    generator = {"task": "generate", "context_tokens": 64}
    pinned = folder_of(path)
    backend = await start({"m": pinned}, model="m", **generator)
    assert backend.health().sentence == ""
    (tmp_path / altered).write_bytes((tmp_path / altered).read_bytes() + b" ")
    assert "is altered" in await failed_start(start, pinned, **generator)


async def test_a_generator_of_which_one_file_is_proven_is_refused(start: Start, tmp_path: Path) -> None:
    path = write_generator(tmp_path)
    pinned = ModelSettings(f"file:{path}", hashlib.sha256(path.read_bytes()).hexdigest())
    text = await failed_start(start, pinned, task="generate", context_tokens=64)
    assert "beside it, which its sha256 does not prove" in text


def test_every_way_to_external_data_that_onnx_has_is_known() -> None:
    """By the library's own description of the format, so that a version with another way is noticed here."""
    messages: dict[str, dict[int, str]] = {}

    def read(message: Any) -> None:  # the two implementations of protobuf have no common type
        if message.name not in messages:
            fields = {field.number: field.message_type for field in message.fields if field.message_type is not None}
            messages[message.name] = {number: kind.name for number, kind in fields.items()}
            for kind in fields.values():
                read(kind)

    read(onnx.ModelProto.DESCRIPTOR)
    leading, grown = {"TensorProto"}, True
    while grown:
        more = {name for name, fields in messages.items() if leading & set(fields.values())}
        grown = not more <= leading
        leading |= more
    known = {f"{name}Proto": fields for name, fields in external_data._LEADS.items() if name != "Tensor"}
    assert known == {
        name: {number: kind.removesuffix("Proto") for number, kind in messages[name].items() if kind in leading}
        for name in leading - {"TensorProto"}
    }
    assert TensorProto.DESCRIPTOR.fields_by_name["external_data"].number in external_data._LEADS["Tensor"]


def nested(depth: int) -> onnx.GraphProto:
    """Graphs in one another, the last with external data in a constant."""
    weights = onnx.TensorProto(name="w", data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="deep.bin")
    graph = onnx.GraphProto(node=[helper.make_node("Constant", [], ["w"], value=weights)])
    for _ in range(depth):
        graph = onnx.GraphProto(node=[helper.make_node("If", ["c"], ["y"], then_branch=graph)])
    return graph


@pytest.mark.parametrize("depth", [0, 1, 10])
def test_data_of_inner_graphs_and_functions_is_found(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "m.onnx"
    function = onnx.FunctionProto(name="f", node=nested(depth).node)
    for model in (onnx.ModelProto(graph=nested(depth)), onnx.ModelProto(functions=[function])):
        path.write_bytes(model.SerializeToString())
        with pytest.raises(AttemptError, match=r"'deep\.bin', which is not beside it"):
            proven_data("m", path, None)
        (tmp_path / "deep.bin").touch()
        assert proven_data("m", path, None) == [tmp_path / "deep.bin"]
        with pytest.raises(AttemptError, match=r"'deep\.bin' beside it, which its sha256 does not prove"):
            proven_data("m", path, ["m.onnx"])
        (tmp_path / "deep.bin").unlink()


def test_a_field_that_onnx_runtime_alone_would_know_is_refused(tmp_path: Path) -> None:
    """C++ keeps 32 bits of a tag, so that 2**32 more than that of `external_data` is the same to it."""

    def field(tag: bytes, content: bytes) -> bytes:
        return tag + bytes([len(content)]) + content

    location = onnx.StringStringEntryProto(key="location", value="secret.bin").SerializeToString()
    path = tmp_path / "m.onnx"
    for tag, said in (
        (b"\x6a", r"'secret\.bin', which is not beside it"),
        (b"\xea\x80\x80\x80\x10", "is no ONNX model"),
    ):
        path.write_bytes(field(b"\x3a", field(b"\x2a", field(tag, location))))
        with pytest.raises(AttemptError, match=said):
            proven_data("m", path, None)


def test_a_file_cut_anywhere_or_of_any_bytes_is_read_or_refused(tmp_path: Path) -> None:
    whole = onnx.ModelProto(graph=nested(2)).SerializeToString()
    path = tmp_path / "m.onnx"
    random = numpy.random.default_rng(3)
    for content in (*(whole[:end] for end in range(len(whole))), *(random.bytes(64) for _ in range(300)), b"\xff" * 99):
        path.write_bytes(content)
        with suppress(AttemptError):
            proven_data("m", path, None)


def test_a_file_of_countless_parts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "_MOST_FIELDS", 1000)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x12\x00" * 5000)
    with pytest.raises(AttemptError, match="more than 1,000 parts"):
        proven_data("m", path, None)


def test_a_real_models_data_is_found_quickly(minilm: dict[str, str], tmp_path: Path) -> None:
    """Every weight of MiniLM, saved as exporters save them."""
    model = onnx.load(ModelFile("minilm", ModelSettings(minilm["minilm"]), tmp_path).locate())
    onnx.save(model, tmp_path / "big.onnx", save_as_external_data=True, location="big.onnx.data", size_threshold=0)
    assert proven_data("m", tmp_path / "big.onnx", None) == [tmp_path / "big.onnx.data"]
