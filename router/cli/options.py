"""Options that several commands take, and what they mean to the router."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import click

from ...core.duration import parse_duration

if TYPE_CHECKING:
    from ..options import GenerateOptions

F = TypeVar("F", bound=Callable[..., Any])

_PlainName = Literal[
    "data_class",
    "latency_budget",
    "first_token_budget",
    "backend",
    "priority",
    "max_output_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
]
DEFAULT_FILE = "edgewise.yaml"
_NUMBER = re.compile(r"\d{1,9}(\.\d{0,9})?|\.\d{1,9}", re.ASCII)


def cases_beside(path: Path) -> Path:
    """Where the cases of a configuration's policy stand: edgewise.tests.yaml beside edgewise.yaml."""
    return path.with_name(f"{path.stem}.tests.yaml")


def _seconds(ctx: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """A duration as in the configuration, as seconds; a bare number is seconds, as in Python."""
    if text is None:
        return None
    try:
        seconds = parse_duration(float(text) if _NUMBER.fullmatch(text) else text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a duration; write it like 800ms, 2s or 2.5", ctx, option) from None
    if seconds <= 0:
        raise click.BadParameter(f"{text!r} leaves no time; give more than 0 seconds", ctx, option)
    return seconds


config_option = click.option(
    "-c",
    "--config",
    "path",
    default=DEFAULT_FILE,
    envvar="EDGEWISE_CONFIG",
    show_default=True,
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration file.",
)

format_option = click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Text for people, JSON for programs.",
)

offline_option = click.option("--offline", is_flag=True, help="As if the airplane switch were on.")

_REQUEST_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--data-class", multiple=True, metavar="NAME", help="The prompt's data class; may be repeated."),
    click.option(
        "--latency-budget",
        callback=_seconds,
        metavar="TIME",
        help="The whole answer within this time, such as 2s; without a unit it is seconds.",
    ),
    click.option(
        "--first-token-budget",
        callback=_seconds,
        metavar="TIME",
        help="The first text within this time, such as 800ms; without a unit it is seconds.",
    ),
    click.option("--backend", multiple=True, metavar="NAME", help="None but this backend; may be repeated."),
    click.option("--process-in", multiple=True, metavar="PLACE", help="Process nowhere but here; may be repeated."),
    click.option(
        "--priority", type=click.Choice(["low", "normal", "high"]), help="Who goes first where requests wait."
    ),
    click.option("--tag", multiple=True, metavar="NAME=VALUE", help="A tag that the policy declares."),
    click.option("--max-output-tokens", type=int, metavar="N", help="An upper bound; 256 where absent."),
    click.option("--system", metavar="TEXT", help="An instruction that stands above the prompt."),
)

_SAMPLING_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--temperature", type=float, metavar="T", help="0 is greedy; 0.8 where absent."),
    click.option("--top-p", type=float, metavar="P", help="Nucleus sampling; 0.95 where absent."),
    click.option("--seed", type=int, metavar="N", help="The same seed, the same text on the same backend."),
    click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text; may be repeated."),
    click.option("--json-object", is_flag=True, help="Ask for a JSON object."),
    click.option(
        "--json-schema",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Ask for JSON by the schema in this file.",
    ),
)

_PLAIN: Sequence[_PlainName] = get_args(_PlainName)
"""The router's options that a command's options of the same name are passed on to as they are."""

prompt_argument = click.argument("prompt", metavar="PROMPT|-")


def request_options(command: F) -> F:
    """Add the options that say where a request may go."""
    return _add(command, _REQUEST_OPTIONS)


def sampling_options(command: F) -> F:
    """Add the options that say how an answer is made."""
    return _add(command, _SAMPLING_OPTIONS)


def read_prompt(prompt: str) -> str:
    """The prompt itself, or standard input for ``-``."""
    if prompt != "-":
        return prompt
    # Bytes that are no UTF-8 stay recognisable, so that the router refuses them by name.
    return sys.stdin.buffer.read().decode(errors="surrogateescape")


def generate_options(given: dict[str, Any]) -> GenerateOptions:
    """A command's options as the router's. What was not given is left to the router's defaults."""
    options: GenerateOptions = {}
    for name in _PLAIN:
        if given.get(name) not in (None, ()):
            options[name] = given[name]
    if given["process_in"]:
        options["residency"] = {"process_in": given["process_in"]}
    if given["tag"]:
        options["tags"] = dict(map(_tag, given["tag"]))
    if given.get("json_object") and given.get("json_schema"):
        raise click.UsageError("give --json-object or --json-schema, not both")
    if given.get("json_object"):
        options["response_format"] = {"type": "json_object"}
    if given.get("json_schema"):
        options["response_format"] = {"type": "json_schema", "schema": _json_file(given["json_schema"])}
    return options


def _add(command: F, options: Sequence[Callable[[F], F]]) -> F:
    for option in reversed(options):
        command = option(command)
    return command


def _tag(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (separator and name):
        raise click.BadParameter("write NAME=VALUE", param_hint="--tag")
    return name, value


def _json_file(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, OSError):
        pass
    raise click.BadParameter("the file holds no JSON", param_hint="--json-schema")
