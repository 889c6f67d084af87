"""The two configurations of the demonstration: the server's own, and the application's."""

from __future__ import annotations

from .machine import MINILM, MINILM_TOKENIZER, SMOLLM2

PHONE = "phone"
CLOUD = "cloud"
EMBEDDER = "embedder"

SERVER = f"""\
version: 1
models:
  smollm2: {{source: "{SMOLLM2.source}"}}
backends:
  smollm2: {{kind: llama_cpp, model: smollm2}}
policy:
  data_classes:
    any-class: {{process_in: [any]}}
serve:
  listen: 127.0.0.1:0
  place: NL
  drain: 2s
"""


def application(target: str) -> str:
    """The application's configuration; the server listens at ``target``."""
    return f"""\
version: 1
models:
  smollm2: {{source: "{SMOLLM2.source}"}}
  minilm: {{source: "{MINILM.source}"}}
  minilm-tokenizer: {{source: "{MINILM_TOKENIZER.source}"}}
backends:
  {PHONE}: {{kind: llama_cpp, model: smollm2, location: device, quality: 0.35}}
  {EMBEDDER}: {{kind: onnx, task: embed, model: minilm, tokenizer: minilm-tokenizer, location: device}}
  {CLOUD}:
    kind: grpc
    target: {target}
    tasks: [generate]
    location: {{process_in: [NL], store_in: [], operators: [US], evidence: contractual}}
    quality: 0.88
policy:
  sites: {{praxis: {{in: DE}}}}
  data_classes:
    public: {{process_in: [any]}}
    personal: {{process_in: [EU, CH], operators: [EU, CH, US]}}
    health: {{process_in: ["site:praxis"], operators: [DE], evidence: attested}}
  default_data_class: personal
  # Generous, because two copies of a model share this machine. The tight budget is one step's own.
  defaults: {{latency_budget: 3m, order: [quality, latency, cost]}}
  rules:
    # On two machines a hedge brings the sooner answer. On one it takes the processor from the call that it hedges.
    - name: both share one processor
      when: request.task == "generate"
      set: {{hedge: false}}
"""
