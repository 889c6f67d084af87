"""What a backend's work costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens of the prompt (``input``) and of the answer (``output``)."""

    input: float = 0.0
    output: float = 0.0

    def of(self, prompt_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost, in US dollars."""
        return (prompt_tokens * self.input + output_tokens * self.output) / 1e6
