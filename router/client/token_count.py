"""A number of tokens that knows who counted them."""

from __future__ import annotations

from typing import Self

from ...core.decision import Decision


class TokenCount(int):
    """How many tokens a prompt has, by the backend that counted them. Numbers made from it know nothing."""

    backend: str | None = None
    decision: Decision | None = None

    @classmethod
    def of(cls, tokens: int, decision: Decision) -> Self:
        """The count of an answered request."""
        count = cls(tokens)
        count.backend = decision.answered_by
        count.decision = decision
        return count
