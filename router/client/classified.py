"""Labels with their scores, that know which backend they came from."""

from __future__ import annotations

from ...backends.tensors import to_array
from ...core.answer import Classification, LabelScore
from ...core.decision import Decision


class Classified(list[tuple[LabelScore, ...]]):
    """One entry a text, of the request's data class: every label with its score, the best first.

    It knows where it came from; ``cost`` is in US dollars, ``None`` where no price is configured. ``repr`` shows how
    many texts there were, and no more.
    """

    def __init__(self, answer: Classification, cost: float | None, decision: Decision) -> None:
        super().__init__(
            tuple(
                LabelScore(label, score)
                for label, score in sorted(
                    zip(answer.labels, scores, strict=True), key=lambda entry: entry[1], reverse=True
                )
            )
            for scores in to_array(answer.scores).tolist()
        )
        self.backend = decision.answered_by
        self.usage = answer.usage
        self.model = answer.model
        self.cost = cost
        self.decision = decision

    def __repr__(self) -> str:
        return f"Classified({len(self)} texts)"
