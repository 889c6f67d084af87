"""Model files that are odd, too large or hostile: they are input from outside."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

from edgewise.backends import CallContext, HealthState
from edgewise.backends.llama_cpp import LlamaCppSettings
from edgewise.backends.llama_cpp.backend import LlamaCppBackend
from edgewise.backends.llama_cpp.gguf_file import why_refused
from edgewise.backends.llama_cpp.settings import check_settings
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.core.answer import Delta, Finish
from edgewise.core.content import CountTokensInput, GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import ModelName

from .tiny import TinyModel, write_tiny_model

CONTEXT = CallContext("request", Deadline(1e12))
HELLO = GenerateInput((Message.user("Hello"),), max_output_tokens=4, temperature=0.0)


def backend_of(path: Path, **settings: Any) -> LlamaCppBackend:
    model = ModelFile("tiny", ModelSettings(f"file:{path}"), path.parent)
    options = {"context_tokens": 128, "threads": 1} | settings
    return LlamaCppBackend("phone", LlamaCppSettings(ModelName("tiny"), **options), model)


@asynccontextmanager
async def loaded(path: Path, model: TinyModel) -> AsyncIterator[LlamaCppBackend]:
    backend = backend_of(write_tiny_model(path / "tiny.gguf", model))
    async with asyncio.timeout(30):
        await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


async def refusal_to_load(backend: LlamaCppBackend) -> AttemptError:
    try:
        with pytest.raises(AttemptError) as caught:
            async with asyncio.timeout(30):
                await backend.start()
        assert backend.health().state is HealthState.DOWN
        return caught.value
    finally:
        await backend.stop()


async def test_a_model_of_a_few_thousand_weights_answers(tmp_path: Path) -> None:
    async with loaded(tmp_path, TinyModel()) as backend:
        events = [event async for event in backend.generate(HELLO, CONTEXT)]
    assert isinstance(events[-1], Finish)
    assert events[-1].usage.output_tokens == 4


async def test_an_architecture_that_llama_cpp_does_not_know_is_told(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", TinyModel(architecture="unheard-of-" + "x" * 1000))
    failure = await refusal_to_load(backend_of(path))
    assert failure.kind is FailureKind.MODEL_UNAVAILABLE
    assert failure.sentence.startswith("model 'tiny' cannot be loaded: ")
    assert "'unheard-of-xxx" in failure.sentence
    assert "upgrade llama-cpp-python" in failure.sentence
    assert "x" * 60 not in failure.sentence


NUMBERS = struct.Struct("<4sIQQ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b'{"version": 1}', "is no GGUF file"),
        (b"GG", "is cut short"),
        (NUMBERS.pack(b"GGUF", 9, 0, 0), "is of version 9"),
        (NUMBERS.pack(b"GGUF", 3, 1, 1), "is cut short"),
        (NUMBERS.pack(b"GGUF", 3, 1, 1 << 63), "is damaged"),
        (NUMBERS.pack(b"GGUF", 3, 1 << 63, 0), "names no architecture"),
        (NUMBERS.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 4, 1 << 63), "is cut short"),
        (NUMBERS.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 1 << 63), "is damaged"),
        (NUMBERS.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q1sI", 1, b"k", 99), "is damaged"),
        (NUMBERS.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q", 1 << 63), "is cut short"),
    ],
)
def test_a_file_that_llama_cpp_does_not_load_is_told_with_what_is_wrong(
    content: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(content)
    assert says in why_refused(path)


async def test_a_file_that_is_cut_short_is_told_as_such(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", TinyModel())
    assert "architecture 'llama'" in why_refused(path)
    for share in (0.1, 0.5):
        os.truncate(path, int(path.stat().st_size * (1 - share)))
        failure = await refusal_to_load(backend_of(path))
        assert failure.kind is FailureKind.MODEL_UNAVAILABLE
        assert "'tiny' cannot be loaded: its file is cut short or damaged; fetch the file again" in failure.sentence


async def test_a_file_larger_than_the_memory_is_refused_unread(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", TinyModel())
    os.truncate(path, 1 << 42)  # sparse: it takes no room on the disk
    failure = await refusal_to_load(backend_of(path))
    assert failure.kind is FailureKind.MODEL_UNAVAILABLE
    assert "4194304 MiB" in failure.sentence
    assert "smaller" in failure.sentence


async def test_a_context_larger_than_the_memory_is_refused_before_it_is_taken(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", TinyModel(context=1 << 31))
    failure = await refusal_to_load(backend_of(path, context_tokens=(1 << 31) - 1))
    assert failure.kind is FailureKind.MODEL_UNAVAILABLE
    assert "lower context_tokens" in failure.sentence


async def test_weights_that_are_no_numbers_end_in_a_typed_failure(tmp_path: Path) -> None:
    async with loaded(tmp_path, TinyModel(weight=float("nan"))) as backend:
        with pytest.raises(AttemptError) as caught:
            async with asyncio.timeout(30):
                _ = [event async for event in backend.generate(HELLO, CONTEXT)]
        assert caught.value.kind in (FailureKind.INTERNAL, FailureKind.CRASHED)


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.system('touch MARK') }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{% include '/etc/hostname' %}",
        "{% import 'os' as os %}{{ os.system('touch MARK') }}",
        "{{ ('%s' * 3).format.__globals__ }}",
    ],
)
async def test_a_template_runs_no_code_and_reads_no_file(template: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with loaded(tmp_path, TinyModel(template=template.replace("MARK", str(mark)))) as backend:
        with pytest.raises(AttemptError) as caught:
            _ = [event async for event in backend.generate(HELLO, CONTEXT)]
        assert caught.value.kind is FailureKind.INTERNAL
    assert not mark.exists()


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set all = namespace(x='aaaaaaaa') %}{% for n in range(60) %}{% set all.x = all.x ~ all.x %}{% endfor %}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 10.0 ** messages | length ** 9999 }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ lipsum(n=10 ** 9) }}",
        "{{ [[1] * 99999] * 99999 | sum(start=[]) }}",
    ],
)
async def test_a_template_without_end_or_measure_is_refused_and_its_worker_lives(template: str, tmp_path: Path) -> None:
    async with loaded(tmp_path, TinyModel(template=template)) as backend:
        before = backend.worker.pid
        with pytest.raises(AttemptError) as caught:
            async with asyncio.timeout(20):
                _ = [event async for event in backend.generate(HELLO, CONTEXT)]
        assert caught.value.kind is FailureKind.INTERNAL
        with pytest.raises(AttemptError):
            await backend.count_tokens(CountTokensInput(HELLO.messages), CONTEXT)
        assert backend.worker.pid == before


async def test_layers_that_no_gpu_takes_are_computed_on_the_cpu_and_it_says_so(tmp_path: Path) -> None:
    backend = backend_of(write_tiny_model(tmp_path / "tiny.gguf", TinyModel()), gpu_layers=-1)
    await backend.start()
    health = backend.health()
    assert health.state is HealthState.READY
    assert ("computed on the CPU" in health.sentence) is not llama_cpp.llama_supports_gpu_offload()
    await backend.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what it keeps in memory")
async def test_memory_that_the_system_does_not_keep_is_said(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", TinyModel())
    program = Path(__file__).parent / "_memory_lock.py"
    process = await asyncio.create_subprocess_exec(sys.executable, program, path, stdout=subprocess.PIPE)
    said = (await process.communicate())[0].decode()
    assert said.startswith("ready the system keeps 0 of the model's")
    async with loaded(tmp_path, TinyModel()) as backend:
        assert backend.health().sentence == ""


@pytest.mark.parametrize(("name", "value"), [("threads", 100_000), ("threads", 0), ("batch_tokens", 1 << 40)])
def test_numbers_that_llama_cpp_cannot_work_with_are_told_with_what_it_can(name: str, value: int) -> None:
    settings = LlamaCppSettings(ModelName("tiny"), **{name: value})  # type: ignore[arg-type]  # one of several names
    (problem,) = check_settings(settings)
    assert problem.path == (name,)


async def test_a_prompt_of_megabytes_is_refused_and_harms_nobody(tmp_path: Path) -> None:
    async with loaded(tmp_path, TinyModel()) as backend:
        before = backend.worker.pid
        long = (Message.user("word " * (1 << 20)),)
        for asked in (
            anext(backend.generate(GenerateInput(long), CONTEXT)),
            backend.count_tokens(CountTokensInput(long), CONTEXT),
        ):
            with pytest.raises(AttemptError, match=r"5,242,\d+ characters") as caught:
                await asked
            assert caught.value.kind is FailureKind.CONTEXT_LENGTH
        assert backend.worker.pid == before


async def test_text_of_any_bytes_is_continued(tmp_path: Path) -> None:
    async with loaded(tmp_path, TinyModel()) as backend:
        begun = GenerateInput((Message.user("Hello"), Message.assistant("né\ufffd 日本 \U0001f600")), 4, 0.0)
        events = [event async for event in backend.generate(begun, CONTEXT)]
    assert isinstance(events[-1], Finish)
    assert all(isinstance(event, Delta) for event in events[:-1])
