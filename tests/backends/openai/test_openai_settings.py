"""What a backend is told in its section, and nothing else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from edgewise.backends.grpc import TlsSettings
from edgewise.backends.openai import OpenaiSettings
from edgewise.backends.openai.settings import check
from edgewise.backends.registry import find_kind
from edgewise.core.settings import FilePath, Seconds, Secret

from .conftest import (
    HELLO,
    Servers,
    stream,
)


async def test_the_environment_has_no_say(servers: Servers) -> None:
    script = (
        "import asyncio, sys\n"
        "from edgewise.backends import CallContext\n"
        "from edgewise.backends.openai import KIND, OpenaiSettings\n"
        "from edgewise.core.content import GenerateInput, Message\n"
        "from edgewise.core.deadline import Deadline\n"
        "async def main():\n"
        "    backend = KIND.build('cloud', OpenaiSettings(sys.argv[1], 'm'), {})\n"
        "    context = CallContext('r', Deadline.after(asyncio.get_running_loop().time(), 10))\n"
        "    async for _ in backend.generate(GenerateInput((Message.user('hello'),)), context): pass\n"
        "    await backend.stop()\n"
        "asyncio.run(main())\n"
    )
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:1")
    environment = {**os.environ, **proxies, "no_proxy": "", "SSL_CERT_FILE": "/nowhere"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, await servers.start(stream(*HELLO)), env=environment
    )
    assert await asyncio.wait_for(process.wait(), 30) == 0


def test_describing_a_backend_imports_no_client() -> None:
    script = (
        "import sys\n"
        "from edgewise.backends.registry import find_kind\n"
        "kind = find_kind('openai')\n"
        "kind.check(kind.settings('https://api.example/v1', 'm'))\n"
        "assert not {'httpx', 'grpc', 'ssl', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        (OpenaiSettings("https://api.example/v1", "m"), []),
        (OpenaiSettings("http://localhost:8000/v1", "m"), []),
        (OpenaiSettings("http://api.example/v1", "m"), [("url",)]),
        (OpenaiSettings("api.example:80", "m"), [("url",)]),
        (OpenaiSettings("https://[::1", "m"), [("url",)]),
        (OpenaiSettings("https://user@host/v1", "m"), [("url",)]),
        (OpenaiSettings("https://api.example/v1"), [("model",)]),
        (
            OpenaiSettings(
                "https://api.example/v1",
                "m",
                credentials=Secret("a\n"),
                max_concurrency=0,
                context_tokens=0,
                connect_timeout=Seconds(0),
                tls=TlsSettings(key=FilePath("none.pem")),
            ),
            [
                ("tls",),
                ("tls", "key"),
                ("credentials",),
                ("max_concurrency",),
                ("context_tokens",),
                ("connect_timeout",),
            ],
        ),
    ],
)
def test_mistakes_in_settings_are_found(settings: OpenaiSettings, paths: list[tuple[str, ...]]) -> None:
    assert find_kind("openai").check is check
    assert [problem.path for problem in check(settings)] == paths
