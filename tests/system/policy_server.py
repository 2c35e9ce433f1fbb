"""A web server with the MTA-STS policies of domains: HTTPS, answers as told, remembers the asked.

It listens on port 443 of an address of loopback, which needs root: policies are nowhere else.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.certificates import Authority

__all__ = ["PolicyServer", "page", "policy"]


def policy(mode: str, *hosts: str, max_age: int = 86400) -> bytes:
    """The response with a policy."""
    lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {host}" for host in hosts)]
    return page("\r\n".join([*lines, f"max_age: {max_age}", ""]).encode())


def page(body: bytes, *fields: str, status: int = 200, media: str = "text/plain") -> bytes:
    head = [f"HTTP/1.1 {status} so", f"Content-Length: {len(body)}", f"Content-Type: {media}"]
    return "\r\n".join([*head, *fields, "", ""]).encode() + body


class PolicyServer:
    """Use as a context manager. pages: responses by domain, may be changed; where there is none
    the server says nothing for ever. asked: how often, by domain. hold: while it is clear,
    requests wait for their answer."""

    def __init__(self, folder: Path, address: str, domains: Sequence[str]) -> None:
        """domains: those whose certificate is right; others get that of one of them."""
        self.authority = Authority(folder / "web-ca")
        names = [f"mta-sts.{domain}" for domain in domains]
        issued = self.authority.issue(names[0], *names)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(issued.certificate, issued.key)
        self.pages: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.hold = threading.Event()
        self.hold.set()
        self._end = threading.Event()
        self._listener = socket.create_server((address, 443), backlog=100)
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._end.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            with self._context.wrap_socket(raw, server_side=True) as connection:
                first, fields = _request(connection)
                domain = fields["host"].removeprefix("mta-sts.")
                assert first == "GET /.well-known/mta-sts.txt HTTP/1.1"
                self.asked[domain] += 1
                self.hold.wait()
                if domain not in self.pages:
                    self._end.wait()
                    return
                connection.sendall(self.pages[domain])
        except OSError:
            raw.close()  # the client did not want it


def _request(connection: ssl.SSLSocket) -> tuple[str, Mapping[str, str]]:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(1 << 14)
        if not more:
            raise ConnectionResetError
        data += more
    first, *lines = data.decode().strip().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return first, {name.lower(): value for name, value in pairs}
