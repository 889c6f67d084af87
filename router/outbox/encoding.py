"""Content, labels and answers as the JSON that is stored. Never pickled: what is read may have been altered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

from ...core.answer import Answer, FinishReason, TokenLogprob, Usage
from ...core.content import Message, Role
from ...core.decision import AttemptRecord, Decision, PlannedStep, Refusal, RefusalCode, Seam
from ...core.errors import InvalidRequest
from ...core.failure import FailureKind
from ...core.request import Task
from ..options import GenerateOptions

_CONTENT = frozenset({"stop", "response_format"})
"""Options that say something of the content, and are kept and erased with it."""

_ELSEWHERE = frozenset({"idempotency_key", "conversation", "data_class"})
"""What is stored apart (the key), or has become the entry's data classes."""


class Unreadable(Exception):
    """What is stored is not what was stored."""


def encode_request(
    messages: Sequence[Message], options: GenerateOptions, data_classes: Sequence[str]
) -> tuple[str, str]:
    """Labels and content, each as JSON. ``data_classes`` are the effective ones. Raises `InvalidRequest`."""
    labels = {key: value for key, value in options.items() if key not in _CONTENT | _ELSEWHERE}
    if data_classes:
        labels["data_class"] = list(data_classes)
    content = {
        "messages": [
            {"role": message.role.value, "text": message.text, "data_class": message.data_class} for message in messages
        ],
        "options": {key: value for key, value in options.items() if key in _CONTENT},
    }
    try:
        return json.dumps(labels, default=_plain), json.dumps(content, default=_plain)
    except (TypeError, ValueError):
        raise InvalidRequest("an option holds something other than JSON; a queued request is stored as JSON") from None


def decode_request(labels: str, content: str) -> tuple[list[Message], GenerateOptions]:
    """The messages and the options of `generate` for them. Raises `Unreadable`."""
    with _reading():
        stored = json.loads(content)
        messages = [
            Message(Role(each["role"]), _text(each["text"]), _text_or_none(each["data_class"]))
            for each in stored["messages"]
        ]
        options: dict[str, Any] = {**json.loads(labels), **stored["options"]}
        if not messages or not options.keys() <= GenerateOptions.__annotations__.keys():
            raise Unreadable
        return messages, cast(GenerateOptions, options)  # what `encode_request` wrote; the router judges it again


def encode_answer(answer: Answer) -> str:
    """An answer with its decision, as JSON."""
    return json.dumps(asdict(answer))


def decode_answer(text: str) -> Answer:
    """The answer as it was. Raises `Unreadable`."""
    with _reading():
        stored: dict[str, Any] = json.loads(text)
        return Answer(
            text=_text(stored["text"]),
            backend=_text(stored["backend"]),
            finish_reason=FinishReason(stored["finish_reason"]),
            usage=Usage(**stored["usage"]),
            decision=_decision(stored["decision"]),
            model=stored["model"],
            logprobs=tuple(
                TokenLogprob(each["token"], each["logprob"], tuple((token, value) for token, value in each["top"]))
                for each in stored["logprobs"]
            ),
            data_classes=tuple(stored["data_classes"]),
            cost=stored["cost"],
        )


def _decision(stored: dict[str, Any]) -> Decision:
    return Decision(
        **{
            **stored,
            "task": Task(stored["task"]),
            "data_classes": tuple(stored["data_classes"]),
            "steps": tuple(PlannedStep(**step) for step in stored["steps"]),
            "refusals": tuple(
                Refusal(each["backend"], RefusalCode(each["code"]), each["sentence"]) for each in stored["refusals"]
            ),
            "matched_rules": tuple(stored["matched_rules"]),
            "notes": tuple(stored["notes"]),
            "attempts": [_attempt(each) for each in stored["attempts"]],
            "seams": [Seam(**seam) for seam in stored["seams"]],
        }
    )


def _attempt(stored: dict[str, Any]) -> AttemptRecord:
    failure = stored["failure"]
    return AttemptRecord(**{**stored, "failure": None if failure is None else FailureKind(failure)})


@contextmanager
def _reading() -> Iterator[None]:
    """What was altered may be any JSON or none, of any depth."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise Unreadable from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Unreadable
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _plain(value: object) -> object:
    """Mappings and sequences of other kinds than JSON's own."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError
