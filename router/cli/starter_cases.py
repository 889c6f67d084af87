"""The cases beside a starter configuration: what its policy does, so that whoever changes it sees what else changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from typing import Any

import yaml

from .starter import Found

_OF_EVERY_POLICY, _OF_THE_STARTER = "every policy", "starter"
_WIDTH = 120

_HEAD = """\
# What the policy of {configuration} does, case by case. `edgewise policy test` holds the policy to it: change a rule,
# and see which case fails; or change a case, and see what the policy does instead.
# `given` says how a request differs from an everyday one: online, unmetered, on power, each backend done in 1s.
# docs/policy.md names all that can be given and expected.
cases:
"""


def starter_cases(found: Found, preset: str | None, configuration: str) -> str:
    """The text of a file of cases that the starter's policy keeps. ``configuration`` is the name of the starter's file.

    Of each case there is what concerns the backends that the starter has.
    """
    written = yaml.safe_load((files("edgewise.router.cli") / "starter_cases.yaml").read_text(encoding="utf-8"))
    cases: Sequence[Mapping[str, Any]] = [*written[preset or _OF_THE_STARTER], *written[_OF_EVERY_POLICY]]
    lines = []
    for case in cases:
        expect = _about(found.backends, case["expect"], ("order", "refused"))
        if expect:
            given = _about(found.backends, case["given"], ("latency",))
            lines += [f"  - name: {case['name']}", f"    given: {_flow(given)}", *_expect(expect)]
    return _HEAD.format(configuration=configuration) + "".join(f"{line}\n" for line in lines)


def _about(backends: Collection[str], told: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """What is told, under these keys of these backends alone."""
    kept: dict[str, Any] = {}
    for key, value in told.items():
        if key not in keys:
            kept[key] = value
        elif left := [name for name in value if name in backends]:
            kept[key] = {name: value[name] for name in left} if isinstance(value, Mapping) else left
    return kept


def _expect(expect: Mapping[str, Any]) -> Sequence[str]:
    line = f"    expect: {_flow(expect)}"
    if len(line) <= _WIDTH:
        return [line]
    return ["    expect:", *(f"      {key}: {_flow(value)}" for key, value in expect.items())]


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"))
    return text.removesuffix("...\n").strip()
