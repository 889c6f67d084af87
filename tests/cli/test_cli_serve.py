"""`edgewise serve` with a real model: loads, says when it is ready, answers `edgewise ask`, ends when told to."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path

import psutil

from edgewise.router import Router

from .conftest import Invoke, process


def test_a_served_model_answers_over_loopback_until_the_server_is_told_to_stop(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("init", "server.yaml").exit_code == 0
    with process("serve", "-c", "server.yaml", "--listen", "127.0.0.1:0", "--place", "NL", cwd=tmp_path) as server:
        assert server.stdout is not None
        ready = server.stdout.readline()
        assert ready.startswith("serving phone, embedder on 127.0.0.1:")
        workers = psutil.Process(server.pid).children()

        address = ready.split()[-1]
        invoke("init", "--remote", address)
        asked = ["--data-class", "public", "--backend", "cloud", "--max-output-tokens", "8", "--temperature", "0"]
        answer = json.loads(invoke("ask", *asked, "--format", "json", "Name a colour.").stdout)
        assert (answer["backend"], answer["model"]) == ("cloud", "smollm2")
        assert 0 < answer["usage"]["output_tokens"] <= 8
        assert answer["text"]

        on_device = json.loads(
            invoke("ask", "--data-class", "health", "--max-output-tokens", "8", "--format", "json", "Hello").stdout
        )
        assert on_device["backend"] == "phone"

        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=60)
        assert (server.returncode, out) == (0, "")
        assert "loading phone" in err
        assert len(workers) == 2
        assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_a_stream_that_runs_when_the_server_is_told_to_stop_ends_whole(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("init", "server.yaml").exit_code == 0
    with process("serve", "-c", "server.yaml", "--listen", "127.0.0.1:0", cwd=tmp_path) as server:
        assert server.stdout is not None
        invoke("init", "--remote", server.stdout.readline().split()[-1])
        with Router.from_yaml(tmp_path / "edgewise.yaml") as router:
            stream = router.stream(
                "Count slowly.",
                data_class="public",
                backend="cloud",
                latency_budget="60s",
                first_token_budget="60s",
                max_output_tokens=24,
            )
            chunks = [next(stream)]
            server.send_signal(signal.SIGTERM)
            chunks += stream
        assert chunks[-1].answer is not None
        assert [attempt.failure for attempt in chunks[-1].answer.decision.attempts] == [None]
        _, err = server.communicate(timeout=60)
        assert server.returncode == 0
        assert "set `serve.place`, or give --place" in err


def test_a_port_in_use_is_said_in_one_sentence(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("init", "server.yaml").exit_code == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with process("serve", "-c", "server.yaml", "--listen", address, cwd=tmp_path) as server:
            out, err = server.communicate(timeout=60)
    assert (server.returncode, out) == (1, "")
    assert f"the address {address} is already in use" in err
    assert "loading" not in err
    assert "add_port" not in err
    assert "Traceback" not in err


def test_a_signal_while_models_load_ends_it_at_once(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("init", "server.yaml").exit_code == 0
    with process("serve", "-c", "server.yaml", cwd=tmp_path) as server:
        assert server.stderr is not None
        assert server.stderr.readline().startswith("loading phone")
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=30)
    assert (server.returncode, out) == (0, "")


def test_a_model_that_is_altered_is_not_served(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("init", "server.yaml").exit_code == 0
    file = tmp_path / "server.yaml"
    file.write_text(re.sub("sha256: .*", f"sha256: {'0' * 64}", file.read_text(encoding="utf-8")), encoding="utf-8")
    with process("serve", "-c", "server.yaml", cwd=tmp_path) as server:
        out, err = server.communicate(timeout=60)
    assert (server.returncode, out) == (1, "")
    assert "is altered" in err
    assert "Traceback" not in err


def test_a_configuration_without_a_backend_on_the_device_has_nothing_to_serve(invoke: Invoke, tmp_path: Path) -> None:
    text = "version: 1\nbackends:\n  cloud: {kind: grpc, target: '127.0.0.1:1', location: {process_in: [NL]}}\n"
    (tmp_path / "edgewise.yaml").write_text(text, encoding="utf-8")
    result = invoke("serve")
    assert result.exit_code == 1
    assert "no backend that runs on this device" in result.stderr
