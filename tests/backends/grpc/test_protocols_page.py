"""What docs/protocols.md says is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from edgewise.backends.grpc.protocols import PROTOCOL_TYPES
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.core.answer import Delta, Finish, FinishReason, Usage
from edgewise.core.content import GenerateInput, Message
from edgewise.router.config import loads

from ...remotes.observed import tables
from ...remotes.write_page import rewritten
from .conftest import MakeBackend, Servers, collect, within

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "protocols.md").read_text(encoding="utf-8")


async def test_the_tables_are_what_calls_show() -> None:
    assert rewritten(PAGE, await tables()) == PAGE, "run `python -m tests.remotes.write_page`"


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_can_be_used(example: str, tmp_path: Path) -> None:
    policy = "policy: {data_classes: {public: {process_in: [any]}}}\n"
    configuration = loads(f"version: 1\n{example}{policy}", tmp_path, environment={"KEY": "k", "TOKEN": "t"})
    assert configuration.warnings == ()


def test_a_protocol_is_one_file_of_under_300_lines() -> None:
    files = sorted((DOCS.parent / "backends" / "grpc").glob("*_protocol*.py"))
    assert len(files) >= 3
    assert {file.name: lines for file in files if (lines := len(file.read_text().splitlines())) >= 300} == {}


async def test_the_protocol_that_the_page_shows_works(
    servers: Servers, make_backend: MakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    page: dict[str, Any] = {}
    exec(code, page)
    monkeypatch.setitem(PROTOCOL_TYPES, ProtocolName.EDGEWISE, page["WordsProtocol"])

    async def say(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        for word in (*StringValue.FromString(request).value.split(), ""):
            await context.write(StringValue(value=word).SerializeToString())

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Say": grpc.unary_stream_rpc_method_handler(say)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("words.v1.Words", handlers)])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    servers.running.append(server)
    events = await collect(make_backend(target).generate(GenerateInput((Message.user("one two"),)), within(5)))
    assert events == [Delta("one"), Delta("two"), Finish(FinishReason.STOP, Usage(output_tokens=2))]
