"""Every preset loads without a warning, keeps its cases, and has a case for each of its rules."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgewise.router.cli.main import edgewise
from edgewise.router.config import load

FOLDER = files("edgewise.policies") / "presets"
NAMES = ("battery-aware", "cost-saver", "eu-residency", "health-on-device", "latency-first", "offline-first")
BACKENDS = """\
version: 1
models: {small: {source: "file:small.gguf"}}
backends:
  phone: {kind: llama_cpp, model: small, quality: 0.35}
  sovereign:
    kind: grpc
    target: models.example.de:443
    location: {process_in: [DE], store_in: [], operators: [DE], evidence: contractual}
    quality: 0.6
    price: {input: 0.2, output: 1.0}
  cloud-eu:
    kind: grpc
    target: eu.models.example.com:443
    location: {process_in: [NL], store_in: [NL], operators: [US], evidence: contractual}
    quality: 0.75
    price: {input: 0.3, output: 1.5}
  cloud-us:
    kind: grpc
    target: us.models.example.com:443
    location: {process_in: [US], store_in: [US], operators: [US]}
    quality: 0.9
    price: {input: 0.5, output: 2.5}
"""


def test_there_are_the_presets_that_the_documentation_names() -> None:
    found = {each.name for each in FOLDER.iterdir()}
    assert found == {f"{name}{ending}" for name in NAMES for ending in (".yaml", ".tests.yaml")}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_does_as_its_cases_expect(tmp_path: Path, name: str) -> None:
    preset = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    file = tmp_path / "edgewise.yaml"
    file.write_text(BACKENDS + preset, encoding="utf-8")
    assert load(file).warnings == ()
    cases = str(FOLDER / f"{name}.tests.yaml")
    result = CliRunner().invoke(edgewise, ["policy", "test", cases, "-c", str(file), "--cover", "--format", "json"])
    told = json.loads(result.output)
    assert (result.exit_code, told["ok"], told["rules_never_matched"]) == (0, True, []), result.output
