"""Settings of a gRPC backend: what is accepted, and what is named as wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.backends.grpc import KIND, GrpcSettings, TlsSettings
from edgewise.backends.grpc.target import parse_target
from edgewise.core.settings import FilePath, Seconds, Secret

GOOD = GrpcSettings(target="localhost:50051")


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("localhost:50051", True),
        ("127.0.0.1:1", True),
        ("127.8.9.1:50051", True),
        ("[::1]:50051", True),
        ("unix:/run/model.sock", True),
        ("unix:///run/model.sock", True),
        ("dns:///localhost:50051", True),
        ("ipv4:127.0.0.1:50051", True),
        ("gateway.clinic.example:8443", False),
        ("localhost.example.org:443", False),
        ("127.0.0.1.example.org:443", False),
        ("10.0.0.1:50051", False),
        ("0.0.0.0:50051", False),
        ("[2001:db8::1]:443", False),
        ("dns:///models.example:443", False),
    ],
)
def test_targets_that_can_be_read(text: str, local: bool) -> None:
    target = parse_target(text)
    assert target.address == text
    assert target.local is local
    assert KIND.check(replace(GOOD, target=text)) == []


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "localhost:", ":50051", "localhost:0", "localhost:65536", "localhost:http", "https://a.example:443",
     "a b:1", "::1:50051", "unix:", "unix:/", "dns://8.8.8.8/a.example:443", "xds:///a", "host/path:1", "host:1/path"],
)  # fmt: skip
def test_targets_that_cannot(text: str) -> None:
    (problem,) = KIND.check(replace(GOOD, target=text))
    assert problem.path == ("target",)
    assert problem.mend


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    not_pem = tmp_path / "roots.pem"
    not_pem.write_text("nonsense")
    tls = TlsSettings(root_certificates=FilePath(str(not_pem)), certificate=FilePath(str(tmp_path / "none.pem")))
    settings = GrpcSettings(
        target="nowhere",
        tls=tls,
        tasks=(),
        context_tokens=0,
        max_concurrency=0,
        connect_timeout=Seconds(0.0),
        keepalive=Seconds(0.1),
    )
    assert {problem.path for problem in KIND.check(settings)} == {
        ("target",),
        ("tls",),
        ("tls", "root_certificates"),
        ("tls", "certificate"),
        ("tasks",),
        ("context_tokens",),
        ("max_concurrency",),
        ("connect_timeout",),
        ("keepalive",),
    }


@pytest.mark.parametrize("token", ["", "tokén", "token\n", "two words"])
def test_credentials_that_cannot_be_sent_are_named_and_not_shown(token: str) -> None:
    (problem,) = KIND.check(replace(GOOD, credentials=Secret(token)))
    assert problem.path == ("credentials",)
    assert not token or token not in problem.render()


def test_building_opens_nothing_and_shows_no_secret() -> None:
    settings = replace(GOOD, credentials=Secret("key-1"), tls=TlsSettings(FilePath("/no/such.pem")))
    backend = KIND.build("cloud", settings, {})
    assert backend.name == "cloud"
    assert "key-1" not in f"{settings!r} {backend!r} {vars(backend)['_capabilities']!r}"
