"""The contract of a backend: what it can do, whether it is ready, do it, stop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum

from ..core.answer import Classification, Embeddings, GenerateEvent, Inference
from ..core.content import ClassifyInput, CountTokensInput, EmbedInput, GenerateInput, InferInput
from ..core.deadline import Deadline
from ..core.failure import AttemptError, FailureKind
from ..core.permit import UNBOUNDED, Bounds
from ..core.request import Priority, Task
from .endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do, known without asking it.

    ``context_tokens`` bounds prompt and answer together (``None``: unknown). ``continues``: it can continue a text
    of the assistant exactly. ``constrains``: it honours ``response_format``. ``logprobs``: it reports them.
    ``resumes``: a stream whose connection was lost goes on by `Backend.resume`. ``max_concurrency`` is how many calls
    it takes at once; more wait, and a wait is no failure. ``models`` are the names that `infer` may use (``None``:
    only a call shows). ``model_version`` says which version of its model it is, where it has one and knows.
    """

    tasks: frozenset[Task]
    context_tokens: int | None = None
    continues: bool = False
    constrains: bool = False
    logprobs: bool = False
    resumes: bool = False
    max_concurrency: int = 1
    models: frozenset[str] | None = None
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor of a model, before there is one. An axis that may have any extent is ``None``."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """The tensors that a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class HealthState(StrEnum):
    """How ready a backend is."""

    READY = "ready"
    LOADING = "loading"
    """It will be ready by itself; a call waits for it."""
    DOWN = "down"
    """It needs a restart or a person; ``sentence`` says which."""


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """A backend's own account of its readiness; asking sends no content and costs no call.

    ``progress`` is how much of a loading is done, from 0 to 1; ``None`` where nobody knows.
    """

    state: HealthState
    sentence: str = ""
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class CallContext:
    """What goes with a call besides its content.

    ``deadline`` is the request's, on the event loop's clock. ``data_classes`` keeps caches apart: state derived from
    a call may serve only calls with the same set. ``attempt`` counts from 1 over the whole request. ``stream`` names
    a stream for a backend that resumes, at random and anew for each attempt; empty where it is not to be resumed.
    Until ``start_by`` waiting for a place there makes sense, and by ``first_by`` the first token must have come;
    ``None``: until the deadline. ``bounds`` is where the content may go, for a service that says where it is.
    """

    request_id: str
    deadline: Deadline
    data_classes: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL
    idempotency_key: str = ""
    attempt: int = 1
    stream: str = ""
    start_by: Deadline | None = None
    first_by: Deadline | None = None
    bounds: Bounds = UNBOUNDED


class Backend(ABC):
    """A configured place that can answer.

    Calls raise `AttemptError` and nothing else (and pass cancellation on). Cancelling a call, or closing its
    stream, stops the work behind it. Text of requests and answers goes into no log, name or error.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this backend can do."""

    @abstractmethod
    def health(self) -> BackendHealth:
        """How ready it is, from what is known now; returns at once."""

    @property
    def endpoint(self) -> Endpoint | None:
        """Where it listens, for one that is elsewhere. Without it nothing is known of the way there but from calls."""
        return None

    async def probe(self, seconds: float) -> None:
        """Show on a new connection that the service itself answers, within so many seconds.

        Any answer of its own will do. Sends constant bytes; no content, no credentials. Raises `AttemptError`, with its
        ``fault`` where it knows one. Asked when a connection to the `endpoint` stands; by default that is enough.
        """
        return

    async def network_changed(self) -> None:
        """Open a new connection for the next call: one that stands may lead nowhere. Calls under way keep theirs."""
        return

    def signature(self, model: str) -> ModelSignature | None:
        """What one of the models that `infer` may name takes and gives; ``None`` where that is not known.

        Returns at once: nobody is asked for it.
        """
        return None

    def is_mended(self, kind: FailureKind) -> bool:
        """Whether what it failed by may have been mended since, such as credentials replaced; returns at once.

        Asked of one that is out of use for a failure of this kind. True lets the next call try.
        """
        return False

    async def start(self) -> None:
        """Make ready: load, connect. Calls may come before it ends, and wait. Raises `AttemptError` if it cannot."""
        return

    async def stop(self) -> None:
        """End all work and free everything. Idempotent."""
        return

    def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        """Stream an answer: any number of `Delta`, then exactly one `Finish`."""
        raise self._unsupported(Task.GENERATE)

    def resume(self, after: int, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        """Go on with the stream that ``context.stream`` names, from the event that follows the first ``after`` ones.

        Nothing is computed again and no content is sent. Raises `AttemptError` (conflict) where the stream is not known
        there any more.
        """
        raise AttemptError(FailureKind.UNSUPPORTED, f"backend {self.name!r} cannot resume a stream")

    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        """Embed texts: float32 ``[n, d]``, in the order given."""
        raise self._unsupported(Task.EMBED)

    async def classify(self, call: ClassifyInput, context: CallContext) -> Classification:
        """Give every label a score for each text: float32 ``[n, labels]``, in the order of the texts."""
        raise self._unsupported(Task.CLASSIFY)

    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        """Run a model on named tensors."""
        raise self._unsupported(Task.INFER)

    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        """How many tokens the prompt has, by the backend's own count, whether it fits or not.

        A service elsewhere is sent the prompt for it. May be asked beside ``max_concurrency`` other calls.
        """
        raise self._unsupported(Task.COUNT_TOKENS)

    def _unsupported(self, task: Task) -> AttemptError:
        return AttemptError(FailureKind.UNSUPPORTED, f"backend {self.name!r} cannot {task}")
