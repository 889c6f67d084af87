"""Files that are meant to harm: each ends soon, in little memory, as a typed error or a configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.core.errors import ConfigurationError
from edgewise.core.problem import Problem
from edgewise.router.config import load

EXAMPLES = Path(__file__).parents[2] / "examples"
MOST_MEGABYTES = 200
LONGEST_SECONDS = 60.0
"""Of the processor's own time, on a machine however slow."""

HEAD = "version: 1\nbackends:\n"
FAR = "{kind: grpc, target: 'h:1', location: {process_in: [DE], store_in: [DE], operators: [DE]}}"
CLASSES = "policy:\n  data_classes:\n" + "".join(f"    c{at}: {{process_in: [EU]}}\n" for at in range(100))


def _rules(count: int, condition: str) -> str:
    kinds = ("deny: [b%d]", "prefer: [b%d]", "avoid: [b%d]", "only: [b%d]")
    rules = [
        f"    - {{name: r{at}, when: '{condition.format(n=at)}', {kinds[at % 4] % (at % 7)}}}\n" for at in range(count)
    ]
    return "  rules:\n" + "".join(rules)


def _backends(count: int) -> str:
    return HEAD + "".join(f"  b{at}: {FAR}\n" for at in range(count))


HOSTILE = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"b{at}: &b{at} [{','.join([f'*b{at - 1}' if at else '*a'] * 9)}]\n" for at in range(12)),
    "an alias of itself": "a: &a [*a]\n",
    "merge keys": "a: &a {b: c}\n" + "".join(f"k{at}: {{<<: *a}}\n" for at in range(9000)),
    "ten megabytes in a line": "version: 1\nbackends: {a: '" + "x" * 10_000_000 + "'}\n",
    "half a megabyte in a line": "version: 1\npolicy: {rules: [{name: '" + "x" * 500_000 + "'}]}\n",
    "deep lists": "[" * 500_000,
    "deep mappings": "{a: " * 120_000,
    "deep blocks": "".join(" " * at + "a:\n" for at in range(900)),
    "many values": "version: 1\nbackends: [" + "a," * 250_000 + "]\n",
    "many mistakes": _backends(3) + "policy:\n" + "".join(f"  wrong{at}: 1\n" for at in range(9000)),
    "a huge condition": _backends(3) + CLASSES + _rules(1, " && ".join(["device.charging"] * 240)),
    "a deep condition": _backends(3) + CLASSES + _rules(1, "(" * 1500 + "true" + ")" * 1500),
    "a text of a condition": _backends(3) + CLASSES + _rules(1, "true" + " " * 400_000),
    "conditions that are hard to part": _backends(20)
    + CLASSES
    + _rules(400, "request.prompt_tokens > {n} || device.battery_percent < {n} && !device.charging"),
    "as many rules as there can be": _backends(3) + CLASSES + _rules(1000, "time.hour == {n}"),
    "more rules than there can be": _backends(3) + CLASSES + _rules(1001, "time.hour == {n}"),
    "as many backends as there can be": _backends(100) + CLASSES,
    "a thousand classes": _backends(3)
    + "policy: {data_classes: {"
    + ",".join(f"c{at}: {{process_in: [EU], narrows: [c{at - 1}]}}" for at in range(1, 1000))
    + "}}\n",
    "a chain of classes": _backends(3)
    + "policy: {data_classes: {c0: {process_in: [EU]}, "
    + ",".join(f"c{at}: {{narrows: [c{at - 1}]}}" for at in range(1, 100))
    + "}}\n",
    "promises": _backends(50)
    + CLASSES
    + _rules(100, "time.hour == {n} || time.minute > {n}")
    + "  assert: ["
    + ",".join("{never: {data_class: c1, reaches: [DE]}}" for _ in range(100))
    + "]\n",
    "digits": "version: " + "9" * 500_000 + "\n",
    "a tag bomb": "".join(f"k{at}: !!python/object/apply:os.system [x]\n" for at in range(5000)),
    "look-alikes": _backends(2).replace("b0", "\u0430").replace("kind", "k\u0456nd"),
    "marks upon marks": "version: 1\na" + "\u0301" * 200_000 + ": b\n",
    "nothing but line breaks": "\n" * 500_000,
    "carriage returns": "version: 1\rbackends:\r  a:\r" * 9000,
    "documents": "---\n" * 100_000,
    "comments": "# x\n" * 120_000 + "version: 1\n",
    "anchors": "".join(f"&a{at} k{at}: v\n" for at in range(9000)),
    "quotes": "'" * 500_000,
    "directives": "%YAML 1.1\n" * 40_000,
}

_LOADS = """
import json, resource, sys
from edgewise.core.errors import ConfigurationError
from edgewise.core.problem import Problem
from edgewise.router.config import load

def used():
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_maxrss / 1024, found.ru_utime

load(sys.argv[1])
for file in sys.argv[2:]:
    megabytes, seconds = used()
    told = 0
    try:
        load(file)
        ended = "loaded"
    except ConfigurationError as error:
        ended = type(error).__name__
        told = len(str(error))
    more, later = used()
    print(json.dumps({"ended": ended, "megabytes": more - megabytes, "seconds": later - seconds, "told": told}))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How loading each file ended, in a process of its own that has loaded a good one before."""
    folder = tmp_path_factory.mktemp("hostile")
    files = [folder / f"{at}.yaml" for at in range(len(HOSTILE))]
    for file, text in zip(files, HOSTILE.values(), strict=True):
        file.write_bytes(text.encode())
    command = [sys.executable, "-c", _LOADS, str(EXAMPLES / "clinic.yaml"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(zip(HOSTILE, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_ends_soon_and_in_little_memory(ended: dict[str, Any], name: str) -> None:
    told = ended[name]
    assert told["ended"] in ("loaded", "ConfigurationError", "PolicyError")
    assert told["megabytes"] < MOST_MEGABYTES
    assert told["seconds"] < LONGEST_SECONDS
    assert told["told"] < 200_000


SEEDS = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.yaml")) if ".tests" not in path.name]
PIECES = [
    b'"\\UFFFFFFFF"',
    b"\n",
    b"\x00",
    b"\xff",
    b"&a ",
    b"*a",
    b"!!",
    b"- ",
    b": ",
    b"[",
    b"]",
    b"{",
    b"}",
    b"'",
    b'"',
    b"|\n",
    b"any",
]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A file that loads, cut, doubled, and with pieces put in."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 2, 8, 40, 400])))
        put = draw(st.sampled_from(PIECES) | st.binary(max_size=6) | st.just(data[start:end] * 2))
        data = data[:start] + put + data[end:]
    return data


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(raw=spoiled())
def test_a_spoiled_file_is_a_configuration_or_a_typed_error(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "edgewise.yaml"
    file.write_bytes(raw)
    problems: tuple[Problem, ...] = ()
    try:
        problems = load(file).warnings
    except ConfigurationError as error:
        problems = error.problems
        assert error.problems  # noqa: PT017  # there may be none only where it loaded
    assert all(each.position is not None and each.mend for each in problems)
