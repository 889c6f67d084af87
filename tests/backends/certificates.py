"""Real certificates, made for a test."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import trustme

from edgewise.core.settings import FilePath

_DAY = timedelta(days=1)


def pem(path: Path, *blobs: trustme.Blob) -> FilePath:
    """A file, replaced as whoever rotates certificates replaces it."""
    new = path.with_suffix(".new")
    new.write_bytes(b"".join(blob.bytes() for blob in blobs))
    new.rename(path)
    return FilePath(str(path))


def past(authority: trustme.CA, name: str) -> trustme.LeafCert:
    """A certificate whose time was over yesterday."""
    yesterday = datetime.now(UTC) - _DAY
    return authority.issue_cert(name, not_before=yesterday - _DAY, not_after=yesterday)


def future(authority: trustme.CA, name: str) -> trustme.LeafCert:
    """A certificate whose time begins tomorrow."""
    tomorrow = datetime.now(UTC) + _DAY
    return authority.issue_cert(name, not_before=tomorrow, not_after=tomorrow + _DAY)


def showing(issued: trustme.LeafCert, clients: trustme.CA | None = None) -> grpc.ServerCredentials:
    """A gRPC server's credentials: what it shows, and who has to vouch for its clients."""
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    roots = None if clients is None else clients.cert_pem.bytes()
    pairs = [(issued.private_key_pem.bytes(), chain)]
    return grpc.ssl_server_credentials(pairs, roots, require_client_auth=clients is not None)


def serving(authority: trustme.CA, *, clients: trustme.CA | None = None) -> grpc.ServerCredentials:
    """The same, with a certificate for localhost."""
    return showing(authority.issue_cert("localhost"), clients)


@contextmanager
def refusing(authority: trustme.CA, clients: trustme.CA, version: ssl.TLSVersion) -> Iterator[str]:
    """A server by another library, which refuses a client by an alert, as most do; gRPC's own just closes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    context.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("localhost").configure_cert(context)
    clients.configure_trust(context)

    def serve() -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    context.wrap_socket(connection, server_side=True).recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"localhost:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
