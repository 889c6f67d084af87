"""What a configuration says of a remote gRPC service, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from ...core.problem import Path as ProblemPath
from ...core.problem import Problem
from ...core.request import Task
from ...core.settings import ByteSize, FilePath, Seconds, Secret
from ..token_source import TokenSource, check_credentials
from .oip_settings import OipSettings, check_oip
from .target import parse_target


class ProtocolName(StrEnum):
    """The protocols; ``protocols.py`` has their code."""

    EDGEWISE = "edgewise"
    """`edgewise.v1.ModelService`, what `edgewise serve` speaks."""
    OIP = "oip"
    """The Open Inference Protocol v2, `inference.GRPCInferenceService`: Triton, MLServer, KServe, Dynamo."""
    GEMINI = "gemini"
    """Google's Gemini API, `google.ai.generativelanguage.v1beta`."""
    VERTEX = "vertex"
    """Google's Vertex AI, `google.cloud.aiplatform.v1`."""


_MODELS = {
    ProtocolName.GEMINI: "`gemini-2.5-flash` or the like",
    ProtocolName.VERTEX: "`projects/PROJECT/locations/REGION/publishers/google/models/NAME`",
}

_ONE_SECOND = Seconds(1.0)
_TEN_SECONDS = Seconds(10.0)
_FIVE_MINUTES = Seconds(300.0)
MAX_MESSAGE_BYTES = ByteSize(64 * 1024 * 1024)
"""The largest message, where nothing else is said. The server takes no larger one."""


class Balancing(StrEnum):
    """Which of a target's addresses a call goes to."""

    FIRST = "first"
    """One connection, to the first address that answers."""
    ROUND_ROBIN = "round_robin"
    """Each address in turn. One that says by `grpc.health.v1` that it does not serve is left out, and so is for a
    while one whose calls fail much more often than the others'. One without a health service counts as well."""


class Compression(StrEnum):
    """How messages are made smaller on the wire."""

    NONE = "none"
    GZIP = "gzip"
    DEFLATE = "deflate"


class Authentication(StrEnum):
    """How Google's services are shown the credentials."""

    KEY = "key"
    """An API key, as `x-goog-api-key`."""
    BEARER = "bearer"
    """A token, as `authorization: Bearer …`."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How the service proves who it is, and how this client does. Files that are replaced are read again."""

    root_certificates: Annotated[
        FilePath | None, "a PEM file of the certificates that may vouch for the server; without it, the public ones"
    ] = None
    server_name: Annotated[str | None, "the name the server's certificate must hold, where it is not the target's"] = (
        None
    )
    certificate: Annotated[FilePath | None, "a PEM file of this client's own certificate chain, for mutual TLS"] = None
    key: Annotated[FilePath | None, "a PEM file of that certificate's private key"] = None


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """A remote model service over gRPC.

    Without ``tls``, loopback and unix sockets are spoken to in plaintext, and everything else by TLS with the public
    root certificates. There is no plaintext to another machine.
    """

    target: Annotated[
        str, "where the service listens: `host:port`, `dns:///host:port`, `ipv4:a:port,b:port` or `unix:/path`"
    ]
    protocol: Annotated[ProtocolName, "the protocol it speaks"] = ProtocolName.EDGEWISE
    model: Annotated[str | None, "the model that generates or embeds there; may be left out where only one can"] = None
    tls: Annotated[TlsSettings | None, "how the server proves who it is"] = None
    credentials: Annotated[Secret | None, "the service's token or key; write it as ${NAME}"] = None
    credentials_from: Annotated[TokenSource | None, "where the token comes from, if it does not last"] = None
    authentication: Annotated[
        Authentication | None,
        "Google's services only: whether the credentials are an API key or a token; a key for gemini, unless "
        "google-auth gives it, and a token for vertex",
    ] = None
    tasks: Annotated[tuple[Task, ...], "what the service can do, as far as its protocol carries it"] = (
        Task.GENERATE,
        Task.EMBED,
        Task.INFER,
        Task.COUNT_TOKENS,
    )
    context_tokens: Annotated[int | None, "its largest prompt and answer together"] = None
    max_concurrency: Annotated[
        int, "how many calls run there at once, and how many counts beside them; more wait here"
    ] = 64
    continues: Annotated[bool, "it continues a last message of the assistant exactly"] = True
    constrains: Annotated[bool, "it honours a response format"] = True
    logprobs: Annotated[bool, "it reports log-probabilities"] = True
    resumes: Annotated[bool, "it keeps streams whose connection was lost, to go on with them"] = True
    connect_timeout: Annotated[
        Seconds, "how long a connection may take to stand; doubled, up to eight times, while it fails"
    ] = _ONE_SECOND
    keepalive: Annotated[
        Seconds | None,
        "how often a server that owes an answer is asked whether it lives; 10s for edgewise, and 5m for others, which "
        "end the connections of whoever asks more often",
    ] = None
    balancing: Annotated[
        Balancing | None,
        "how calls are spread over the target's addresses; round_robin where it lists several, else first",
    ] = None
    health_service: Annotated[
        str, "with round_robin: the name by which each address is asked for its health; empty asks for the whole server"
    ] = ""
    compression: Annotated[Compression, "how requests are compressed, for slow links"] = Compression.NONE
    max_message: Annotated[ByteSize, "the largest request sent and the largest message taken"] = MAX_MESSAGE_BYTES
    oip: Annotated[OipSettings | None, "`protocol: oip` only: which tensors carry what"] = None

    @property
    def offered(self) -> frozenset[Task]:
        """The tasks that the service can do and its protocol can carry."""
        return frozenset(self.tasks) & _carried(self)

    @property
    def balances(self) -> bool:
        """Whether calls are spread over several addresses."""
        if self.balancing is None:
            return parse_target(self.target).several
        return self.balancing is Balancing.ROUND_ROBIN

    @property
    def ping_interval(self) -> float:
        """Seconds between two pings of a server that owes an answer."""
        if self.keepalive is not None:
            return self.keepalive
        return _TEN_SECONDS if self.protocol is ProtocolName.EDGEWISE else _FIVE_MINUTES


def _carried(settings: GrpcSettings) -> frozenset[Task]:
    if settings.protocol is ProtocolName.OIP:
        return (settings.oip or OipSettings()).tasks
    if settings.protocol in (ProtocolName.GEMINI, ProtocolName.VERTEX):
        return frozenset({Task.GENERATE, Task.EMBED, Task.COUNT_TOKENS})
    return frozenset(Task)


def placeless(settings: GrpcSettings) -> bool:
    """Gemini's API is one pool for the whole world, and so is Vertex's host without a region."""
    if settings.protocol is ProtocolName.GEMINI:
        return True
    if settings.protocol is not ProtocolName.VERTEX:
        return False
    return _host(settings) in ("aiplatform" + _GOOGLE, "global" + _VERTEX) or _model_region(settings) == "global"


_GOOGLE = ".googleapis.com"
_VERTEX = "-aiplatform" + _GOOGLE


def _host(settings: GrpcSettings) -> str:
    return settings.target.removeprefix("dns:").lstrip("/").partition(":")[0]


def _model_region(settings: GrpcSettings) -> str:
    parts = (settings.model or "").split("/")
    return parts[3] if len(parts) > 3 and parts[2] == "locations" else ""


def _check_region(settings: GrpcSettings) -> list[Problem]:
    """A model of one region behind the host of another: where it would be processed, nobody could say."""
    host, region = _host(settings), _model_region(settings)
    if settings.protocol is not ProtocolName.VERTEX or not host.endswith(_VERTEX) or not region:
        return []
    hosts_region = host.removesuffix(_VERTEX)
    if region == hosts_region:
        return []
    sentence = f"it lies in {region}, and the target in {hosts_region}"
    return [_problem("model", sentence, f"write `locations/{hosts_region}`")]


def sends_keys(settings: GrpcSettings) -> bool:
    """Only our own protocol has a place for them."""
    return settings.protocol is ProtocolName.EDGEWISE


def check(settings: GrpcSettings) -> Sequence[Problem]:
    """What is wrong with settings whose fields have the right types."""
    problems = [*_check_target(settings), *_check_tls(settings.tls), *_check_numbers(settings)]
    problems += _check_region(settings)
    problems += check_credentials(settings.credentials, settings.credentials_from)
    if not settings.offered:
        possible = ", ".join(sorted(_carried(settings)))
        problems.append(_problem("tasks", "the service can do nothing", f"name some of {possible}"))
    if settings.protocol in (ProtocolName.GEMINI, ProtocolName.VERTEX) and not settings.model:
        problems.append(_problem("model", "this service wants a model", f"write {_MODELS[settings.protocol]}"))
    if settings.authentication is not None and settings.protocol not in (ProtocolName.GEMINI, ProtocolName.VERTEX):
        problems.append(_problem("authentication", "this protocol has no use for it", "remove it"))
    if settings.oip is not None:
        problems += check_oip(settings.oip)
        if settings.protocol is not ProtocolName.OIP:
            problems.append(_problem("oip", "this protocol has no use for it", "write `protocol: oip`, or remove it"))
    return problems


def _check_target(settings: GrpcSettings) -> list[Problem]:
    try:
        target = parse_target(settings.target)
    except ValueError as error:
        return [_problem("target", f"{settings.target!r} is no target", str(error))]
    if target.several and not target.local and (settings.tls is None or settings.tls.server_name is None):
        mend = "write `tls: {server_name: …}`: the name that the certificate of each must hold"
        return [_problem("target", "several addresses have no one name", mend)]
    return []


def _check_tls(tls: TlsSettings | None) -> list[Problem]:
    if tls is None:
        return []
    problems = []
    if (tls.certificate is None) != (tls.key is None):
        missing = "certificate" if tls.certificate is None else "key"
        problems.append(_problem("tls", f"mutual TLS needs `{missing}` too", "give both `certificate` and `key`"))
    for name in ("root_certificates", "certificate", "key"):
        path: str | None = getattr(tls, name)
        if path is not None and not holds_pem(path):
            problems.append(_problem(("tls", name), f"there is no PEM in {path}", "put the PEM file there"))
    return problems


def holds_pem(path: str) -> bool:
    """Whether there is a file that can be read and looks like PEM."""
    try:
        return b"-----BEGIN " in Path(path).read_bytes()
    except OSError:
        return False


def _check_numbers(settings: GrpcSettings) -> list[Problem]:
    problems = []
    if settings.max_concurrency < 1:
        problems.append(_problem("max_concurrency", "nothing could ever run", "give 1 or more"))
    if settings.context_tokens is not None and settings.context_tokens < 1:
        problems.append(_problem("context_tokens", "nothing could ever fit", "give 1 or more, or leave it out"))
    if settings.connect_timeout <= 0:
        problems.append(_problem("connect_timeout", "no connection could ever stand", "write a time such as `1s`"))
    if settings.keepalive is not None and settings.keepalive < 1:
        problems.append(_problem("keepalive", "servers take this for an attack", "write `10s` or more"))
    if settings.max_message < 1024:
        problems.append(_problem("max_message", "no message would fit", "write a size such as `64MiB`"))
    return problems


def _problem(path: str | ProblemPath, sentence: str, mend: str) -> Problem:
    return Problem(sentence, mend, (path,) if isinstance(path, str) else path)
