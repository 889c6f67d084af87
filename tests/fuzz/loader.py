"""Fuzz the loader of configurations, guided by coverage: any bytes end in a typed error or a configuration.

    make fuzz SECONDS=600

Runs in an environment of its own, with atheris. What it finds that is new is kept in ``build/fuzz`` and taken up by
the next run; an input that breaks the promise is written there too, as ``crash-…``, ``timeout-…`` or ``oom-…``. A time
limit for each input and a limit on memory hold the rest of the promise: no hang, and no more than 200 MB.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # only the fuzzing environment has it

with atheris.instrument_imports(include=["edgewise", "yaml"]):
    from edgewise.core.errors import ConfigurationError
    from edgewise.router.config import load
    from edgewise.router.config.schema import json_schema

ROOT = Path(__file__).parents[2]
MOST_MEGABYTES = 200
LONGEST_SECONDS = 10
LONGEST_INPUT = 1 << 16

_file = os.memfd_create("configuration")


def try_one(data: bytes) -> None:
    """Load some bytes as a file. Raises what no user may see."""
    os.ftruncate(_file, 0)
    os.pwrite(_file, data, 0)
    try:
        problems = load(f"/proc/self/fd/{_file}", environment={}).warnings
    except ConfigurationError as error:
        problems = error.problems
        str(error)
    for each in problems:
        assert each.position is not None, each.sentence
        assert each.mend, each.sentence


def seeds() -> Iterator[bytes]:
    """Configurations that load, for a start: the examples, and the presets over an example's backends."""
    examples = [path for path in sorted((ROOT / "examples").glob("*.yaml")) if ".tests" not in path.name]
    for path in examples:
        yield path.read_bytes()
    above = (ROOT / "examples" / "consumer.yaml").read_text("utf-8").partition("\npolicy:")[0]
    for path in sorted((ROOT / "policies" / "presets").glob("*.yaml")):
        if ".tests" not in path.name:
            yield f"{above}\n{path.read_text('utf-8')}".encode()


def words() -> Iterator[str]:
    """What the language is made of, so that the fuzzer need not guess it letter by letter."""
    found = {
        "process_in",
        "site:",
        "any",
        "EU",
        "DE",
        "duration(",
        "request.",
        "device.",
        "spending.",
        "&a",
        "*a",
        "!!",
    }

    def walk(schema: object) -> None:
        if isinstance(schema, dict):
            found.update(schema.get("properties", {}))
            found.update(str(each) for each in schema.get("enum", ()))
            for each in schema.values():
                walk(each)
        elif isinstance(schema, list):
            for each in schema:
                walk(each)

    walk(json_schema())
    yield from sorted(word for word in found if word.isascii() and '"' not in word)


def main() -> None:
    """Fuzz for so many seconds; exits with another code than 0 where an input broke the promise."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    folder = ROOT / "build" / "fuzz"
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for at, seed in enumerate(seeds()):
        (corpus / f"seed-{at}").write_bytes(seed)
        try_one(seed)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in words()), "utf-8")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    options = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-timeout={LONGEST_SECONDS}",
        f"-rss_limit_mb={before + MOST_MEGABYTES}",
        f"-max_len={LONGEST_INPUT}",
        f"-dict={folder / 'words'}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup(options, try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
