"""What a configuration says of serving, and what can be wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from ...backends.grpc.settings import holds_pem
from ...backends.grpc.target import Target, is_loopback, parse_target
from ...core.problem import Problem, Severity
from ...core.settings import FilePath, Seconds, Secret

_TEN_SECONDS = Seconds(10.0)
_ONE_MINUTE = Seconds(60.0)
_PLACE = re.compile(r"[A-Z]{2}|site:\S+")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Where the server listens, for whom, and how much may wait there."""

    listen: Annotated[str, "`host:port` or `unix:/path`; another host than loopback needs a certificate"] = (
        "127.0.0.1:50051"
    )
    place: Annotated[
        str,
        "where this device is, told to clients: a country such as `NL`, or `site:NAME`; without it, what may not be "
        "processed everywhere is refused",
    ] = ""
    certificate: Annotated[FilePath | None, "a PEM file of the server's certificate chain, for TLS"] = None
    key: Annotated[FilePath | None, "a PEM file of that certificate's private key"] = None
    client_roots: Annotated[
        FilePath | None, "a PEM file of the certificates that vouch for clients; clients without one are refused"
    ] = None
    tokens: Annotated[tuple[Secret, ...], "callers must present one of these; without any, everybody may call"] = ()
    max_waiting: Annotated[int, "how many calls may wait for each model; more are told to come back"] = 64
    max_per_peer: Annotated[int, "how many calls one caller may have here at once, running and waiting"] = 128
    resume_within: Annotated[
        Seconds, "how long a stream goes on after its connection was lost, and can be resumed after its end; 0s: never"
    ] = _TEN_SECONDS
    remember: Annotated[
        Seconds, "how long a finished answer is kept, in memory, for a second call with its idempotency key"
    ] = _ONE_MINUTE
    plaintext: Annotated[
        bool, "serve other machines without TLS; for links that something else encrypts. Whoever is between can read"
    ] = False
    drain: Annotated[Seconds, "how long running calls may take to end when the server stops"] = _TEN_SECONDS


def parse_listen(text: str) -> Target:
    """Read where to listen. Port 0 takes any free one. Raises ``ValueError`` with what is wrong."""
    host, separator, port = text.rpartition(":")
    if separator and port == "0":
        return Target(text, host.strip("[]"), 0, is_loopback(host.strip("[]")))
    target = parse_target(text)
    if target.address != text or text.startswith(("dns:", "ipv4:", "ipv6:")):
        raise ValueError("write `host:port` or `unix:/path`")
    return target


def check(settings: ServeSettings) -> Sequence[Problem]:
    """What is wrong with settings whose fields have the right types. Paths count from the ``serve:`` section."""
    problems = [*_check_files(settings)]
    if (settings.certificate is None) != (settings.key is None):
        missing = "certificate" if settings.certificate is None else "key"
        problems.append(Problem(f"TLS needs `{missing}` too", "give both `certificate` and `key`", (missing,)))
    if settings.client_roots is not None and settings.certificate is None:
        sentence, mend = "clients can prove themselves over TLS only", "give `certificate` and `key`"
        problems.append(Problem(sentence, mend, ("client_roots",), rests_on=(("certificate",),)))
    if settings.place and not _PLACE.fullmatch(settings.place):
        problems.append(Problem(f"{settings.place!r} is no place", "write `NL` or `site:praxis`", ("place",)))
    if settings.max_per_peer < 1:
        problems.append(Problem("nobody could ever call", "give 1 or more", ("max_per_peer",)))
    if settings.plaintext and settings.certificate is not None:
        sentence, mend = "with a certificate nothing is served in plaintext", "remove `plaintext`"
        problems.append(Problem(sentence, mend, ("plaintext",), rests_on=(("certificate",),)))
    if settings.max_waiting < 0:
        problems.append(Problem("no fewer than none can wait", "give 0 or more", ("max_waiting",)))
    try:
        target = parse_listen(settings.listen)
    except ValueError as error:
        return [*problems, Problem(f"cannot listen on {settings.listen!r}", str(error), ("listen",))]
    return [*problems, *_check_openness(settings, target)]


def _check_openness(settings: ServeSettings, target: Target) -> list[Problem]:
    if target.local:
        return []
    if settings.certificate is None and not settings.plaintext:
        return [
            Problem(
                f"{settings.listen} is open to other machines, and nothing would be encrypted",
                "give `certificate` and `key`, listen on 127.0.0.1 or a unix socket, or say `plaintext: true`",
                ("listen",),
                rests_on=(("certificate",),),
            )
        ]
    if not settings.tokens and settings.client_roots is None:
        return [
            Problem(
                f"whoever reaches {settings.listen} may call",
                "give `tokens` or `client_roots`",
                ("listen",),
                Severity.WARNING,
                rests_on=(("tokens",), ("client_roots",)),
            )
        ]
    return []


def _check_files(settings: ServeSettings) -> list[Problem]:
    files = {"certificate": settings.certificate, "key": settings.key, "client_roots": settings.client_roots}
    return [
        Problem(f"there is no PEM in {path}", "put the PEM file there", (name,))
        for name, path in files.items()
        if path is not None and not holds_pem(path)
    ]
