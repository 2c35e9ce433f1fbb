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

from tests.certificates import Authority
from tests.system.web_server import WebServer, some

__all__ = ["PolicyServer", "page", "policy"]


def policy(mode: str, *hosts: str, max_age: int = 86400) -> bytes:
    """The response with a policy."""
    lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {host}" for host in hosts)]
    return page("\r\n".join([*lines, f"max_age: {max_age}", ""]).encode())


def page(body: bytes, *fields: str, status: int = 200, media: str = "text/plain") -> bytes:
    head = [f"HTTP/1.1 {status} so", f"Content-Length: {len(body)}", f"Content-Type: {media}"]
    return "\r\n".join([*head, *fields, "", ""]).encode() + body


class PolicyServer(WebServer):
    """pages: responses by domain, may be changed; where there is none the server says nothing for
    ever. asked: how often, by domain."""

    def __init__(self, folder: Path, address: str, domains: Sequence[str]) -> None:
        """domains: those whose certificate is right; others get that of one of them."""
        self.authority = Authority(folder / "web-ca")
        names = [f"mta-sts.{domain}" for domain in domains]
        issued = self.authority.issue(names[0], *names)
        self.pages: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self._end = threading.Event()
        super().__init__(issued, socket.create_server((address, 443), backlog=100))

    def __exit__(self, *error: object) -> None:
        self._end.set()
        super().__exit__(*error)

    def answer(self, connection: ssl.SSLSocket) -> None:
        first, fields = _request(connection)
        domain = fields["host"].removeprefix("mta-sts.")
        assert first == "GET /.well-known/mta-sts.txt HTTP/1.1"
        self.asked[domain] += 1
        self.hold.wait()
        if domain not in self.pages:
            self._end.wait()
            return
        connection.sendall(self.pages[domain])


def _request(connection: ssl.SSLSocket) -> tuple[str, Mapping[str, str]]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += some(connection)
    first, *lines = data.decode().strip().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return first, {name.lower(): value for name, value in pairs}
