"""What 'once' means with a configuration: the queue's life against the server's memory of idempotency keys."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from edgewise.core.errors import ConfigurationError
from edgewise.core.problem import Problem, Severity
from edgewise.router import AsyncRouter, Router
from edgewise.router.config import loads

TEXT = """\
version: 1
backends:
  there:
    {backend}
    location: {{process_in: [any], store_in: [], operators: [NL]}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
  offline: {{{offline}}}
"""
OUTBOX = "outbox: outbox.db, queue_ttl: 24h"


def warnings(folder: Path, backend: str, offline: str = OUTBOX) -> list[Problem]:
    backend = backend.strip("{} ").replace(", ", "\n    ")
    return list(loads(TEXT.format(backend=backend, offline=offline), folder, file="edgewise.yaml").warnings)


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        ("kind: grpc, target: 'gateway.example:1'", "nothing says that its server remembers"),
        (
            "kind: grpc, target: 'gateway.example:1', remembers_keys: 1h",
            "its server remembers idempotency keys for 60 min",
        ),
        ("kind: grpc, target: 'gateway.example:1', remembers_keys: 23h", "for 23 h 0 min"),
        ("kind: openai, url: 'https://a.example/v1', model: m", "nothing says that its server remembers"),
        ("kind: grpc, protocol: gemini, target: 'a.example:1', model: m", "nothing says that its server remembers"),
    ],
)
def test_a_queue_that_lives_longer_than_the_server_remembers_is_warned_of(
    tmp_path: Path, backend: str, says: str
) -> None:
    [warning] = warnings(tmp_path, backend)
    assert warning.severity is Severity.WARNING
    assert "may be sent again for 24 h 0 min, and run twice there" in warning.sentence
    assert says in warning.sentence
    assert warning.position is not None
    line = 3 + len(backend.split(", ")) if "remembers_keys" in backend else 3
    assert warning.position.line == line
    rendered = warning.render()
    assert "^" in rendered
    assert "mend: " in rendered


@pytest.mark.parametrize(
    ("backend", "offline"),
    [
        ("kind: grpc, target: 'gateway.example:1', remembers_keys: 24h", OUTBOX),
        ("kind: grpc, target: 'gateway.example:1', remembers_keys: 1h", "outbox: outbox.db, queue_ttl: 30m"),
        ("kind: grpc, target: 'gateway.example:1'", "queue_ttl: 24h"),
        ("kind: grpc, target: 'gateway.example:1', tasks: [embed]", OUTBOX),
        ("kind: openai, url: 'https://a.example/v1', model: m, remembers_keys: 2d", OUTBOX),
        ("kind: grpc, protocol: gemini, target: 'a.example:1', model: m, remembers_keys: 0s", OUTBOX),
    ],
)
def test_no_warning_where_nothing_can_run_twice(tmp_path: Path, backend: str, offline: str) -> None:
    assert warnings(tmp_path, backend, offline) == []


def test_a_protocol_without_keys_has_no_memory_of_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="sent no idempotency keys"):
        warnings(tmp_path, "kind: grpc, protocol: oip, target: 'a.example:1', model: m, remembers_keys: 1h")


def test_a_router_tells_the_warnings_of_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "edgewise.yaml"
    file.write_text(TEXT.format(backend="kind: grpc\n    target: 'gateway.example:1'", offline=OUTBOX))
    with caplog.at_level(logging.WARNING, "edgewise"):
        AsyncRouter.from_yaml(file)
        Router.from_yaml(os.fspath(file)).close()
    assert [each.getMessage().count("run twice there: nothing") for each in caplog.records] == [1, 1]
    assert "edgewise.yaml:3:" in caplog.text
