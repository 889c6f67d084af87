"""The one place where the HTTP client is made, with every setting that it would otherwise guess."""

from __future__ import annotations

import ssl

import certifi
import httpx

from ...core.failure import AttemptError, FailureKind
from ..file_version import WatchedFiles
from ..grpc.settings import TlsSettings
from .settings import OpenaiSettings


class Clients:
    """Hands out the client that the next call takes: each call takes one, and leaves it when it has ended."""

    def __init__(self, settings: OpenaiSettings) -> None:
        self._settings = settings
        self._current: httpx.AsyncClient | None = None
        self._calls: dict[httpx.AsyncClient, int] = {}
        tls = settings.tls or TlsSettings()
        self.files = WatchedFiles((tls.root_certificates, tls.certificate, tls.key))

    def take(self) -> httpx.AsyncClient:
        """The client for the next call. Raises as `open_client`."""
        if self._current is None or self.files.seen_replaced():
            self.files.read()
            self._current = open_client(self._settings)
        self._calls[self._current] = self._calls.get(self._current, 0) + 1
        return self._current

    async def leave(self, client: httpx.AsyncClient) -> None:
        """A call has ended. The last one on a client that was replaced closes it."""
        self._calls[client] -= 1
        await self._close_unused()

    async def renew(self) -> None:
        """The next call gets a new client, without connections that may lead nowhere; what runs keeps its own."""
        self._current = None
        await self._close_unused()

    async def close(self) -> None:
        """End every connection and the calls on them."""
        clients, self._current = list(self._calls), None
        for client in clients:
            await client.aclose()

    async def _close_unused(self) -> None:
        for client in [each for each, calls in self._calls.items() if each is not self._current and not calls]:
            del self._calls[client]
            await client.aclose()


def open_client(settings: OpenaiSettings) -> httpx.AsyncClient:
    """A client that connects on its first call. Raises `AttemptError` where a file that TLS needs cannot be read."""
    headers = {"accept-encoding": "identity", "user-agent": "edgewise"}
    return httpx.AsyncClient(
        base_url=settings.url.rstrip("/") + "/",
        headers=headers,
        verify=tls_context(settings.tls or TlsSettings()),
        # The environment has no say in where content goes: no proxies, no roots, no netrc.
        trust_env=False,
        # A redirect would take content to a place that nobody permitted.
        follow_redirects=False,
        # Deadlines are the caller's, and kept around every wait.
        timeout=httpx.Timeout(None, connect=settings.connect_timeout),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=settings.max_concurrency),
    )


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """What is trusted and shown. Raises `AttemptError` where a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=tls.root_certificates or certifi.where())
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ssl.SSLError) as error:
        reason = type(error).__name__
    else:
        return context
    raise AttemptError(FailureKind.CREDENTIALS, f"a file that `tls` names cannot be used: {reason}")
