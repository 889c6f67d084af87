"""A model's chat template, rendered in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ...core.failure import AttemptError, FailureKind
from ..process.bounds import BeyondBounds, Bounds

_BOUNDS = Bounds(seconds=2.0, memory=512 << 20)
_LARGEST_POWER = 1 << 12

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


class ChatTemplate:
    """Messages as the text that this model was trained to read. ``bos`` and ``eos`` are its tokens' texts."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        # The options that templates in the wild are written for (those of Hugging Face's transformers).
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_raise, strftime_now=_strftime_now, bos_token=bos, eos_token=eos)
        try:
            self._template = _BOUNDS.run(lambda: environment.from_string(source))
        except (jinja2.TemplateError, RecursionError, BeyondBounds):
            sentence = "the model's chat template cannot be read; use another file of this model"
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, sentence) from None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The whole conversation and the beginning of the assistant's turn."""
        try:
            return _BOUNDS.run(lambda: self._template.render(messages=messages, add_generation_prompt=True))
        except (BeyondBounds, RecursionError):
            sentence = "the model's chat template takes too much time or memory; use another file of this model"
            raise AttemptError(FailureKind.INTERNAL, sentence) from None
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError):
            # Another model's template may accept the same messages.
            sentence = "the model's chat template does not accept this sequence of messages"
            raise AttemptError(FailureKind.INTERNAL, sentence) from None


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format_: str) -> str:
    return datetime.now().astimezone().strftime(format_)


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
