"""What a protocol is to the backend: its methods' paths, and pure mappings between core types and bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from ...core.answer import Classification, Embeddings, GenerateEvent, Inference
from ...core.content import ClassifyInput, CountTokensInput, EmbedInput, GenerateInput, InferInput
from ...core.failure import FailureKind
from ...core.request import Task
from ..backend import CallContext
from .settings import GrpcSettings

Metadata = tuple[tuple[str, str], ...]


class ReportedFailure(Exception):
    """A failure that a server reports inside a message rather than by a status. Holds none of its text.

    ``sentence`` goes on where the backend's name stands; without it, the kind's own is said.
    """

    def __init__(self, kind: FailureKind, sentence: str = "") -> None:
        super().__init__(kind.value)
        self.kind = kind
        self.sentence = sentence


class StreamReader(ABC):
    """Reads the messages of one stream, in order."""

    @abstractmethod
    def read(self, message: bytes) -> Iterable[GenerateEvent]:
        """The events in one message. Raises as ``decode_*`` does."""

    def end(self) -> Iterable[GenerateEvent]:
        """The events that a good end of the call stands for. None, here: an answer says that it has finished."""
        return ()


class WireProtocol(ABC):
    """One protocol, for one configured model.

    ``encode_*`` makes a request's bytes; it raises ``ValueError`` for what the protocol cannot express. ``decode_*``
    reads a message's bytes; it raises ``ValueError`` or protobuf's ``DecodeError`` for what no such server would
    send, and `ReportedFailure` for a failure told there. ``remaining`` is seconds to the deadline. No method does input
    or output. What a protocol cannot do at all, ``settings.py`` knows by its name, and nobody asks it here.
    """

    generate_path: str = ""
    resume_path: str = ""
    release_path: str = ""
    handshake_path: str = ""
    """Empty where a service does not say where it is before it is sent content."""
    embed_path: str = ""
    classify_path: str = ""
    infer_path: str = ""
    count_path: str = ""

    most_texts: int | None = None
    """How many texts one call may embed; more go in several calls."""
    continues = False
    """It can ask for an exact continuation of the assistant's last message."""
    constrains = False
    """It can ask for a response format."""
    logprobs = False
    """It carries log-probabilities."""
    resumes = False
    """A stream that was lost can be resumed, and one that is not wanted wants to be released."""

    def __init__(self, settings: GrpcSettings) -> None:
        self.model = settings.model or ""

    @abstractmethod
    def metadata(self, credentials: str | None, path: str) -> Metadata:
        """What goes with every call of the method at ``path``. Lower-case keys; no content."""

    def questions(self) -> Sequence[tuple[str, bytes]]:
        """Calls without content to be made before the first generation or embedding: paths and messages."""
        return ()

    def learn(self, answers: Sequence[bytes | None]) -> None:
        """Take in the answers to the `questions`; ``None`` for a method that the server does not have.

        Raises as ``decode_*`` does.
        """
        assert not answers, "whoever asks takes in the answers"

    def judge(self, task: Task, code: str, details: str) -> FailureKind | None:
        """What a status means where this protocol's servers mean something else by it than gRPC does.

        ``code`` is the status by name. ``details`` is the server's own text, to be looked at and not passed on.
        """
        return None

    @abstractmethod
    def encode_generate(self, call: GenerateInput, context: CallContext, remaining: float) -> bytes:
        """The request that starts a stream."""

    @abstractmethod
    def generate_reader(self, call: GenerateInput) -> StreamReader:
        """What reads that stream."""

    def encode_resume(self, stream: str, after: int) -> bytes:
        """The request to go on with a stream, by its name, after so many of its messages."""
        raise ValueError("this protocol does not resume")

    def resume_reader(self, after: int) -> StreamReader:
        """What reads the rest of it."""
        raise ValueError("this protocol does not resume")

    def encode_release(self, stream: str) -> bytes:
        """The request to give a stream up."""
        raise ValueError("this protocol does not resume")

    def encode_handshake(self, context: CallContext) -> bytes:
        """The question where a service is and whether it has the model. Holds no content."""
        raise ValueError("this protocol has no handshake")

    def decode_handshake(self, message: bytes) -> str:
        """The place that the service says it is at: a country or `site:NAME`; empty where it does not know."""
        raise ValueError("this protocol has no handshake")

    def encode_embed(self, call: EmbedInput, context: CallContext, remaining: float) -> bytes:
        """The request for embeddings."""
        raise ValueError("this protocol does not embed")

    def decode_embed(self, message: bytes) -> Embeddings:
        """The answer to it."""
        raise ValueError("this protocol does not embed")

    def encode_classify(self, call: ClassifyInput, context: CallContext, remaining: float) -> bytes:
        """The request for a classification."""
        raise ValueError("this protocol does not classify")

    def decode_classify(self, message: bytes) -> Classification:
        """The answer to it."""
        raise ValueError("this protocol does not classify")

    def encode_count(self, call: CountTokensInput, context: CallContext, remaining: float) -> bytes:
        """The request for the number of tokens in a prompt."""
        raise ValueError("this protocol does not count")

    def decode_count(self, message: bytes) -> int:
        """The answer to it."""
        raise ValueError("this protocol does not count")

    def encode_infer(self, call: InferInput, context: CallContext, remaining: float) -> bytes:
        """The request for an inference."""
        raise ValueError("this protocol does not infer")

    def decode_infer(self, message: bytes) -> Inference:
        """The answer to it."""
        raise ValueError("this protocol does not infer")


def bearer(credentials: str | None) -> Metadata:
    """The credentials as most services want them."""
    return () if credentials is None else (("authorization", f"Bearer {credentials}"),)
