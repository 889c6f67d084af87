"""The content of requests and answers, in types whose ``repr`` shows none of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from .permit import Permit

T = TypeVar("T")


class Role(StrEnum):
    """Who speaks in a conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    ``data_class`` is this turn's own class: a request's class is the strictest combination of the class
    given with the call and of those in its history. A last message from the assistant is continued
    rather than answered.
    """

    role: Role
    text: str = field(repr=False)
    data_class: str | None = None

    @classmethod
    def system(cls, text: str, *, data_class: str | None = None) -> Message:
        """An instruction that stands above the conversation."""
        return cls(Role.SYSTEM, text, data_class)

    @classmethod
    def user(cls, text: str, *, data_class: str | None = None) -> Message:
        """What the person says."""
        return cls(Role.USER, text, data_class)

    @classmethod
    def assistant(cls, text: str, *, data_class: str | None = None) -> Message:
        """What a model said."""
        return cls(Role.ASSISTANT, text, data_class)


@dataclass(frozen=True, slots=True, repr=False)
class Tensor:
    """A named tensor's value without numpy: C-contiguous little-endian bytes.

    ``dtype`` is numpy's name (``float32``, ``int64``, …) or ``string``; a string tensor's ``data`` is a
    sequence of elements, each a 4-byte little-endian length and that many bytes of UTF-8.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __repr__(self) -> str:
        return f"Tensor({self.dtype}, {list(self.shape)})"


@dataclass(frozen=True, slots=True, repr=False)
class GenerateInput:
    """The content of a ``generate`` request: everything that is sent, and nothing that decides.

    ``response_format`` is ``None``, ``{"type": "json_object"}``, ``{"type": "json_schema", "schema": …}`` or
    ``{"type": "grammar", "grammar": …}`` (GBNF). ``logprobs`` asks for each token's log-probability and that of
    so many alternatives; ``None`` asks for none.
    """

    messages: tuple[Message, ...]
    max_output_tokens: int = 256
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int | None = None
    stop: tuple[str, ...] = ()
    response_format: Mapping[str, Any] | None = None  # JSON as the caller wrote it
    logprobs: int | None = None

    @property
    def continues(self) -> bool:
        """Whether the answer begins in the last message, which is the assistant's and is to be continued."""
        return bool(self.messages) and self.messages[-1].role is Role.ASSISTANT

    def __repr__(self) -> str:
        return f"GenerateInput({len(self.messages)} messages)"


@dataclass(frozen=True, slots=True, repr=False)
class EmbedInput:
    """The content of an ``embed`` request."""

    texts: tuple[str, ...]

    def __repr__(self) -> str:
        return f"EmbedInput({len(self.texts)} texts)"


@dataclass(frozen=True, slots=True, repr=False)
class ClassifyInput:
    """The content of a ``classify`` request."""

    texts: tuple[str, ...]

    def __repr__(self) -> str:
        return f"ClassifyInput({len(self.texts)} texts)"


@dataclass(frozen=True, slots=True, repr=False)
class InferInput:
    """The content of an ``infer`` request: a model's name and its named input tensors."""

    model: str
    inputs: Mapping[str, Tensor]

    def __repr__(self) -> str:
        return f"InferInput({self.model!r}, {len(self.inputs)} tensors)"


@dataclass(frozen=True, slots=True, repr=False)
class CountTokensInput:
    """The content of a ``count_tokens`` request: the conversation that a generation would be asked to go on with."""

    messages: tuple[Message, ...]

    def __repr__(self) -> str:
        return f"CountTokensInput({len(self.messages)} messages)"


Content = GenerateInput | EmbedInput | ClassifyInput | InferInput | CountTokensInput


class Sealed(Generic[T]):
    """Content that opens only for a permit to send it. ``repr`` and pickling show nothing."""

    __slots__ = ("_content", "_request_id")

    def __init__(self, content: T, request_id: str) -> None:
        self._content = content
        self._request_id = request_id

    def open(self, permit: Permit) -> T:
        """The content, for whoever holds a permit for this request. Called by ``router/dispatch.py`` alone."""
        if permit.request_id != self._request_id:
            raise AssertionError("a permit of another request cannot open this content")
        return self._content

    def __repr__(self) -> str:
        return "<sealed>"

    def __reduce__(self) -> Sequence[object]:  # type: ignore[override]  # refuses, whatever the protocol
        raise TypeError("sealed content cannot be pickled or copied")
