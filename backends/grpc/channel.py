"""The one place where channels are made, with every setting that the library would otherwise guess."""

from __future__ import annotations

import pkgutil
from functools import lru_cache
from pathlib import Path

import grpc
import grpc.aio

from ...core.failure import AttemptError, FailureKind
from .settings import GrpcSettings, TlsSettings
from .target import parse_target

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest request sent and the largest message taken."""

_PING_TIMEOUT_MS = 5000


def open_channel(settings: GrpcSettings, connect_timeout: float) -> grpc.aio.Channel:
    """A channel that connects on its first call. ``connect_timeout`` is in seconds.

    Raises `AttemptError` where a file that TLS needs cannot be read.
    """
    target = parse_target(settings.target)
    options = _options(connect_timeout, settings.keepalive)
    tls = settings.tls
    if tls is None:
        if target.local:
            return grpc.aio.insecure_channel(target.address, options)
        tls = TlsSettings()
    if tls.server_name is not None:
        options += [("grpc.ssl_target_name_override", tls.server_name), ("grpc.default_authority", tls.server_name)]
    return grpc.aio.secure_channel(target.address, _credentials(tls), options)


def _options(connect_timeout: float, keepalive: float) -> list[tuple[str, str | int]]:
    return [
        # Environment and name servers have no say in where content goes, or how.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        # Retries are the router's. The library's own hide faults and outlive what the router decided.
        ("grpc.enable_retries", 0),
        # A channel made anew must not inherit the wait of the one that failed.
        ("grpc.use_local_subchannel_pool", 1),
        # The larger of these is also how long a connection may take to stand.
        ("grpc.min_reconnect_backoff_ms", int(connect_timeout * 1000)),
        ("grpc.initial_reconnect_backoff_ms", int(connect_timeout * 1000)),
        # Pings only while an answer is owed. Without the ping timeout a silent server is noticed after a minute.
        ("grpc.keepalive_time_ms", int(keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ]


def _credentials(tls: TlsSettings) -> grpc.ChannelCredentials:
    roots = _public_roots() if tls.root_certificates is None else _read(tls.root_certificates)
    key = None if tls.key is None else _read(tls.key)
    certificate = None if tls.certificate is None else _read(tls.certificate)
    return grpc.ssl_channel_credentials(roots, key, certificate)


@lru_cache(maxsize=1)
def _public_roots() -> bytes:
    # Given explicitly, because the library would let GRPC_DEFAULT_SSL_ROOTS_FILE_PATH replace them.
    roots = pkgutil.get_data("grpc._cython", "_credentials/roots.pem")
    if roots is None:
        raise AttemptError(
            FailureKind.CREDENTIALS, "this gRPC brings no root certificates; give `tls.root_certificates`"
        )
    return roots


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror
    raise AttemptError(FailureKind.CREDENTIALS, f"cannot read {path}, which `tls` names: {reason}")
