"""A web server on loopback that serves one file as a test says."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgewise.backends.models.store import ModelStore

WEIGHTS = bytes(range(256)) * 8192
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@dataclass
class Web:
    """What the server does, and what it was asked.

    ``cuts`` are how many bytes each answer gives before it is cut, ``statuses`` how the first answers end without any;
    ``part`` is the Content-Range of whatever is asked for in part, and ``headers`` are said besides.
    """

    content: bytes = WEIGHTS
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    mark: str = '"v1"'
    status: int | None = None
    statuses: list[int] = field(default_factory=list)
    part: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    says_length: int | str | None = None
    redirect: str | None = None
    redirect_once: str | None = None
    hold: threading.Event | None = None
    asked: list[str | None] = field(default_factory=list)
    logins: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.address}/models/small.bin"


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.asked.append(self.headers["Range"])
            web.paths.append(self.path)
            web.arrived.set()
            if web.hold is not None:
                web.hold.wait(10)
            web.logins.append(self.headers["Authorization"])
            redirect, web.redirect_once = web.redirect or web.redirect_once, None
            if redirect is not None:
                self.send_response(302)
                self.send_header("Location", redirect)
                self.end_headers()
                return
            if (status := web.statuses.pop(0) if web.statuses else web.status) not in (None, 200):
                self.send_error(status)
                return
            self._send_content()

        def _send_content(self) -> None:
            start, total = 0, len(web.content)
            asked, condition = self.headers["Range"], self.headers["If-Range"]
            if asked is not None and web.ranges and condition in (None, web.mark):
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= total:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{total}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", web.part or f"bytes {start}-{total - 1}/{total}")
            else:
                self.send_response(200)
            if web.mark:
                self.send_header("ETag", web.mark)
            for name, value in web.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(web.says_length or total - start))
            self.end_headers()
            cut = web.cuts.pop(0) if web.cuts else total
            self.wfile.write(web.content[start : start + cut])

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the tests' output is read."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        web.address = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield web
        server.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store", pause=lambda seconds: None)
