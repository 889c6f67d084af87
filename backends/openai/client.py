"""The one place where the HTTP client is made, with every setting that it would otherwise guess."""

from __future__ import annotations

import ssl

import certifi
import httpx

from ...core.failure import AttemptError, FailureKind
from ..grpc.settings import TlsSettings
from .settings import OpenaiSettings


def open_client(settings: OpenaiSettings) -> httpx.AsyncClient:
    """A client that connects on its first call. Raises `AttemptError` where a file that TLS needs cannot be read."""
    headers = {"accept-encoding": "identity", "user-agent": "edgewise"}
    return httpx.AsyncClient(
        base_url=settings.url.rstrip("/") + "/",
        headers=headers,
        verify=_context(settings.tls or TlsSettings()),
        # The environment has no say in where content goes: no proxies, no roots, no netrc.
        trust_env=False,
        # A redirect would take content to a place that nobody permitted.
        follow_redirects=False,
        # Deadlines are the caller's, and kept around every wait.
        timeout=httpx.Timeout(None, connect=settings.connect_timeout),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=settings.max_concurrency),
    )


def _context(tls: TlsSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.root_certificates or certifi.where())
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        reason = type(error).__name__
    else:
        return context
    raise AttemptError(FailureKind.CREDENTIALS, f"a file that `tls` names cannot be used: {reason}")
