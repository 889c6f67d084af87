"""The starter configuration: commented YAML for what there is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from .machine import LLAMA, MINILM, MINILM_TOKENIZER, ONNX, SMOLLM2, PackagedModel


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A packaged model that is here, and its file's sha256."""

    model: PackagedModel
    sha256: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a starter configuration can use. ``remote`` is the target of a service that the user named."""

    generates: FoundModel | None
    embeds: tuple[FoundModel, FoundModel] | None
    remote: str | None

    @property
    def models(self) -> Sequence[FoundModel]:
        """All models that are used."""
        return [*([self.generates] if self.generates else []), *(self.embeds or ())]

    @property
    def backends(self) -> Sequence[str]:
        """The names of the backends to configure."""
        named = {"phone": self.generates, "embedder": self.embeds, "cloud": self.remote}
        return [name for name, found in named.items() if found]


PRESETS = ("latency-first", "offline-first", "cost-saver", "eu-residency", "health-on-device", "battery-aware")
"""Policies to start from, in place of the starter's own."""


def preset_text(name: str) -> str:
    """A preset's ``policy:`` section, with a comment that says what it is for."""
    return (files("edgewise.policies") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def starter(found: Found, preset: str | None = None) -> str:
    """The text of a configuration that can be used as it is, and says what to change. ``preset`` is one's name."""
    remote_target = found.remote or "models.example.com:443"
    sections = [
        _HEAD,
        _models(found.models),
        "backends:\n",
        _PHONE if found.generates else _commented(_PHONE, _missing_phone()),
        _EMBEDDER if found.embeds else _commented(_EMBEDDER, _missing_embedder()),
        _remote(remote_target) if found.remote else _commented(_remote(remote_target), _FILL_IN),
        _POLICY if preset is None else preset_text(preset),
        _SERVE,
    ]
    return "\n".join(sections)


def _models(models: Sequence[FoundModel]) -> str:
    if not models:
        return _MODELS_HEAD + "models: {}\n"
    entries = [
        f"  {each.model.name}:  # {each.model.what}\n"
        f"    source: {json.dumps(each.model.source)}\n"
        f"    sha256: {each.sha256}\n"
        f"    license: {each.model.license}\n"
        for each in models
    ]
    return _MODELS_HEAD + "models:\n" + "".join(entries)


def _commented(block: str, why: str) -> str:
    return "".join(f"  # {line}\n" for line in why.splitlines()) + "".join(
        f"  # {line.removeprefix('  ')}\n" for line in block.splitlines()
    )


def _missing_phone() -> str:
    return f"A model on this device wants {LLAMA.install}\nand {SMOLLM2.install}; then run `edgewise init` again."


def _missing_embedder() -> str:
    return (
        f"Embeddings on this device want {ONNX.install}\n"
        f"and {MINILM.install} {MINILM_TOKENIZER.distribution}; then run `edgewise init` again."
    )


def _remote(target: str) -> str:
    return f"""\
  cloud:
    kind: grpc
    protocol: edgewise            # what `edgewise serve` speaks
    target: {json.dumps(target)}
    tasks: [generate]             # what is used there; `embed` and `infer` are the others
    # Where content might go there. While this says [any], only classes that allow [any] go there: `public` below.
    # Say what is true, for instance {{process_in: [NL], store_in: [], operators: [US], evidence: contractual}}.
    location: {{process_in: [any], store_in: [any], operators: [any]}}
    quality: 0.80
    # credentials: ${{CLOUD_TOKEN}}  # secrets come from the environment only
    price: {{input: 0.00, output: 0.00}}  # US dollars per million tokens
    # labels: [metered]             # a name that rules can use
"""


_HEAD = """\
# Which models answer, and which requests may go where. `edgewise check` judges this file.
# Every key is explained in docs/configuration.md.
version: 1
"""

_MODELS_HEAD = """\
# Model files. Nothing is downloaded at run time; a file whose sha256 differs is refused.
"""

_PHONE = """\
  phone:                          # answers prompts on this device, by llama.cpp
    kind: llama_cpp
    model: smollm2
    context_tokens: 2048
    location: device              # satisfies every data class
    quality: 0.35                 # from 0 to 1, beside the others'
"""

_EMBEDDER = """\
  embedder:                       # embeds texts on this device, by ONNX Runtime
    kind: onnx
    task: embed
    model: minilm
    tokenizer: minilm-tokenizer
    location: device
"""

_FILL_IN = "A remote model service: fill in, and remove the marks of comment."

_POLICY = """\
policy:
  # A class says where its content may be; a backend says where it might go; everything must fit.
  # Places are countries (DE), groups (EU, EEA) and sites of your own (`sites: {praxis: {in: DE}}`, then site:praxis).
  data_classes:
    public:                       # may go anywhere
      process_in: [any]
    personal:                     # processed, stored and operated in the EU or Switzerland, by contract
      process_in: [EU, CH]
      evidence: contractual
    health:                       # never leaves this device
      process_in: []
  # Content that nobody gave a class has this one.
  default_data_class: personal

  defaults:
    latency_budget: 30s           # from the call to the last of the answer
    order: [quality, latency, cost]

  # All rules that match apply. They only narrow: no rule opens what a class closes.
  rules:
    - name: long prompts go to a remote model where one is permitted
      when: request.prompt_tokens > 1500
      prefer: [remote]
    - name: save the battery
      when: device.battery_percent < 20 && !device.charging
      avoid: [device]             # last in order; still there when nothing else is
    # - name: pay for nothing on a metered link
    #   when: connectivity.metered && request.priority != "high"
    #   deny: [metered]

  resilience:
    retry: {max_attempts: 3, initial_backoff: 50ms, max_backoff: 2s}
    stream_failover: continue     # another backend completes a stream that breaks
"""

_SERVE = """\
# `edgewise serve` offers this device's backends to other routers.
serve:
  listen: 127.0.0.1:50051         # another address needs `certificate` and `key`
  # place: NL                     # where this device is; without it, calls that may not go everywhere are refused
"""
