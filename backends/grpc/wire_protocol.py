"""What a protocol is to the backend: its methods' paths, and pure mappings between core types and bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from ...core.answer import Embeddings, GenerateEvent, Inference
from ...core.content import EmbedInput, GenerateInput, InferInput
from ..backend import CallContext

Metadata = tuple[tuple[str, str], ...]


class WireProtocol(ABC):
    """One protocol, for one configured model.

    ``encode_*`` makes a request's bytes; it raises ``ValueError`` for what the protocol cannot express. ``decode_*``
    reads a message's bytes; it raises ``ValueError`` or protobuf's ``DecodeError`` for what no such server would
    send. ``remaining`` is seconds to the deadline. No method does input or output.
    """

    generate_path: str = ""
    embed_path: str = ""
    infer_path: str = ""

    def __init__(self, model: str) -> None:
        self.model = model

    @abstractmethod
    def metadata(self, credentials: str | None) -> Metadata:
        """What goes with every call. Lower-case keys; no content."""

    @abstractmethod
    def encode_generate(self, call: GenerateInput, context: CallContext, remaining: float) -> bytes:
        """The request that starts a stream."""

    @abstractmethod
    def decode_generate(self, message: bytes) -> Iterable[GenerateEvent]:
        """The events in one message of the stream."""

    @abstractmethod
    def encode_embed(self, call: EmbedInput, context: CallContext, remaining: float) -> bytes:
        """The request for embeddings."""

    @abstractmethod
    def decode_embed(self, message: bytes) -> Embeddings:
        """The answer to it."""

    @abstractmethod
    def encode_infer(self, call: InferInput, context: CallContext, remaining: float) -> bytes:
        """The request for an inference."""

    @abstractmethod
    def decode_infer(self, message: bytes) -> Inference:
        """The answer to it."""
