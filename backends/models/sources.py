"""Where a model's file comes from, as a configuration writes it."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

WAYS = (
    "write `file:PATH`, `package:IMPORT_NAME/FILE`, `https://…`, `hf:OWNER/NAME/FILE@REVISION`, or `store:LABEL` for a "
    "file that `edgewise models add` brings; all but `https:` may name a folder, with a / at its end"
)


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file, or a folder, on this device."""

    path: str


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A file, or a folder, inside an installed Python package."""

    package: str
    inner: str


@dataclass(frozen=True, slots=True)
class WebSource:
    """A file on a web server, fetched by `edgewise models pull`."""

    url: str


@dataclass(frozen=True, slots=True)
class HuggingFaceSource:
    """A file or a folder of a Hugging Face repository, fetched by `edgewise models pull`. No ``file``: all of it."""

    repository: str
    file: str
    revision: str


@dataclass(frozen=True, slots=True)
class StoreSource:
    """A file or a folder that somebody has put into the store; the label is for people."""

    label: str


Source = FileSource | PackageSource | WebSource | HuggingFaceSource | StoreSource


def is_folder(source: Source) -> bool:
    """Whether it is all files of a folder: whoever means that writes a / at its end."""
    match source:
        case FileSource(path=text) | PackageSource(inner=text) | StoreSource(label=text):
            return text.endswith("/")
        case HuggingFaceSource(file=text):
            return not text or text.endswith("/")
        case WebSource():
            return False


def parse_source(text: str) -> Source | None:
    """The source that a text names; None where it names none."""
    scheme, _, rest = text.partition(":")
    if not rest or has_control(text) or not _is_unicode(text):
        return None
    match scheme:
        case "file":
            return FileSource(rest)
        case "package":
            package, _, inner = rest.partition("/")
            return PackageSource(package, inner) if package and inner else None
        case "http" | "https":
            return WebSource(text) if _may_be_fetched(text) else None
        case "hf":
            return _hugging_face(rest)
        case "store":
            return StoreSource(rest)
    return None


def _may_be_fetched(url: str) -> bool:
    """By TLS, or from this device; and without a password, which a configuration would show."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if not host or "@" in parts.netloc or not parts.path.strip("/") or parts.port == 0:
            return False
        host.encode("idna")  # raises for what no resolver takes
        return parts.scheme == "https" or host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _hugging_face(rest: str) -> HuggingFaceSource | None:
    path, _, revision = rest.partition("@")
    owner, _, named = path.partition("/")
    name, _, file = named.partition("/")
    whole = path.endswith("/")
    if not (owner and name and (file or whole)) or ".." in path.split("/"):
        return None
    return HuggingFaceSource(f"{owner}/{name}", file, revision or "main")


def has_control(text: str) -> bool:
    """Whether signs are in it that would steer a terminal, or end a file's name."""
    return any(unicodedata.category(sign) == "Cc" for sign in text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
