"""What goes with every call: the service's credentials, in the form that its protocol wants, and fresh."""

from __future__ import annotations

from ..backend import CallContext
from ..tokens import tokens_from
from .settings import GrpcSettings
from .wire_protocol import Metadata, WireProtocol


class CallMetadata:
    """One service's credentials: those of the configuration, or a token that is replaced before it gets too old."""

    def __init__(self, backend: str, settings: GrpcSettings, protocol: WireProtocol) -> None:
        self._protocol = protocol
        self._credentials = None if settings.credentials is None else settings.credentials.reveal()
        self._tokens = tokens_from(backend, settings.credentials_from)
        self._made: dict[str, Metadata] = {}

    async def renew(self, context: CallContext) -> None:
        """Have a token that is good. Raises `AttemptError` where there is none before the call's deadline."""
        if self._tokens is None:
            return
        token = await self._tokens.get(context.deadline.at)
        if token != self._credentials:
            self._credentials = token
            self._made.clear()

    def of(self, path: str) -> Metadata:
        """The metadata for the method at ``path``."""
        metadata = self._made.get(path)
        if metadata is None:
            metadata = self._made[path] = self._protocol.metadata(self._credentials, path)
        return metadata

    def accepted(self) -> None:
        """The service took them."""
        if self._tokens is not None:
            self._tokens.accepted()

    def refused(self) -> bool:
        """The service did not take them. Whether the next call has others, which may fare better."""
        return self._tokens is not None and self._tokens.refused(self._credentials or "")

    def has_another(self) -> bool:
        """Whether they have been replaced since they were last read."""
        return self._tokens is not None and self._tokens.has_another()

    async def close(self) -> None:
        """Give up fetching."""
        if self._tokens is not None:
            await self._tokens.close()
