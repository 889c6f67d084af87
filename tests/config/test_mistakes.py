"""Wrong configurations: each mistake has its line and column, all come at once, and no secret is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgewise.core.errors import PolicyError
from edgewise.core.problem import Problem
from edgewise.router.config import Configuration, load, loads

from .conftest import BACKENDS, FAR, POLICY, Mistakes


def places_of(problems: list[Problem]) -> list[tuple[int, int]]:
    return [(each.position.line, each.position.column) for each in problems if each.position]


@pytest.mark.parametrize(
    ("text", "place", "sentence", "mend"),
    [
        # the file as YAML
        ("", (1, 1), "is empty", "edgewise init"),
        ("# nothing\n", (1, 1), "is empty", "edgewise init"),
        ("hello", (1, 1), "not a configuration", "version: 1"),
        ("- 1\n", (1, 1), "not a configuration", "version: 1"),
        ("version: 1\n\tbackends: {}\n", (2, 1), "not YAML", "indent with spaces"),
        ("version: [1\n", (2, 1), "not YAML", "brackets"),
        ("version: 'x\n", (2, 1), "not YAML", "quotes"),
        ("version: 1\n---\nversion: 2\n", (2, 1), "second document", "remove `---`"),
        (POLICY + "  rules:\n  - name: x: y\n", (8, 12), "not YAML", "in quotes"),
        (POLICY + "  rules:\n  - {name: n, when: !device.charging && b}\n", (8, 39), "not YAML", "needs quotes"),
        ("a: {b: ${C}}\n", (1, 9), "not YAML", "needs quotes"),
        ("[" * 100, (1, 26), "nested too deeply", "flatter"),
        ("version: 1\nbackends: \u202e{}\n", (2, 11), "invisible character U+202E", "remove it"),
        ("version: 1\nbackends: \x00\n", (2, 11), "U+0000", "remove it"),
        ("version: \ud800\n", (1, 10), "not UTF-8", "as UTF-8"),
        ('version: 1\nbackends: "\\U00110000"\n', (2, 14), "no such character", "itself"),
        ('version: 1\n"\\UFFFFFFFF": 2\n', (2, 4), "no such character", "itself"),
        ("a: &x 1\nb: 2\nversion: 1\nbackends: {a: {kind: far, target: x}}\n", (1, 4), "an anchor", "remove it"),
        # keys
        (BACKENDS + "modles: {}\n", (5, 1), "no section 'modles'", "did you mean 'models'"),
        (BACKENDS.replace("version: 1", "version: 2"), (1, 10), "not known", "version: 1"),
        (BACKENDS.replace("version: 1\n", ""), (1, 1), "'version' is missing", "version: 1"),
        ("version: 1\n", (1, 1), "no backend", "backends:"),
        ("version: 1\nbackends:\n", (2, 1), "no backend", "backends:"),
        (BACKENDS + "backends: {}\n", (5, 1), "'backends' is there twice, first on line 3", "remove one"),
        (FAR + "    target: y\n", (6, 5), "'target' is there twice, first on line 5", "remove one"),
        (FAR + "    ? [a]\n    : b\n", (6, 7), "a key must be a single text", "key: value"),
        (FAR + "    <<: {weight: 1}\n", (6, 5), "no key '<<'", "write one of"),
        (FAR + "    wieght: 1\n", (6, 5), "no key 'wieght'", "did you mean 'weight'"),
        ("version: 1\nbackends:\n  a: {target: x}\n", (3, 3), "'kind' is missing", "far"),
        ("version: 1\nbackends:\n  a: {kind: far}\n", (3, 3), "'target' is missing", "target: …"),
        ("version: 1\nbackends:\n  a: {kind: fra, target: x}\n", (3, 13), "no kind 'fra'", "did you mean 'far'"),
        ("version: 1\nbackends:\n  a: far\n", (3, 3), "keys with values", "kind: …"),
        ("version: 1\nbackends:\n  remote: {kind: far, target: x}\n", (3, 3), "something else", "another name"),
        ("version: 1\nbackends:\n  'a b': {kind: far, target: x}\n", (3, 3), "no name for a backend", "letters"),
        ("version: 1\nbackends:\n  a: {kind: local, model: b}\n", (3, 27), "no model 'b'", "none to name"),
        # values
        (FAR + "    timeout: 10\n", (6, 14), "'10' is not a duration", "10s or 10ms"),
        (FAR + "    timeout: -1s\n", (6, 14), "not a duration", "800ms"),
        (FAR + "    timeout:\n", (6, 13), "value is missing", "after the colon"),
        (FAR + "    timeout: [1s]\n", (6, 14), "single value", "key: value"),
        (FAR + "    buffer: 512\n", (6, 13), "'512' is not a size", "512MB"),
        (FAR + "    share: 35\n", (6, 12), "not between 0 and 1", "35%"),
        (FAR + "    share: 130%\n", (6, 12), "not between 0 and 1", "100%"),
        (FAR + "    weight: .nan\n", (6, 13), "not a number", "0.35"),
        (FAR + "    weight: -1\n", (6, 13), "less than nothing", "write more"),
        (FAR + "    eager: yes\n", (6, 12), "neither true nor false", "write true"),
        (FAR + "    tasks: [embed, infre]\n", (6, 20), "'infre' is not possible", "did you mean 'infer'"),
        (FAR + "    labels: metered\n", (6, 13), "a list", "write [metered]"),
        (FAR + "    labels: [device]\n", (6, 14), "something else", "rename"),
        (FAR + "    price: {input: -1}\n", (6, 20), "zero or more", "dollars"),
        (FAR + "    target2: ${HOST}\n", (6, 5), "no key", "did you mean 'target'"),
        (FAR.replace("target: x", "target: '${HOST}'"), (5, 13), "${HOST} is not expanded", "write the value"),
        (FAR + "    tls: !!map {}\n", (6, 10), "as a tag", "quotes"),
        # places
        (FAR + "    location: device\n", (6, 15), "does not run on this device", "process_in"),
        (FAR + "    location: {process_in: [UK]}\n", (6, 29), "'UK' is no known place", "'GB'"),
        (FAR + "    location: {process_in: []}\n", (6, 16), "somewhere", "[any]"),
        (
            FAR + "    location: {process_in: [DE], evidence: attested}\n",
            (6, 44),
            "nothing proves",
            "root_certificates",
        ),
        (FAR + "    location: {process_in: [DE], operators: ['site:x']}\n", (6, 46), "not a site", "country"),
        (FAR + "    location: {process_in: ['${X}']}\n", (6, 29), "not expanded", "write the value"),
        # serving
        (BACKENDS + "serve: {listen: nowhere}\n", (5, 17), "cannot listen", "host:port"),
    ],
)
def test_a_mistake_has_its_line_and_column(
    mistakes: Mistakes, text: str, place: tuple[int, int], sentence: str, mend: str
) -> None:
    problems = [each for each in mistakes(text) if each.severity == "error"]
    found = [each for each in problems if sentence in each.sentence]
    assert places_of(found) == [place], [each.render() for each in problems]
    assert mend in found[0].mend


@pytest.mark.parametrize(
    ("policy", "place", "sentence", "mend"),
    [
        ("  defualts: {}\n", (7, 3), "no key 'defualts'", "did you mean 'defaults'"),
        ("  default_data_class: publik\n", (7, 23), "no data class 'publik'", "did you mean 'public'"),
        ("  sites: {a: {in: Germany}}\n", (7, 19), "no known place", "'DE'"),
        ("  sites: {a: {in: EU}}\n", (7, 19), "one country", "name it"),
        ("  sites: {a: {}}\n", (7, 11), "'in' is missing", "in: …"),
        ("  defaults: {latency_budget: 0s}\n", (7, 30), "more than zero", "800ms"),
        ("  defaults: {latency_budget: " + "9" * 400 + "s}\n", (7, 30), "not a duration", "800ms"),
        ("  defaults: {order: [quality, costs]}\n", (7, 31), "not possible", "'cost'"),
        ("  defaults: {order: [cost, cost]}\n", (7, 28), "there twice", "second"),
        ("  resilience: {stream_failover: restart}\n", (7, 33), "not possible", "continue, none"),
        ("  resilience: {retry: {max_attempts: 0}}\n", (7, 38), "at least once", "write 1"),
        ("  offline: {outbox: '${HOME}/x'}\n", (7, 21), "not expanded", "write the value"),
        ("  offline: {outbox: ~nobody-here/x}\n", (7, 21), "home folder in '~nobody-here/x' is unknown", "in full"),
        ("  rules: [{when: 'device.charging', deny: [a]}]\n", (7, 11), "'name' is missing", "name: …"),
        ("  rules: [{name: r, when: !device.charging , deny: [a]}]\n", (7, 27), "as a tag", "'!device.charging'"),
        ("  rules: [{name: r, when: '1 +', deny: [a]}]\n", (7, 31), "ends too early", "CEL"),
        ("  rules: [{name: r, when: device.chargin, deny: [a]}]\n", (7, 27), "no 'device.chargin'", "device.charging"),
        (
            "  rules: [{name: r, when: 'true && device.chargin', deny: [a]}]\n",
            (7, 36),
            "no 'device.chargin'",
            "did you",
        ),
        ("  rules: [{name: r, when: time.hour, deny: [a]}]\n", (7, 27), "is int", "compare"),
        ("  rules: [{name: r, deny: [b]}]\n", (7, 28), "no backend or label 'b'", "a, device, remote"),
        ("  rules: [{name: r}]\n", (7, 11), "does nothing", "prefer"),
        ("  rules: [{name: r, deny: [a]}, {name: r, only: []}]\n", (7, 40), "two rules", "own name"),
        ("  rules: [{name: r, set: {max_cost: -1}}]\n", (7, 37), "zero or more", "dollars"),
        ("  assert: [{never: {data_class: public, reaches: [US]}}]\n", (7, 13), "not bound", "narrow the class"),
        ("  assert: [{never: {data_class: public, reaches: [USA]}}]\n", (7, 51), "no known place", "alpha-2"),
        ("  assert: [{never: {data_class: publik, reaches: [US]}}]\n", (7, 33), "no data class", "'public'"),
        ("  assert: [{always: {}}]\n", (7, 13), "no key 'always'", "'never'"),
        ("  groups: {g: {members: [UK], as_of: 2026-01-01, source: s}}\n", (7, 26), "no country", "'GB'"),
        ("  groups: {g: {members: [GB], as_of: 2026, source: s}}\n", (7, 38), "no day", "2025-12-31"),
        ("  rules: [{name: r, set: {hedge: no}}]\n", (7, 34), "neither true nor false", "write false"),
        ("  rules: [{name: r, set: {first_token_budget: 0ms}}]\n", (7, 47), "more than zero", "800ms"),
    ],
)
def test_a_mistake_of_the_policy_is_a_policy_error(
    mistakes: Mistakes,
    read: Callable[..., Configuration],
    policy: str,
    place: tuple[int, int],
    sentence: str,
    mend: str,
) -> None:
    test_a_mistake_has_its_line_and_column(mistakes, POLICY + policy, place, sentence, mend)
    with pytest.raises(PolicyError):
        read(POLICY + policy)


def test_a_condition_over_several_lines_is_pointed_at(mistakes: Mistakes) -> None:
    text = (
        POLICY + "  rules:\n  - name: r\n    when: >-\n      device.charging &&\n      device.chargin\n    deny: [a]\n"
    )
    problems = [each for each in mistakes(text) if "chargin'" in each.sentence]
    assert places_of(problems) == [(9, 11)]


def test_all_mistakes_of_all_sections_come_at_once_in_the_files_order(mistakes: Mistakes) -> None:
    problems = mistakes(
        """\
version: 3
models: {m: {sorce: 'file:m'}}
backends:
  a: {kind: far, target: x, weight: heavy, location: {process_in: [UK]}}
  b: {kind: lokal}
serve: {max_waiting: -1}
policy:
  data_classes: {public: {process_in: [Germany]}}
  default_data_class: publik
  defaults: {order: [speed]}
  rules:
  - {name: r, when: request.nothing == 1, prefer: [b]}
"""
    )
    assert places_of([each for each in problems if each.severity == "error"]) == [
        (1, 10),
        (2, 14),
        (4, 37),
        (4, 68),
        (5, 13),
        (6, 22),
        (8, 40),
        (9, 23),
        (10, 22),
        (12, 21),
    ]


def test_no_stage_hides_another(mistakes: Mistakes) -> None:
    problems = mistakes(
        """\
version: 2
models: {m: {source: [x]}}
backends:
  a:
    kind: locall
    model: n
    quality: 1.5
    locaton: device
    location: {process_in: [UK, any]}
    labels: [metered]
  b: {kind: far, target: x, timeout: soon, weight: -1, location: {process_in: [NX]}}
policy:
  data_classes: {public: {process_in: any}, health: {process_in: [DE], narrows: [publik]}}
  default_data_class: helth
  rules:
  - {name: r, when: device.charge, deny: [a, b, metered, phon]}
  - when: '1 + 1'
  - {name: s, when: request.data_class == "nope", deny: [[b], phon], set: {latency_budget: 0s, hedge: maybe}}
  assert: [{never: {data_class: helth, reaches: [UK]}}]
  resilience: {retry: {initial_backoff: soon, max_backoff: 1ms}}
serve: {drain: fast, max_waiting: -1}
"""
    )
    assert [(each.position.line, each.sentence) for each in problems if each.position] == [
        (1, "this version is not known"),
        (2, "here should be a single value"),
        (5, "there is no kind 'locall'"),
        (6, "there is no model 'n'"),
        (7, "'1.5' is not between 0 and 1"),
        (8, "there is no key 'locaton' here"),
        (9, "`any` stands alone"),
        (9, "'UK' is no known place"),
        (11, "'soon' is not a duration"),
        (11, "nobody weighs less than nothing"),
        (11, "'NX' is no known place"),
        (13, "here should be a list"),
        (13, "there is no data class 'publik'"),
        (14, "there is no data class 'helth'"),
        (16, "there is no 'device.charge' to look at"),
        (16, "there is no backend or label 'phon'"),
        (17, "'name' is missing: what the rule is for, in words; decisions quote it"),
        (17, "this rule does nothing"),
        (17, "the condition is int, not true or false"),
        (18, "request.data_class is never 'nope'"),
        (18, "here should be a single value"),
        (18, "there is no backend or label 'phon'"),
        (18, "the duration must be more than zero"),
        (18, "'maybe' is neither true nor false"),
        (19, "there is no data class 'helth'"),
        (19, "'UK' is no known place"),
        (20, "'soon' is not a duration"),
        (21, "'fast' is not a duration"),
        (21, "no fewer than none can wait"),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BACKENDS + "policy: {sites: {s: {in: 5}}, data_classes: {c: {process_in: ['site:s']}}}\n", "'5' is no known"),
        (BACKENDS + "policy: {sites: {s: {in: []}}, data_classes: {c: {process_in: ['site:s']}}}\n", "a single value"),
        (BACKENDS + "policy: {sites: [s], data_classes: {c: {process_in: ['site:s']}}}\n", "names with values"),
        (POLICY.replace("public: {process_in: [any]}", "public: {process_in: any}"), "a list"),
        (
            POLICY.replace("{public: {process_in: [any]}}", "[public]")
            + "  default_data_class: public\n"
            + "  rules: [{name: r, when: 'request.data_class == \"public\"', deny: [a]}]\n",
            "names with values",
        ),
        (
            POLICY + '  tags: {t: x}\n  rules: [{name: r, when: \'request.tags["t"] == "x"\', deny: [a]}]\n',
            "a list",
        ),
        (POLICY + "  tags: [t]\n  rules: [{name: r, when: '\"t\" in request.tags', deny: [a]}]\n", "names with values"),
        (POLICY + "  rules: [{name: r, deny: a}]\n", "a list"),
        (POLICY + "  rules: [{name: r, dney: [a]}]\n", "no key 'dney'"),
        (POLICY.replace("target: x", "tagret: x"), "no key 'tagret'"),
        (POLICY.replace("target: x", "target: x, labels: m") + "  rules: [{name: r, deny: [m]}]\n", "a list"),
        (POLICY.replace("target: x", "target: x, weight: -1") + "  rules: [{name: r, deny: [a]}]\n", "less than"),
        (POLICY.replace("{kind: far, target: x}", "far") + "  rules: [{name: r, deny: [m]}]\n", "keys with values"),
        (FAR + "    tls: 5\n    location: {process_in: [DE], evidence: attested}\n", "keys with values"),
        (FAR + "    location: 5\n", "not possible here"),
        (BACKENDS + "serve: {listen: '0.0.0.0:1', certificate: [x]}\n", "a single value"),
        (FAR + "    location: {process_in: ['site:s']}\npolicy: {sites: {s: {in: UK}}}\n", "'UK' is no known"),
        (
            FAR + "    location: {operators: [own]}\npolicy: {groups: {own: {members: [DE], as_of: x, source: y}}}\n",
            "'x' is no day",
        ),
        ("version: 1\nmodels: 5\nbackends:\n  a: {kind: local, model: m}\n", "names with values"),
        ("version: 1\nmodles: {m: {source: x}}\nbackends:\n  a: {kind: local, model: m}\n", "no section 'modles'"),
        ("version: 1\nbackends:\n  a: {kind: nothing_like_it, own: 1, location: device}\n", "no kind"),
        ("version: x\nbackends:\n  a: {kind: far, target: x}\n", "not a whole number"),
    ],
)
def test_nothing_that_only_follows_from_a_mistake_is_told(mistakes: Mistakes, text: str, sentence: str) -> None:
    (problem,) = [each for each in mistakes(text) if each.severity == "error"]
    assert sentence in problem.sentence


def test_a_promise_is_judged_beside_mistakes_that_have_no_part_in_it(mistakes: Mistakes) -> None:
    promise = POLICY + "  assert: [{never: {data_class: public, reaches: [US]}}]\n"
    for beside in ("serve: {drain: fast}\n", "  defaults: {latency_budget: 0s}\n", "  offline: {queue_ttl: long}\n"):
        sentences = [each.sentence for each in mistakes(promise + beside) if each.severity == "error"]
        assert len(sentences) == 2
        assert any("may reach the backend 'a'" in sentence for sentence in sentences)


def test_a_missing_variable_is_named(mistakes: Mistakes) -> None:
    unset = mistakes(FAR + "    credentials: ${CLOUD_TOKEN}\n")
    assert [each.sentence for each in unset if each.severity == "error"] == [
        "the environment variable CLOUD_TOKEN is not set"
    ]
    empty = mistakes(FAR + "    credentials: ${CLOUD_TOKEN}\n", CLOUD_TOKEN="")
    assert "CLOUD_TOKEN is empty" in next(each.sentence for each in empty if each.severity == "error")


def test_loads_and_load_agree(tmp_path: Path) -> None:
    text = "version: 1\nmodels: {a: {source: 'file:a'}}\nbackends: {phone: {kind: llama_cpp, model: a}}\n"
    (tmp_path / "c.yaml").write_text(text, "utf-8")
    assert load(tmp_path / "c.yaml").policy.version == loads(text, tmp_path).policy.version
