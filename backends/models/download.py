"""A file from a web server: resumed where it was cut, and never more than the disk holds."""

from __future__ import annotations

import http.client
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from ...core.errors import ModelUnavailable
from .sources import WebSource, parse_source

_CHUNK = 1 << 18
_SILENCE = 30.0
_TRIES_WITHOUT_PROGRESS = 5
_NUMBER = re.compile(r"[0-9]{1,19}")
_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)")
_AS_WRITTEN = "%!$&'()*+,;=:@/?~"
"""What stands in an address as it is; all else that is not plain ASCII is quoted."""
_ELSEWHERE = range(300, 400)
_LATER = frozenset(
    {
        http.HTTPStatus.REQUEST_TIMEOUT,
        http.HTTPStatus.TOO_MANY_REQUESTS,
        http.HTTPStatus.INTERNAL_SERVER_ERROR,
        http.HTTPStatus.BAD_GATEWAY,
        http.HTTPStatus.SERVICE_UNAVAILABLE,
        http.HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""With these a server that gave the beginning may yet give the rest."""


_LOGIN = "Authorization"


class Progress(Protocol):
    """Told how far a piece of work is, in bytes; ``total`` is None where the server does not say."""

    def __call__(self, doing: str, done: int, total: int | None) -> None: ...


class _Broken(Exception):
    """The connection ended early. What came is kept."""


class _Refused(Exception):
    """The server's answer is not the file; the text says what it is."""


class _DiskFailed(Exception):
    """The file cannot be written; the text says why."""


class _OnlyFetchable(HTTPRedirectHandler):
    """Follows redirects to where a source could lead, and nowhere else: not out of TLS. Other hosts get no login."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if not isinstance(parse_source(newurl), WebSource):
            raise HTTPError(req.full_url, code, "a redirect out of TLS", headers, fp)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        login = req.unredirected_hdrs.get(_LOGIN)
        if following is not None and login is not None and following.host == req.host:
            following.add_unredirected_header(_LOGIN, login)
        return following


def require_space(folder: Path, size: int) -> None:
    """Raise `ModelUnavailable` where the disk has no room for so many bytes more."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ModelUnavailable(
            f"there is no room: it takes {megabytes(size)} more, and {folder} has {megabytes(free)} free; "
            "make room, or name another folder by EDGEWISE_MODELS"
        )


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


@dataclass(slots=True)
class _Download:
    """One file on its way.

    ``pinned``: a sum will tell what it is. ``mark`` is the server's name for this very version of it, where it has one,
    ``ranges`` whether it gives parts as asked for. ``start`` is where its last answer began, once one has ``begun``.
    """

    url: str
    target: Path
    opener: OpenerDirector
    progress: Progress
    pinned: bool
    authorization: str | None
    mark: str | None = None
    begun: bool = False
    start: int = 0
    ranges: bool = True

    def attempt(self) -> None:
        """Get what is missing. Raises `_Broken` when it was cut, `_Refused` for what is not the file."""
        have = self.came() if self._can_go_on() else 0
        with self._open(have) as response:
            start, total = self._extent(response, have)
            if total is not None:
                require_space(self.target.parent, total - start)
            self.begun, self.start = True, start
            with _opened(self.target, start) as file:
                done = self._receive(response, file, start, total)
        if total is not None and done < total:
            raise _Broken

    def came(self) -> int:
        """How much of the file is here."""
        return self.target.stat().st_size if self.target.exists() else 0

    def _can_go_on(self) -> bool:
        """Whether the rest may be added to what came: two versions in one file are told by a mark, or by a sum."""
        return self.ranges and (self.pinned or self.mark is not None)

    def _open(self, have: int) -> http.client.HTTPResponse:
        request = Request(_quoted(self.url), headers={"User-Agent": "edgewise", "Accept-Encoding": "identity"})
        if self.authorization is not None:
            request.add_unredirected_header(_LOGIN, self.authorization)
        if have:
            request.add_header("Range", f"bytes={have}-")
            if self.mark is not None:
                request.add_header("If-Range", self.mark)
        response: http.client.HTTPResponse = self.opener.open(request, timeout=_SILENCE)
        mark = response.headers.get("ETag")
        # A weak mark does not promise the same bytes.
        self.mark = mark if mark is not None and not mark.startswith("W/") else None
        return response

    def _extent(self, response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
        """Where this response begins in the file, and how long the file is."""
        if (coding := response.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise _Refused(f"a file in another form ({coding})")
        if have and response.status == http.HTTPStatus.PARTIAL_CONTENT:
            found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != have:
                self.ranges = False
                raise _Broken
            return have, None if found[2] == "*" else int(found[2])
        if response.status != http.HTTPStatus.OK:
            raise _Refused(f"status {response.status}")
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if _NUMBER.fullmatch(length) else None

    def _receive(self, response: http.client.HTTPResponse, file: FileIO, done: int, total: int | None) -> int:
        while chunk := response.read(_CHUNK):
            _write(file, chunk)
            done += len(chunk)
            self.progress("fetching", done, total)
        return done


def _opened(path: Path, start: int) -> FileIO:
    """The file, to be written from there on; without a buffer, so that its closing cannot fail."""
    try:
        file = FileIO(path, "r+" if start else "w")
        file.seek(start)
    except OSError as error:
        raise _DiskFailed(error.strerror) from None
    return file


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[file.write(rest) :]
        except OSError as error:
            raise _DiskFailed(error.strerror) from None


def download(
    url: str,
    target: Path,
    progress: Progress,
    pause: Callable[[float], None],
    *,
    pinned: bool,
    authorization: str | None = None,
) -> bool:
    """Fetch a file. What ``target`` has already is taken for its beginning, where the file is ``pinned`` by a sum.
    ``authorization`` goes to this host alone.

    What cannot begin fails at once. What has begun is taken up again where it was cut, until five times nothing more
    came; ``pause`` waits in between. Returns whether all of it came in one answer: else it may be of two versions,
    which the sum will show. Raises `ModelUnavailable`; what came by then stays in ``target``.
    """
    work = _Download(url, target, build_opener(_OnlyFetchable()), progress, pinned, authorization)
    host = urlsplit(url).hostname
    fruitless = 0
    while True:
        before = work.came()
        try:
            work.attempt()
        except HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    return False
                # More is here than the server has: another file.
                target.unlink()
                continue
            if error.code in _ELSEWHERE:
                sentence = f"{host} sends from {url} to where nothing is fetched from: only https, or this device"
                raise ModelUnavailable(sentence) from None
            if not (work.begun and error.code in _LATER):
                raise ModelUnavailable(f"{host} answers with status {error.code} to {url}") from None
        except _Refused as error:
            raise ModelUnavailable(f"{host} answers with {error} to {url}") from None
        except _Broken:
            pass
        except (URLError, OSError, http.client.HTTPException) as error:
            if not work.begun:
                raise ModelUnavailable(f"{host} cannot be reached ({_why(error)}); try again when online") from None
        except ValueError:  # an address that it redirects to
            raise ModelUnavailable(f"{host} sends from {url} to what is no address") from None
        except _DiskFailed as error:
            raise ModelUnavailable(f"{target.parent} cannot be written ({error})") from None
        else:
            return work.start == 0
        fruitless = 0 if work.came() > before else fruitless + 1
        if fruitless == _TRIES_WITHOUT_PROGRESS:
            raise ModelUnavailable(f"{host} ends the connection again and again; what came is kept, so try again later")
        pause(float(fruitless))


def _quoted(url: str) -> str:
    """An address as it goes over the wire: what is not ASCII in path and query is quoted."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=quote(parts.path, _AS_WRITTEN), query=quote(parts.query, _AS_WRITTEN)))


def _why(error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    return (reason.strerror if isinstance(reason, OSError) else None) or type(reason).__name__
