"""`ask` and `plan`: what goes to stdout, what to stderr, and with which exit code they end."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewise.core.failure import AttemptError, FailureKind
from edgewise.testing import Script

from .conftest import COMMAND, Invoke, process, write_configuration

MakeServer = Callable[[Script], str]

BREAKS = Script(words=("one ", "two "), failure=AttemptError(FailureKind.CRASHED, "gone"), fails_after=2)


def test_ask_prints_the_text_and_nothing_else_on_stdout(
    invoke: Invoke, make_server: MakeServer, tmp_path: Path
) -> None:
    write_configuration(tmp_path, cloud=make_server(Script(words=("a ", "short ", "answer"))))
    result = invoke("ask", "Hello")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "a short answer\n", "")


def test_explain_says_on_stderr_who_answered_and_why(invoke: Invoke, make_server: MakeServer, tmp_path: Path) -> None:
    write_configuration(tmp_path, cloud=make_server(Script()))
    result = invoke("ask", "--explain", "Hello")
    assert result.stdout == "a scripted answer\n"
    assert "answered by cloud" in result.stderr


def test_a_change_of_backend_is_marked_on_stderr_and_loses_no_text(
    invoke: Invoke, make_server: MakeServer, tmp_path: Path
) -> None:
    continues = make_server(Script(words=("three ", "four")))
    write_configuration(tmp_path, first=make_server(BREAKS), second=continues)
    result = invoke("ask", "Hello")
    assert (result.exit_code, result.stdout) == (0, "one two three four\n")
    assert "⟦seam: first → second" in result.stderr


def test_json_has_the_answer_and_its_decision(invoke: Invoke, make_server: MakeServer, tmp_path: Path) -> None:
    write_configuration(tmp_path, cloud=make_server(Script()))
    answer = json.loads(invoke("ask", "--format", "json", "Hello").stdout)
    assert (answer["text"], answer["backend"], answer["finish_reason"]) == ("a scripted answer", "cloud", "stop")
    assert answer["decision"]["answered_by"] == "cloud"
    assert "Hello" not in json.dumps(answer["decision"])


def test_a_prompt_may_come_from_standard_input(invoke: Invoke, make_server: MakeServer, tmp_path: Path) -> None:
    write_configuration(tmp_path, cloud=make_server(Script()))
    assert invoke("ask", "-", text="Hello").stdout == "a scripted answer\n"
    refused = invoke("ask", "-", text=b"\xff\xfe")
    assert refused.exit_code == 2
    assert "UTF-8" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--data-class", "secret"], 3, "cloud: class 'secret' permits"),
        (["--data-class", "pubic"], 2, "did you mean 'public'"),
        (["--offline"], 3, "offline"),
        (["--latency-budget", "0s"], 2, "more than 0 seconds"),
        (["--latency-budget", "soon"], 2, "not a duration"),
        (["--max-output-tokens", "0"], 2, "max_output_tokens"),
        (["--tag", "ward"], 2, "NAME=VALUE"),
        (["--process-in", "DE"], 3, "cloud"),
        (["--config", "nowhere.yaml"], 1, "nowhere.yaml:1:1: error:"),
        ([], 1, "cloud"),
    ],
)
@pytest.mark.parametrize("command", ["ask", "plan"])
def test_exit_codes_tell_what_ended_a_command(
    invoke: Invoke, closed_address: str, tmp_path: Path, command: str, arguments: list[str], code: int, words: str
) -> None:
    write_configuration(tmp_path, cloud=closed_address)
    result = invoke(command, *arguments, "Hello")
    if command == "plan" and not arguments:
        code = 0  # that nobody listens shows in calls alone, and a plan makes none
    assert result.exit_code == code, result.output
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_budget_that_runs_out_ends_with_4(invoke: Invoke, silent_address: str, tmp_path: Path) -> None:
    write_configuration(tmp_path, cloud=silent_address)
    result = invoke("ask", "--latency-budget", "300ms", "Hello")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "within 300 ms" in result.stderr


def test_an_error_in_json_has_its_type_and_the_partial_text(
    invoke: Invoke, make_server: MakeServer, tmp_path: Path
) -> None:
    write_configuration(tmp_path, cloud=make_server(Script(words=("a ", "b ", "c"), silent_after=2)))
    result = invoke("ask", "--latency-budget", "1s", "--format", "json", "Hello")
    error = json.loads(result.stdout)["error"]
    assert result.exit_code == 4
    assert (error["type"], error["partial"]) == ("DeadlineExceeded", "a b ")
    assert error["decision"]["attempts"]


def test_an_empty_prompt_is_refused(invoke: Invoke, closed_address: str, tmp_path: Path) -> None:
    write_configuration(tmp_path, cloud=closed_address)
    result = invoke("ask", " ")
    assert result.exit_code == 2
    assert result.stderr == "error: the prompt is empty; give a text to answer\n"


def test_plan_shows_steps_and_refusals_and_sends_nothing(
    invoke: Invoke, make_server: MakeServer, tmp_path: Path, closed_address: str
) -> None:
    write_configuration(tmp_path, cloud=closed_address, gateway=closed_address)
    result = invoke("plan", "--backend", "gateway", "--latency-budget", "9s", "Hello")
    assert result.exit_code == 0
    assert "gateway" in result.stdout
    assert "budget: 9 s" in result.stdout
    assert "not cloud: the caller asked for gateway (caller_narrowed)" in result.stdout


def test_plan_gives_the_same_to_programs(invoke: Invoke, closed_address: str, tmp_path: Path) -> None:
    write_configuration(tmp_path, cloud=closed_address, gateway=closed_address)
    planned = json.loads(invoke("plan", "--format", "json", "Hello").stdout)
    assert [step["backend"] for step in planned["steps"]] == ["cloud", "gateway"]
    assert planned["steps"][1]["last_resort"]
    assert planned["steps"][0]["total_p95"] > planned["steps"][0]["first_token_p95"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_an_answer_cleanly_and_keeps_what_came(
    make_server: MakeServer, tmp_path: Path, number: signal.Signals
) -> None:
    write_configuration(tmp_path, cloud=make_server(Script(words=("first ", "second"), silent_after=1)))
    with process("ask", "Hello", cwd=tmp_path) as asked:
        assert asked.stdout is not None
        assert asked.stdout.read(len("first ")) == "first "
        asked.send_signal(number)
        out, err = asked.communicate(timeout=30)
    assert asked.returncode == 130
    assert (out, err) == ("\n", "interrupted\n")


@pytest.mark.parametrize("given", ["2.5", "2500ms", ".5", "3s"])
def test_a_duration_may_be_a_bare_number_of_seconds(
    invoke: Invoke, closed_address: str, given: str, tmp_path: Path
) -> None:
    write_configuration(tmp_path, cloud=closed_address)
    planned = json.loads(invoke("plan", "--latency-budget", given, "--format", "json", "Hello").stdout)
    assert planned["latency_budget"] == {"2.5": 2.5, "2500ms": 2.5, ".5": 0.5, "3s": 3.0}[given]


@pytest.mark.parametrize(
    "command", [["ask", "Hello"], ["ask", "--format", "json", "Hello"], ["plan", "Hello"], ["check"]]
)
def test_output_that_cannot_be_written_is_said_in_one_line(
    make_server: MakeServer, tmp_path: Path, command: list[str]
) -> None:
    write_configuration(tmp_path, cloud=make_server(Script()))
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*COMMAND, *command], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "error: cannot write to standard output: No space left on device",
        "  mend: send it elsewhere",
    ]


def test_a_closed_output_is_said_and_a_broken_pipe_is_not(make_server: MakeServer, tmp_path: Path) -> None:
    write_configuration(tmp_path, cloud=make_server(Script()))
    said = {}
    for shell in ('"$@" >&-', 'set -o pipefail; "$@" | head -0'):
        ended = subprocess.run(
            ["bash", "-c", shell, "bash", *COMMAND, "ask", "Hello"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 1
        said[shell] = ended.stderr
    assert list(said.values()) == [
        "error: standard output is closed\n  mend: open it, or send it to a file\n",
        "",
    ]


def test_a_model_that_is_missing_is_told_once(invoke: Invoke, tmp_path: Path) -> None:
    text = (
        "version: 1\nmodels:\n  own: {source: 'file:own.gguf'}\nbackends:\n  phone: {kind: llama_cpp, model: own}\n"
        "policy:\n  data_classes:\n    public: {process_in: [any]}\n"
    )
    (tmp_path / "edgewise.yaml").write_text(text, encoding="utf-8")
    result = invoke("ask", "Hello")
    assert result.exit_code == 1
    assert result.stderr.count("own.gguf") == 1


def test_a_wrong_configuration_is_json_too(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "edgewise.yaml").write_text("version: 2\n", encoding="utf-8")
    for command in ("ask", "plan"):
        result = invoke(command, "--format", "json", "Hello")
        error = json.loads(result.stdout)["error"]
        assert (result.exit_code, error["type"], error["sentence"]) == (
            1,
            "ConfigurationError",
            "the configuration has mistakes",
        )
        assert [each["sentence"] for each in error["problems"] if each["severity"] == "error"] == [
            "there is no backend",
            "this version is not known",
        ]
