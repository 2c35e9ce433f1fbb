"""A page of an HTTPS server: at one of its addresses, and of no other server."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmail.net.http import HttpError, Response, Url
from libmail.net.https import HttpsClient, Unverified
from tests.certificates import Authority, Issued

HERE, NOWHERE = "127.0.0.1", "127.0.0.2"
BODY = b"hello"


class Server:
    """Answers each request on a port of one address of loopback."""

    def __init__(self, issued: Issued) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(issued.certificate, issued.key)
        self._listener = socket.create_server((HERE, 0))
        self.port: int = self._listener.getsockname()[1]
        self.asked: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(raw, server_side=True) as connection:
                    self.asked.append(connection.recv(1 << 14))
                    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
                    connection.sendall(head + BODY)
            except OSError:
                raw.close()  # it was not for the client

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Server]:
    made = Server(authority.issue("common.test", "x.test"))
    yield made
    made.close()


def page(authority: Authority, server: Server, host: str, *addresses: str) -> Response:
    client = HttpsClient("Postfix", 20.0, str(authority.certificate))
    return asyncio.run(client.page(Url(host, server.port, "/a"), addresses, "text/plain"))


def test_page(authority: Authority, server: Server) -> None:
    assert page(authority, server, "x.test", HERE).body == BODY
    assert server.asked[-1] == (
        b"GET /a HTTP/1.1\r\nHost: x.test:%d\r\nUser-Agent: Postfix\r\n"
        b"Accept: text/plain\r\nConnection: close\r\n\r\n" % server.port
    )


def test_another_address(authority: Authority, server: Server) -> None:
    assert page(authority, server, "x.test", NOWHERE, HERE).body == BODY
    with pytest.raises(
        HttpError, match=r"x\.test: Connection refused|x\.test: Connect call failed"
    ):
        page(authority, server, "x.test", NOWHERE, NOWHERE)


@pytest.mark.parametrize("host", ["y.test", "common.test"])
def test_another_server(authority: Authority, server: Server, host: str) -> None:
    """Also one whose certificate has the name in the subject only (RFC 9525 §2)."""
    before = len(server.asked)
    with pytest.raises(Unverified, match="Hostname mismatch"):
        page(authority, server, host, HERE)
    assert len(server.asked) == before


def test_another_authority(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Unverified, match="certificate"):
        page(Authority(tmp_path / "other"), server, "x.test", HERE)
