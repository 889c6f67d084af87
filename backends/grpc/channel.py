"""The one place where channels are made, with every setting that the library would otherwise guess."""

from __future__ import annotations

import json
import ssl
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import grpc
import grpc.aio

from ...core.failure import AttemptError, FailureKind
from .settings import Compression, GrpcSettings, TlsSettings
from .target import parse_target

_PING_TIMEOUT_MS = 5000

_PUBLIC_ROOTS = files("grpc._cython") / "_credentials" / "roots.pem"

_COMPRESSIONS = {
    Compression.NONE: grpc.Compression.NoCompression,
    Compression.GZIP: grpc.Compression.Gzip,
    Compression.DEFLATE: grpc.Compression.Deflate,
}

_OUTLIERS = {
    "interval": "5s",
    "baseEjectionTime": "10s",
    "maxEjectionTime": "300s",
    # However bad all are, half of them are still asked.
    "maxEjectionPercent": 50,
    # The library's own defaults never fire among two or three addresses.
    "failurePercentageEjection": {
        "threshold": 50,
        "enforcementPercentage": 100,
        "minimumHosts": 2,
        "requestVolume": 5,
    },
}
"""gRFC A50: an address is left out for a while where most of its calls of the last seconds failed."""


def open_channel(settings: GrpcSettings, connect_timeout: float) -> grpc.aio.Channel:
    """A channel that connects on its first call. ``connect_timeout`` is in seconds.

    Raises `AttemptError` where a file that TLS needs cannot be read.
    """
    target = parse_target(settings.target)
    options = _options(settings, connect_timeout)
    compression = _COMPRESSIONS[settings.compression]
    tls = settings.tls
    if tls is None:
        if target.local:
            return grpc.aio.insecure_channel(target.address, options, compression)
        tls = TlsSettings()
    if tls.server_name is not None:
        options += [("grpc.ssl_target_name_override", tls.server_name), ("grpc.default_authority", tls.server_name)]
    return grpc.aio.secure_channel(target.address, _credentials(tls), options, compression)


def credential_files(settings: GrpcSettings) -> tuple[str, ...]:
    """The files that a channel reads as it is opened."""
    tls = settings.tls
    if tls is None:
        return ()
    return tuple(path for path in (tls.root_certificates, tls.certificate, tls.key) if path is not None)


def _options(settings: GrpcSettings, connect_timeout: float) -> list[tuple[str, str | int]]:
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
        ("grpc.keepalive_time_ms", int(settings.ping_interval * 1000)),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_send_message_length", settings.max_message),
        ("grpc.max_receive_message_length", settings.max_message),
        *_balancing(settings),
    ]


def _balancing(settings: GrpcSettings) -> list[tuple[str, str | int]]:
    if not settings.balances:
        return []
    policy = {"outlier_detection_experimental": {**_OUTLIERS, "childPolicy": [{"round_robin": {}}]}}
    config = {
        "loadBalancingConfig": [policy],
        "healthCheckConfig": {"serviceName": settings.health_service},
    }
    return [("grpc.service_config", json.dumps(config))]


def _credentials(tls: TlsSettings) -> grpc.ChannelCredentials:
    roots = _public_roots() if tls.root_certificates is None else _read(tls.root_certificates)
    key = None if tls.key is None else _read(tls.key)
    certificate = None if tls.certificate is None else _read(tls.certificate)
    return grpc.ssl_channel_credentials(roots, key, certificate)


def same_trust(tls: TlsSettings) -> ssl.SSLContext:
    """What such a channel trusts and shows, for the standard library. Raises ``OSError`` for files that do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.root_certificates is not None:
        context.load_verify_locations(tls.root_certificates)
    else:
        with as_file(_PUBLIC_ROOTS) as path:
            context.load_verify_locations(path)
    context.set_alpn_protocols(["h2"])
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key, password="")
    return context


@lru_cache(maxsize=1)
def _public_roots() -> bytes:
    # Given explicitly, because the library would let GRPC_DEFAULT_SSL_ROOTS_FILE_PATH replace them.
    try:
        return _PUBLIC_ROOTS.read_bytes()
    except OSError:
        pass
    raise AttemptError(FailureKind.CREDENTIALS, "this gRPC brings no root certificates; give `tls.root_certificates`")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror
    raise AttemptError(FailureKind.CREDENTIALS, f"cannot read {path}, which `tls` names: {reason}")
