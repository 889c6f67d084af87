"""The server: listens, checks callers, offers the model service with health and reflection, and drains when stopped."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import grpc
import grpc.aio

from ...backends import Backend
from ...backends.grpc.quiet_loop import quieten
from ...backends.grpc.settings import MAX_MESSAGE_BYTES
from ...backends.grpc.target import Target
from ...core.errors import ConfigurationError, EdgewiseError
from ...core.problem import Problem, Severity
from .access import TokenCheck
from .oip_service import OIP_SERVICE_NAME, OipService
from .peers import PeerLimit
from .served import Roster
from .service import SERVICE_NAME, ModelService
from .settings import ServeSettings, check, parse_listen
from .works import Works

try:
    from grpc_reflection.v1alpha import reflection

    from .health import HealthReport
    from .reflected import described
except ImportError as _missing:
    raise EdgewiseError(
        f"serving needs {_missing.name}, which is not installed; run `pip install 'edgewise[serve]'`"
    ) from None

_OPTIONS = [
    # Two servers on one port would share its calls by chance.
    ("grpc.so_reuseport", 0),
    # Routers ask every ten seconds whether a server that owes them an answer lives.
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    # Clients that vanished without a word are noticed, and their work is stopped.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
]


def judge_address(settings: ServeSettings) -> None:
    """Raise `ConfigurationError` for bad settings and for an address that cannot be had, without listening there."""
    errors = [_in_serve(problem) for problem in check(settings) if problem.severity is Severity.ERROR]
    if errors:
        raise ConfigurationError(errors)
    target = parse_listen(settings.listen)
    # Of a socket that is answered, the library would take the file away from whoever listens there.
    obstacle = _obstacle(target) if target.port is not None else "is in use" if _is_answered(target.path) else None
    if obstacle is not None:
        raise _unavailable(settings, obstacle)


class ModelServer:
    """Offers started backends, by the names given. Forwards nothing; starts and stops no backend."""

    def __init__(self, settings: ServeSettings, backends: Mapping[str, Backend]) -> None:
        self._settings = settings
        self._backends = dict(backends)
        self._server: grpc.aio.Server | None = None
        self._health: HealthReport | None = None
        self._works: Works | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """Where it listens, as a target; the port is the true one where 0 was configured. Empty before `start`."""
        return self._address

    async def start(self) -> None:
        """Listen and serve. Raises `ConfigurationError` for bad settings and for an address that cannot be had."""
        settings = self._settings
        judge_address(settings)
        quieten()
        interceptors = [TokenCheck(settings.tokens)] if settings.tokens else []
        server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
        self._address = _bind(server, settings)
        self._works = Works(settings.resume_within, settings.remember)
        roster = Roster(self._backends, settings.max_waiting)
        peers = PeerLimit(settings.max_per_peer)
        service = ModelService(roster, self._works, peers, settings)
        server.add_generic_rpc_handlers([service.handler(), OipService(roster, peers, version("edgewise")).handler()])
        self._health = HealthReport(self._backends, SERVICE_NAME)
        self._health.add_to(server)
        names = [SERVICE_NAME, OIP_SERVICE_NAME, HealthReport.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, server, described())
        await server.start()
        await self._health.start()
        self._server = server

    async def stop(self) -> None:
        """Take no more calls, let running ones end within `drain`, then end them. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        if self._health is not None:
            await self._health.stop()
        await server.stop(self._settings.drain)
        if self._works is not None:
            await self._works.stop()


def _bind(server: grpc.aio.Server, settings: ServeSettings) -> str:
    """Have ``server`` listen; the address as a target."""
    target = parse_listen(settings.listen)
    try:
        if settings.certificate is None:
            port = server.add_insecure_port(target.address)
        else:
            port = server.add_secure_port(target.address, _credentials(settings))
    except RuntimeError:
        if target.port is None:
            reason = "cannot be had; does its folder exist, and may you write there?"
        else:
            reason = _obstacle(target) or "cannot be had"
    else:
        return target.address if target.port is None else f"{target.address.rpartition(':')[0]}:{port}"
    raise _unavailable(settings, reason)


def _unavailable(settings: ServeSettings, reason: str) -> ConfigurationError:
    mend = "choose another `serve.listen`, or stop what listens there"
    return ConfigurationError([Problem(f"the address {settings.listen} {reason}", mend, ("serve", "listen"))])


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0


def _obstacle(target: Target) -> str | None:
    """Why nobody can listen on a port now: the operating system's own reason, which the library does not pass on."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError:
        return "names a host that is not known here"
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                in_use = error.errno == errno.EADDRINUSE
                return "is already in use" if in_use else f"cannot be had: {error.strerror}"
    return None


def _credentials(settings: ServeSettings) -> grpc.ServerCredentials:
    files = (settings.certificate, settings.key, settings.client_roots)
    try:
        certificate, key, roots = (None if path is None else Path(path).read_bytes() for path in files)
    except OSError as error:
        reason = f"cannot read {error.filename}: {error.strerror}"
    else:
        pairs = [(key or b"", certificate or b"")]
        return grpc.ssl_server_credentials(pairs, roots, require_client_auth=roots is not None)
    raise ConfigurationError([Problem(reason, "let this user read it", ("serve",))])


def _in_serve(problem: Problem) -> Problem:
    return replace(problem, path=("serve", *problem.path))
