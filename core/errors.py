"""The one family of errors.

EdgewiseError
├── ConfigurationError          the file is wrong; file, line, column, and the mend
│   └── PolicyError             the same, in its `policy:` section
├── InvalidRequest              the call is wrong, whoever is asked
├── ModelUnavailable            a model file is missing, altered or unreadable
├── RouterClosed                the router was closed, or is used in a forked child
├── OutboxError                 the outbox cannot be used, or does not know the receipt
│   ├── OutboxFull              it has no room for another request
│   └── OutboxLocked            it is encrypted, and its key is missing or another one
├── DeadLetter                  a queued request ended without an answer; `.reason`
├── RequestError                one request did not end with a whole answer; carries its decision
│   ├── NoBackendPermitted      every backend was left out, each with its reason
│   │   └── Offline             the same, and being online would have changed it
│   ├── DeadlineExceeded        the budget ran out; `.partial` has the text so far
│   ├── Overloaded              there is no room in time
│   ├── BackendError            all permitted attempts failed
│   └── PartialAnswer           a stream broke and could not be continued; `.partial` has the text so far
└── AttemptError                one attempt failed (core/failure.py); inside `BackendError` and decisions

No error's text holds content of a request or an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .problem import Problem, render_problems

if TYPE_CHECKING:
    from .decision import Decision


class EdgewiseError(Exception):
    """Base of everything that edgewise raises on purpose."""


class ConfigurationError(EdgewiseError):
    """A configuration cannot be used. ``problems`` holds every mistake that was found, with the mend."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(render_problems(problems))
        self.problems = tuple(problems)


class PolicyError(ConfigurationError):
    """A configuration cannot be used, and the mistakes are all in its ``policy:`` section."""


class InvalidRequest(EdgewiseError):
    """The call itself is wrong: an unknown data class, a budget of zero, an empty prompt."""

    decision: Decision | None = None


class ModelUnavailable(EdgewiseError):
    """A model file is missing, altered (its sha256 differs) or not a model. The text says how to mend it."""


class RouterClosed(EdgewiseError):
    """The router was closed, or belongs to the process that this one was forked from."""


class OutboxError(EdgewiseError):
    """The outbox cannot be used: none is configured, its file cannot be written, it does not know the receipt."""


class OutboxFull(OutboxError):
    """The outbox has no room for another request, by its quota or on the disk."""


class OutboxLocked(OutboxError):
    """The outbox is encrypted, and its key is missing or another one. Nothing is lost; the text says what to do."""


class DeadLetter(EdgewiseError):
    """A queued request ended without an answer.

    ``reason`` is one of ``expired``, ``dropped``, ``cancelled``, ``poison``, ``refused``, ``unreadable``; the text
    says more.
    """

    def __init__(self, sentence: str, receipt: str, reason: str) -> None:
        super().__init__(sentence)
        self.receipt = receipt
        self.reason = reason


class RequestError(EdgewiseError):
    """One request did not end with a whole answer. ``decision`` says why, step by step."""

    def __init__(self, sentence: str, decision: Decision) -> None:
        super().__init__(sentence)
        self.decision = decision


class NoBackendPermitted(RequestError):
    """No backend may take the request. The text and ``decision.refusals`` give every backend's reason."""


class Offline(NoBackendPermitted):
    """No backend may take the request now, and being online would have changed that."""


class _WithPartial(RequestError):
    def __init__(self, sentence: str, decision: Decision, partial: str = "") -> None:
        super().__init__(sentence, decision)
        self.partial = partial
        """The text received so far, as the caller would have seen it. It has the request's data class."""


class DeadlineExceeded(_WithPartial):
    """The budget ran out before the answer was whole."""


class PartialAnswer(_WithPartial):
    """A stream broke after its first text and no permitted backend could continue it."""


class Overloaded(RequestError):
    """Every permitted backend has no room in time."""


class BackendError(RequestError):
    """Every permitted attempt failed. ``decision.attempts`` lists them with their reasons."""
