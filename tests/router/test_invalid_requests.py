"""What cannot be meant is said at once, by a typed error that tells what to do."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from edgewise.router import AsyncRouter, InvalidRequest, Message, NoBackendPermitted
from edgewise.router.config import loads
from edgewise.testing import ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ([], "no message"),
        ([Message.system("Be brief.")], "empty"),
        (b"bytes", "bytes"),
        (7, "int"),
        (["a text"], "list of Message"),
        ("half a character: \ud83d", "UTF-8"),
        ([Message("boss", "Hello")], "role"),  # type: ignore[arg-type]  # on purpose
        ([Message.user("Hello", data_class=5)], "data_class"),  # type: ignore[arg-type]  # on purpose
        ([Message.user(b"bytes")], "str"),  # type: ignore[arg-type]  # on purpose
    ],
)
def test_a_prompt_that_is_none(make_router: RouterMaker, prompt: object, says: str) -> None:
    assert says in refusal(make_router, prompt)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"latency_budget": 0}, "more than 0"),
        ({"latency_budget": -1}, "more than 0"),
        ({"latency_budget": float("nan")}, "more than 0"),
        ({"latency_budget": 10**400}, "more than 0"),
        ({"latency_budget": "3"}, "'800ms'"),
        ({"latency_budget": "soon"}, "'800ms'"),
        ({"first_token_budget": "0s"}, "more than 0"),
        ({"data_class": "helth"}, "health"),
        ({"data_class": ""}, "data_class"),
        ({"data_class": []}, "data_class"),
        ({"backend": "clowd"}, "cloud"),
        ({"priority": "urgent"}, "high"),
        ({"max_output_tokens": 0}, "1 or more"),
        ({"max_output_tokens": True}, "1 or more"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"stop": ["\n", ""]}, "stop sequence"),
        ({"logprobs": 99}, "logprobs"),
        ({"response_format": {"type": "xml"}}, "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        ({"residency": {"process_in": ["UK"]}}, "GB"),
        ({"residency": {"where": ["DE"]}}, "process_in"),
        ({"idempotent": "no"}, "True or False"),
        ({"idempotency_key": "é"}, "ASCII"),
        ({"tags": {"department": 7}}, "tags"),
        ({"max_tokens": 5}, "max_output_tokens"),
        ({"data_class": 5}, "data_class"),
        ({"backend": 5}, "backend"),
        ({"tags": 5}, "tags"),
        ({"stop": 5}, "stop"),
        ({"residency": 5}, "residency"),
        ({"response_format": {"type": "json_schema", "schema": object()}}, "JSON"),
        ({"response_format": {"type": "grammar", "grammar": 5}}, "GBNF"),
    ],
)
def test_an_option_that_cannot_be(make_router: RouterMaker, options: dict[str, object], says: str) -> None:
    assert says in refusal(make_router, "Hello", **options)


def refusal(make_router: RouterMaker, prompt: object, **options: object) -> str:
    cloud = ScriptedBackend("cloud")

    async def main() -> str:
        async with make_router(cloud) as router:
            with pytest.raises(InvalidRequest) as caught:
                await router.generate(prompt, **options)  # type: ignore[arg-type]  # on purpose
            with pytest.raises(InvalidRequest):
                async for _ in router.stream(prompt, **options):  # type: ignore[arg-type]  # on purpose
                    pass
        return str(caught.value)

    message = run_in_virtual_time(main())
    assert cloud.calls == []
    return message


def test_embeddings_of_what_is_no_list_of_texts(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud")) as router:
            for texts in ("one text", [], [b"x"], [1], 7):
                with pytest.raises(InvalidRequest):
                    await router.embed(texts, data_class="public")  # type: ignore[arg-type]  # on purpose
            for inputs in ({}, {"": [1]}, {"x": object()}, [1.0]):
                with pytest.raises(InvalidRequest):
                    await router.infer("m", inputs, data_class="public")  # type: ignore[arg-type]  # on purpose
            with pytest.raises(InvalidRequest):
                await router.infer("", {"x": [1.0]}, data_class="public")

    run_in_virtual_time(main())


@pytest.mark.parametrize("option", ["data_class", "latency_budget", "priority", "backend", "temperature", "seed"])
def test_a_prompt_in_the_place_of_an_option_is_not_told(make_router: RouterMaker, option: str) -> None:
    assert "Quartz" not in refusal(make_router, "Hello", **{option: "Zebulon Quartz has a fever"})


def test_a_schema_that_holds_itself(make_router: RouterMaker) -> None:
    schema: dict[str, object] = {}
    schema["properties"] = schema
    assert "JSON" in refusal(make_router, "Hello", response_format={"type": "json_schema", "schema": schema})


def test_tensors_that_cannot_be_are_told_without_their_values(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud")) as router:
            for value in ([[1], [1, 2]], ["Zebulon \ud800"], 10**400):
                with pytest.raises(InvalidRequest) as caught:
                    await router.infer("m", {"x": value}, data_class="public")
                error: BaseException | None = caught.value
                while error is not None:
                    assert "Zebulon" not in f"{error!r} {getattr(error, 'object', '')}"
                    error = error.__cause__ or error.__context__

    run_in_virtual_time(main())


def test_a_text_in_the_place_of_a_model_s_name_is_not_told(tmp_path: Path) -> None:
    text = """
version: 1
models: {tiny: {source: "file:tiny.onnx"}}
backends: {sums: {kind: onnx, task: infer, models: {sum: tiny}, location: device}}
policy: {data_classes: {public: {process_in: [any]}}}
"""

    async def main() -> None:
        async with AsyncRouter(loads(text, tmp_path), backends={"sums": ScriptedBackend("sums")}) as router:
            with pytest.raises(NoBackendPermitted) as caught:
                await router.infer("Zebulon Quartz has a fever", {"x": [1.0]}, data_class="public")
        assert "it has sum" in str(caught.value)
        assert "Quartz" not in f"{caught.value} {caught.value.decision.to_dict()}"

    run_in_virtual_time(main())


def test_elements_that_a_mask_hides_are_no_values(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud")) as router:
            for hidden in (numpy.ma.masked_array([[1.0, 2.0]], [[True, False]]), numpy.ma.masked):
                with pytest.raises(InvalidRequest, match=r"'x' has masked elements.*filled\(0\)"):
                    await router.infer("m", {"x": hidden}, data_class="public")
            await router.infer("m", {"x": numpy.ma.masked_array([1.0], [False])}, data_class="public")

    run_in_virtual_time(main())
