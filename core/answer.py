"""What comes back: the events of a stream, and whole answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .content import Tensor
from .decision import Decision, Seam


class FinishReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The model ended its turn, or a stop sequence was reached."""
    LENGTH = "length"
    """``max_output_tokens`` or the context was used up."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written by the backend that completed the answer, as it counted them.

    Where the router ended the answer itself, at a stop sequence that the backend did not heed, the prompt's tokens
    are not known and 0.
    """

    prompt_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class TokenLogprob:
    """One token's text and natural log-probability, and those of its likeliest alternatives, best first."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()

    def __repr__(self) -> str:
        return "TokenLogprob()"


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that a backend adds to its answer; ``tokens`` is how many tokens it stands for."""

    text: str = field(repr=False)
    tokens: int = 1
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """The last event of a backend's stream. A stream without one is a failure.

    ``model`` and ``place`` are the backend's own account of what answered and where; they are recorded and
    compared, and prove nothing. ``queue_depth`` is how many requests wait there.
    """

    reason: FinishReason
    usage: Usage = Usage()
    model: str = ""
    place: str = ""
    queue_depth: int | None = None


GenerateEvent = Delta | Finish


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A backend's embeddings: one float32 tensor ``[n, d]``."""

    vectors: Tensor
    usage: Usage = Usage()
    model: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Classification:
    """A backend's judgement of texts: ``scores`` is one float32 tensor ``[n, labels]``, its columns are ``labels``."""

    labels: tuple[str, ...]
    scores: Tensor
    usage: Usage = Usage()
    model: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class LabelScore:
    """A label, and how much a model holds with it: from 0 to 1 unless the model has scores of its own."""

    label: str
    score: float

    def __repr__(self) -> str:
        return "LabelScore()"


@dataclass(frozen=True, slots=True)
class Inference:
    """A backend's named output tensors."""

    outputs: Mapping[str, Tensor]
    model: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer.

    ``text`` is what to append; where ``seam.restarts``, after discarding all chunks before this one. ``seam`` is set on
    the first chunk after a change of backend. ``logprobs`` is empty unless asked for. The last chunk has ``answer``:
    the whole of it.
    """

    text: str = field(repr=False)
    seam: Seam | None = None
    logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole generated answer, of the request's data class.

    ``backend`` is who completed it; ``usage`` counts that backend's tokens; ``model`` is its own word. ``cost`` is what
    those tokens cost, in US dollars; ``None`` where no price is configured. `Decision.cost` has the other attempts too.
    """

    text: str = field(repr=False)
    backend: str
    finish_reason: FinishReason
    usage: Usage
    decision: Decision = field(repr=False)
    model: str = ""
    logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)
    data_classes: tuple[str, ...] = ()
    cost: float | None = None
