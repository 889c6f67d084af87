"""A configuration for tests of policies that change: a cloud that another country runs, and a gateway at home."""

from __future__ import annotations

TEXT = """\
version: 1
backends:
  cloud:
    kind: grpc
    target: 127.0.0.1:50051
    location: {process_in: [NL], store_in: [], operators: [US], evidence: contractual}
    quality: 0.9
  gateway:
    kind: grpc
    target: 127.0.0.1:50052
    location: {process_in: [DE], store_in: [], operators: [DE], evidence: contractual}
    quality: 0.6
policy:
  data_classes:
    personal: {process_in: [EU], operators: [EU, US]}
  defaults: {latency_budget: 20s}
"""


def strict(text: str) -> str:
    """The same, where personal data may no longer go to the cloud."""
    return text.replace("operators: [EU, US]", "operators: [EU]", 1)
