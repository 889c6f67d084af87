"""What a configuration says of a service that speaks OpenAI's API, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from ...core.problem import Problem
from ...core.request import Task
from ...core.settings import Seconds, Secret
from ..endpoint import Endpoint
from ..grpc.settings import TlsSettings, holds_pem
from ..grpc.target import is_loopback
from ..token_source import TokenSource, check_credentials

_ONE_SECOND = Seconds(1.0)


@dataclass(frozen=True, slots=True)
class OpenaiSettings:
    """A remote model service over HTTP. Plain HTTP is for loopback only."""

    url: Annotated[str, "where its API begins, such as `https://api.example/v1`"]
    model: Annotated[str | None, "the model that generates there"] = None
    embed_model: Annotated[str | None, "the model that embeds there; without it, texts are not embedded there"] = None
    tls: Annotated[TlsSettings | None, "how the server proves who it is"] = None
    credentials: Annotated[Secret | None, "sent as `authorization: Bearer …`; write it as ${NAME}"] = None
    credentials_from: Annotated[TokenSource | None, "where the token comes from, if it does not last"] = None
    context_tokens: Annotated[int | None, "its largest prompt and answer together"] = None
    max_concurrency: Annotated[int, "how many calls run there at once; more wait here"] = 64
    constrains: Annotated[bool, "it honours a response format"] = True
    logprobs: Annotated[bool, "it reports log-probabilities"] = True
    limit_key: Annotated[
        Literal["max_tokens", "max_completion_tokens"], "what it calls the longest answer; some models want the second"
    ] = "max_tokens"
    connect_timeout: Annotated[Seconds, "how long a connection may take to stand"] = _ONE_SECOND

    @property
    def encrypted(self) -> bool:
        """Whether it is spoken to by TLS."""
        return self.url.startswith("https:")

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        return Endpoint(host, parts.port or (443 if parts.scheme == "https" else 80), is_loopback(host))

    @property
    def offered(self) -> frozenset[Task]:
        """The tasks that the models named can do."""
        models = {Task.GENERATE: self.model, Task.EMBED: self.embed_model}
        return frozenset(task for task, model in models.items() if model)


def check(settings: OpenaiSettings) -> Sequence[Problem]:
    """What is wrong with settings whose fields have the right types."""
    return [*_check_url(settings.url), *_check_tls(settings.tls), *_check_rest(settings)]


def _check_url(url: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
        yield Problem("this is no address of an API", "write `https://host/v1`", ("url",))
    elif parts.scheme == "http" and not is_loopback(host):
        yield Problem("nothing would be encrypted", "write `https://…`; plain HTTP is for loopback", ("url",))


def _check_tls(tls: TlsSettings | None) -> Iterator[Problem]:
    if tls is None:
        return
    if (tls.certificate is None) != (tls.key is None):
        yield Problem("mutual TLS needs a certificate and its key", "give both `certificate` and `key`", ("tls",))
    for name in ("root_certificates", "certificate", "key"):
        path: str | None = getattr(tls, name)
        if path is not None and not holds_pem(path):
            yield Problem(f"there is no PEM in {path}", "put the PEM file there", ("tls", name))


def _check_rest(settings: OpenaiSettings) -> Iterator[Problem]:
    if not settings.offered:
        yield Problem("the service can do nothing", "name its `model` or `embed_model`", ("model",))
    yield from check_credentials(settings.credentials, settings.credentials_from)
    if settings.max_concurrency < 1:
        yield Problem("nothing could ever run", "give 1 or more", ("max_concurrency",))
    if settings.context_tokens is not None and settings.context_tokens < 1:
        yield Problem("nothing could ever fit", "give 1 or more, or leave it out", ("context_tokens",))
    if settings.connect_timeout <= 0:
        yield Problem("no connection could ever stand", "write a time such as `1s`", ("connect_timeout",))
