"""A model's chat template, rendered in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import NoReturn

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ...core.failure import AttemptError, FailureKind
from ..process.bounds import BeyondBounds, Bounds

_BOUNDS = Bounds(seconds=2.0, memory=512 << 20)
_LARGEST_POWER = 1 << 12
_SIGN = "system-prompt"
_JOINED = "\n\n"

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Used for a model that brings no template of its own."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox of Jinja, without what is one native operation without end, which nothing could interrupt."""

    intercepted_binops = frozenset({"**"})

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        if not (isinstance(right, int | float) and abs(right) < _LARGEST_POWER):
            raise SecurityError("a power is too large")
        return super().call_binop(context, operator, left, right)


class _Refusal(jinja2.TemplateError):
    """The template's own word that it does not take these messages."""


class _Generation(Extension):
    """``{% generation %}``, which marks for a training what the model is to learn to say, and changes no text."""

    tags = {"generation"}  # noqa: RUF012  # as its base says

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


class ChatTemplate:
    """Messages as the text that this model was trained to read. ``bos`` and ``eos`` are its tokens' texts.

    Where the template has no place for a system's message, that stands before the user's next one.
    """

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        # What templates in the wild are written for: the options and values of Hugging Face's transformers.
        environment = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_raise, strftime_now=_strftime_now, bos_token=bos, eos_token=eos)
        environment.globals.update(tools=None, documents=None)
        try:
            self._template = _BOUNDS.run(lambda: environment.from_string(source))
        except (jinja2.TemplateError, RecursionError, BeyondBounds):
            sentence = "the model's chat template cannot be read; use another file of this model"
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, sentence) from None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The whole conversation and the beginning of the assistant's turn."""
        if any(message["role"] == "system" for message in messages) and not self._shows_system:
            messages = _without_system(messages)
        return self._render(messages)

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        try:
            return _BOUNDS.run(lambda: self._template.render(messages=messages, add_generation_prompt=True))
        except (BeyondBounds, RecursionError, OverflowError, MemoryError):  # the sandbox has Overflow for a long range
            sentence = "the model's chat template takes too much time or memory; use another file of this model"
            raise AttemptError(FailureKind.INTERNAL, sentence) from None
        except _Refusal:
            # Another model's template may accept the same messages.
            sentence = "the model's chat template does not accept this sequence of messages"
            raise AttemptError(FailureKind.INVALID_REQUEST, sentence) from None
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError):
            sentence = "the model's chat template fails over this sequence of messages"
            raise AttemptError(FailureKind.INTERNAL, sentence) from None

    @cached_property
    def _shows_system(self) -> bool:
        """Whether a system's message comes through. Asked where there is one, since some templates are slow."""
        try:
            shown = self._render([{"role": "system", "content": _SIGN}, {"role": "user", "content": "."}])
        except AttemptError:
            return False
        return _SIGN in shown


def _without_system(messages: Sequence[Mapping[str, str]]) -> Sequence[Mapping[str, str]]:
    """The messages with those of the system put before the user's next ones; without one, in the user's name."""
    told: list[Mapping[str, str]] = []
    held: list[str] = []
    for message in messages:
        if message["role"] == "system":
            held.append(message["content"])
        elif message["role"] == "user":
            told.append({**message, "content": _JOINED.join([*held, message["content"]])})
            held.clear()
        else:
            told.append(message)
    if held:
        told.append({"role": "user", "content": _JOINED.join(held)})
    return told


def _raise(message: str) -> NoReturn:
    raise _Refusal(message)


def _strftime_now(format_: str) -> str:
    return datetime.now().astimezone().strftime(format_)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
