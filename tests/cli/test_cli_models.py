"""`edgewise models`: list, add, pull, verify, remove."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Invoke, process

WEIGHTS = b"weights of a small model" * 1000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
FILES = (".gitattributes", "small.bin", "onnx/model.onnx", "onnx/sub/weights")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    """Serves the file at its own path, and as a Hugging Face repository would."""

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(WEIGHTS)

    def _answer(self, body: bytes) -> None:
        if self.path.startswith("/api/models/owner/name/revision/"):
            self._tell_files()
            return
        name = re.fullmatch("/owner/name/resolve/(v1|[0-9a-f]{40})/(.+)", self.path)
        found = self.path == "/small.bin" or (name is not None and name[2] in FILES)
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(WEIGHTS)) if found else "0")
        self.send_header("ETag", f'"{SHA256}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if found:
            self.wfile.write(body)

    def _tell_files(self) -> None:
        files = [{"rfilename": name, "size": len(WEIGHTS)} for name in FILES]
        tags = ["onnx", "license:apache-2.0"]
        body = json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": files, "tags": tags}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the command's output is read."""


@pytest.fixture
def web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEWISE_MODELS", str(tmp_path / "store"))
    return tmp_path / "store"


def configure(folder: Path, source: str, sha256: str | None = SHA256) -> None:
    """An edgewise.yaml with a local backend on this model."""
    pin = f", sha256: {sha256}" if sha256 else ""
    (folder / "edgewise.yaml").write_text(
        f"""\
version: 1
models:
  small: {{source: "{source}", license: apache-2.0{pin}}}
backends:
  phone: {{kind: llama_cpp, model: small, location: device}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
  default_data_class: public
"""
    )


@pytest.mark.parametrize("command", ["list", "pull", "add", "verify", "remove"])
def test_every_command_shows_an_example_of_its_own(invoke: Invoke, command: str) -> None:
    _, _, shown = invoke("models", command, "--help").output.partition("Examples:")
    assert f"edgewise models {command}" in shown


def test_what_is_missing_is_listed_with_the_command_that_fetches_it_and_pull_does(
    invoke: Invoke, tmp_path: Path, store: Path, web: str
) -> None:
    configure(tmp_path, f"{web}/small.bin")
    listed = invoke("models", "list").output
    assert "is not on this device; fetch it by `edgewise models pull small`" in listed
    pulled = invoke("models", "pull")
    assert pulled.exit_code == 0
    assert "licence apache-2.0" in pulled.output
    assert (store / SHA256).read_bytes() == WEIGHTS
    assert "here" in invoke("models", "list").output
    assert "small is good" in invoke("models", "verify").output


def test_the_check_of_a_configuration_tells_of_the_missing_file_too(invoke: Invoke, tmp_path: Path, web: str) -> None:
    configure(tmp_path, f"{web}/small.bin")
    assert "`edgewise models pull small`" in invoke("check").output


def test_what_add_prints_is_what_a_configuration_needs(invoke: Invoke, web: str) -> None:
    added = invoke("models", "add", f"{web}/small.bin", "--name", "small", "--license", "mit")
    assert added.exit_code == 0
    assert yaml.safe_load(added.stdout) == {
        "models": {"small": {"source": f"{web}/small.bin", "sha256": SHA256, "license": "mit"}}
    }
    assert "licence mit" in added.stderr


def test_a_file_that_was_added_serves_a_device_without_a_network(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "stick.bin").write_bytes(WEIGHTS)
    written = yaml.safe_load(invoke("models", "add", "file:stick.bin").stdout)["models"]["model"]
    assert written == {"source": "store:stick.bin", "sha256": SHA256}
    (tmp_path / "stick.bin").unlink()
    configure(tmp_path, written["source"])
    assert "small is good" in invoke("models", "verify", "small").output
    configure(tmp_path, "https://models.example.com/small.bin")
    assert invoke("models", "pull").exit_code == 0


def test_programs_get_all_of_it_as_json(invoke: Invoke, tmp_path: Path, store: Path, web: str) -> None:
    configure(tmp_path, "file:none.bin", sha256=None)
    invoke("models", "add", f"{web}/small.bin")
    listed = json.loads(invoke("models", "list", "--format", "json").output)
    assert listed["store"] == str(store)
    assert [(each["name"], each["here"]) for each in listed["models"]] == [("small", False)]
    assert [(each["sha256"], each["size"]) for each in listed["others"]] == [(SHA256, len(WEIGHTS))]


def test_what_each_command_did_is_json_for_programs(invoke: Invoke, tmp_path: Path, store: Path, web: str) -> None:
    def as_json(*arguments: str) -> Any:
        return json.loads(invoke("models", *arguments, "--format", "json").stdout)

    configure(tmp_path, f"{web}/small.bin")
    (pulled,) = as_json("pull")["models"]
    assert (pulled["name"], pulled["here"], pulled["path"]) == ("small", True, str(store / SHA256))
    added = as_json("add", f"{web}/small.bin", "--name", "small")
    assert added["models"] == {"small": {"source": f"{web}/small.bin", "sha256": SHA256, "license": "apache-2.0"}}
    verified = as_json("verify")
    assert [(each["name"], each["good"]) for each in verified["models"]] == [("small", True)]
    assert verified["store"] == [{"sha256": SHA256, "good": True}]
    (store / SHA256).write_bytes(b"altered")
    assert [each["good"] for each in as_json("verify", "small")["models"]] == [False]
    assert as_json("remove", "small")["removed"]["sha256"] == SHA256


@pytest.mark.parametrize("name", ["true", "my: model", "'\"", "模型"])
def test_whatever_the_name_the_lines_to_copy_are_yaml(invoke: Invoke, tmp_path: Path, name: str) -> None:
    (tmp_path / '😀 "x": y.gguf').write_bytes(WEIGHTS)
    added = invoke("models", "add", 'file:😀 "x": y.gguf', "--name", name)
    assert yaml.safe_load(added.stdout)["models"] == {name: {"source": 'store:😀 "x": y.gguf', "sha256": SHA256}}


def test_a_name_that_is_no_unicode_is_no_source(invoke: Invoke) -> None:
    added = invoke("models", "add", "file:\udcff.gguf")
    assert added.exit_code == 2
    assert "none of those that the help lists" in added.stderr


def test_nothing_that_steers_a_terminal_is_taken(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "m\x1b]0;title\x07.gguf").write_bytes(WEIGHTS)
    assert invoke("models", "add", "file:m\x1b]0;title\x07.gguf").exit_code == 2
    (tmp_path / "m.gguf").write_bytes(WEIGHTS)
    refused = invoke("models", "add", "file:m.gguf", "--license", "\x1b]0;title\x07")
    assert refused.exit_code == 2
    assert "control characters" in refused.stderr


def test_one_that_cannot_be_fetched_does_not_keep_the_others_from_it(
    invoke: Invoke, tmp_path: Path, store: Path, web: str
) -> None:
    configure(tmp_path, f"{web}/small.bin")
    text = (tmp_path / "edgewise.yaml").read_text()
    gone = f'models:\n  gone: {{source: "{web}/gone.bin", sha256: {"ab" * 32}}}\n'
    (tmp_path / "edgewise.yaml").write_text(text.replace("models:\n", gone))
    pulled = invoke("models", "pull")
    assert pulled.exit_code == 1
    assert "answers with status 404" in pulled.stderr
    assert (store / SHA256).read_bytes() == WEIGHTS


def test_an_altered_file_is_told_and_ends_with_failure(invoke: Invoke, tmp_path: Path, store: Path, web: str) -> None:
    configure(tmp_path, f"{web}/small.bin")
    invoke("models", "pull")
    (store / SHA256).write_bytes(WEIGHTS + b"!")
    verified = invoke("models", "verify")
    assert verified.exit_code == 1
    assert "model 'small' is altered" in verified.output
    assert f"{SHA256[:12]} in the store is altered" in verified.output
    invoke("models", "pull")
    assert invoke("models", "verify").exit_code == 0


@pytest.mark.parametrize("which", ["small", SHA256, SHA256[:8].upper()])
def test_a_file_is_removed_by_its_name_or_the_beginning_of_its_sum(
    invoke: Invoke, tmp_path: Path, store: Path, web: str, which: str
) -> None:
    configure(tmp_path, f"{web}/small.bin")
    invoke("models", "pull")
    assert f"removed {SHA256[:12]}" in invoke("models", "remove", which).output
    assert not (store / SHA256).exists()


def test_what_began_to_come_is_listed_and_removed_by_its_models_name(
    invoke: Invoke, tmp_path: Path, store: Path, web: str
) -> None:
    configure(tmp_path, f"{web}/small.bin")
    (store / "incoming").mkdir(parents=True)
    (store / "incoming" / SHA256).write_bytes(WEIGHTS[:5000])
    (store / "incoming" / f"{SHA256}.lock").touch()
    assert "`remove` drops it" in invoke("models", "list").output
    (begun,) = json.loads(invoke("models", "list", "--format", "json").output)["unfinished"]
    assert (begun["sha256"], begun["size"]) == (SHA256, 5000)
    assert invoke("models", "remove", "small").exit_code == 0
    assert json.loads(invoke("models", "list", "--format", "json").output)["unfinished"] == []


@pytest.mark.parametrize("which", ["small", "", SHA256[:3], "nothing"])
def test_what_names_no_one_file_removes_none(invoke: Invoke, web: str, store: Path, which: str) -> None:
    invoke("models", "add", f"{web}/small.bin")
    assert invoke("models", "remove", which).exit_code == 1
    assert (store / SHA256).exists()


def test_a_name_that_the_configuration_does_not_have_is_told(invoke: Invoke, tmp_path: Path) -> None:
    configure(tmp_path, "file:none.bin")
    pulled = invoke("models", "pull", "smal")
    assert pulled.exit_code == 1
    assert "did you mean 'small'?" in pulled.stderr


def test_a_model_without_a_sum_is_not_pulled_on_trust(invoke: Invoke, tmp_path: Path, store: Path, web: str) -> None:
    configure(tmp_path, f"{web}/small.bin", sha256=None)
    pulled = invoke("models", "pull")
    assert pulled.exit_code == 1
    assert "needs its sum" in pulled.stderr
    assert not store.exists()


def test_a_wrong_sum_leaves_nothing_behind(invoke: Invoke, tmp_path: Path, store: Path, web: str) -> None:
    configure(tmp_path, f"{web}/small.bin", sha256="ab" * 32)
    pulled = invoke("models", "pull")
    assert pulled.exit_code == 1
    assert "is not what it should be" in pulled.stderr
    assert not [path for path in store.iterdir() if path.is_file()]


def test_a_file_of_a_hugging_face_repository_is_fetched_by_their_library(tmp_path: Path, store: Path, web: str) -> None:
    configure(tmp_path, "hf:owner/name/small.bin@v1")
    environment = {"EDGEWISE_MODELS": str(store), "HF_ENDPOINT": web, "HF_HOME": str(tmp_path / "hf")}
    with process("models", "pull", cwd=tmp_path, environment=environment) as pull:
        _, errors = pull.communicate(timeout=60)
    assert pull.returncode == 0, errors
    assert (store / SHA256).read_bytes() == WEIGHTS
    # No bar in what is no terminal.
    assert "\r" not in errors
    assert "%" not in errors


def test_the_licence_that_a_repository_states_is_shown_and_kept(tmp_path: Path, store: Path, web: str) -> None:
    environment = {"EDGEWISE_MODELS": str(store), "HF_ENDPOINT": web, "HF_HOME": str(tmp_path / "hf")}
    with process("models", "add", "hf:owner/name/small.bin@v1", cwd=tmp_path, environment=environment) as add:
        printed, errors = add.communicate(timeout=60)
    assert "licence apache-2.0" in errors
    assert yaml.safe_load(printed)["models"]["model"]["license"] == "apache-2.0"


def test_a_hub_that_is_out_of_reach_is_no_matter_of_names(tmp_path: Path, store: Path) -> None:
    environment = {"EDGEWISE_MODELS": str(store), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    with process("models", "add", "hf:owner/name/small.bin", cwd=tmp_path, environment=environment) as add:
        _, errors = add.communicate(timeout=60)
    assert "Hugging Face cannot be reached (ConnectError); try again when online" in errors


def test_a_repository_that_does_not_have_the_file_is_told(tmp_path: Path, store: Path, web: str) -> None:
    configure(tmp_path, "hf:owner/name/other.bin")
    environment = {"EDGEWISE_MODELS": str(store), "HF_ENDPOINT": web, "HF_HOME": str(tmp_path / "hf")}
    with process("models", "pull", cwd=tmp_path, environment=environment) as pull:
        _, errors = pull.communicate(timeout=60)
    assert pull.returncode == 1
    assert "owner/name has no other.bin; compare the names" in errors
    assert "Traceback" not in errors


def test_a_folder_is_added_listed_verified_and_removed(invoke: Invoke, tmp_path: Path, store: Path) -> None:
    (tmp_path / "many" / "sub").mkdir(parents=True)
    (tmp_path / "many" / "model.gguf").write_bytes(WEIGHTS)
    (tmp_path / "many" / "sub" / "words").write_text("words")
    written = yaml.safe_load(invoke("models", "add", "file:many/").stdout)["models"]["model"]
    assert written["source"] == "store:many/"
    configure(tmp_path, written["source"], written["sha256"])
    assert "small is good" in invoke("models", "verify", "small").output
    listed = json.loads(invoke("models", "list", "--format", "json").output)["models"][0]
    assert (listed["here"], listed["size"]) == (True, len(WEIGHTS) + 5)
    assert listed["path"] == str(store / written["sha256"] / "model.gguf")
    (store / written["sha256"] / "sub" / "words").write_text("swords")
    verified = invoke("models", "verify")
    assert verified.exit_code == 1
    assert "model 'small' is altered" in verified.output
    assert "in the store is altered" in verified.output
    assert invoke("models", "remove", "small").exit_code == 0
    assert not (store / written["sha256"]).exists()


def test_a_folder_of_several_models_is_added_with_the_word_that_one_must_be_named(
    invoke: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "many").mkdir()
    for name in ("model.gguf", "model-q4.gguf"):
        (tmp_path / "many" / name).write_bytes(WEIGHTS)
    added = invoke("models", "add", "file:many/", "--name", "small")
    assert added.exit_code == 0
    written = yaml.safe_load(added.stdout)["models"]["small"]
    assert "name one of its files by `models.small.file`" in " ".join(added.stderr.split())
    configure(tmp_path, written["source"] + '", file: "model-q4.gguf', written["sha256"])
    assert "small is good" in invoke("models", "verify", "small").output


def test_the_sum_of_what_has_none_is_told(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "small.bin").write_bytes(WEIGHTS)
    configure(tmp_path, "file:small.bin", sha256=None)
    assert f"has no sha256 to compare; that of what is here is {SHA256}" in invoke("models", "verify").output


def test_a_folder_of_a_hugging_face_repository_is_fetched_whole(tmp_path: Path, store: Path, web: str) -> None:
    environment = {"EDGEWISE_MODELS": str(store), "HF_ENDPOINT": web, "HF_HOME": str(tmp_path / "hf")}
    for source, files in (
        ("hf:owner/name/onnx/@v1", ["model.onnx", "sub/weights"]),
        ("hf:owner/name/@v1", ["onnx/model.onnx", "onnx/sub/weights", "small.bin"]),
    ):
        with process("models", "add", source, cwd=tmp_path, environment=environment) as add:
            printed, errors = add.communicate(timeout=60)
        assert add.returncode == 0, errors
        written = yaml.safe_load(printed)["models"]["model"]
        assert written["source"] == source
        folder = store / written["sha256"]
        assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == files
    assert [path.name for path in (store / "incoming").iterdir() if path.suffix != ".lock"] == []
