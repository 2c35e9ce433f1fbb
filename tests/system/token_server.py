"""A token server: HTTPS, answers as told, remembers what it was asked."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl

from tests.certificates import Authority
from tests.system.harness import free_port
from tests.system.web_server import WebServer, some

__all__ = ["TokenServer", "error", "tokens"]

Script: TypeAlias = Callable[[str, dict[str, str]], bytes]
"""Gets the path and the form; returns all octets of the response."""


def response(status: int, body: bytes | dict[str, object], *fields: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (f"HTTP/1.1 {status} said so", f"Content-Length: {len(data)}", *fields, "", "")
    return "\r\n".join(head).encode() + data


def tokens(access: str, life: int = 3600, **more: object) -> bytes:
    return response(
        200, {"access_token": access, "token_type": "Bearer", "expires_in": life, **more}
    )


def error(code: str, text: str = "", *fields: str, status: int = 400) -> bytes:
    return response(status, {"error": code, "error_description": text}, *fields)


class TokenServer(WebServer):
    """script: may be changed at any time. asked: path and form of each request."""

    def __init__(self, folder: Path, script: Script, name: str = "localhost") -> None:
        """name: in the certificate; it is reached as localhost."""
        self.authority = Authority(folder / "token-ca")
        issued = self.authority.issue(name, name)
        self.port = free_port()
        self.script = script
        self.asked: list[tuple[str, dict[str, str]]] = []
        super().__init__(issued, socket.create_server(("127.0.0.1", self.port)))

    def account(self, folder: Path, name: str, **more: str) -> None:
        """Write the file of an account here, and beside the directory whom to trust."""
        trusted = folder.parent / "token-ca.pem"
        trusted.write_bytes(self.authority.certificate.read_bytes())
        settings = {
            "token_endpoint": f"https://localhost:{self.port}/token",
            "device_endpoint": f"https://localhost:{self.port}/device",
            "client_id": "our-client",
            "client_secret": "our-client-secret",
            "authorities": str(trusted),
            **more,
        }
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
        path.chmod(0o600)

    def answer(self, connection: ssl.SSLSocket) -> None:
        path, form = _request(connection)
        self.asked.append((path, form))
        self.hold.wait()
        connection.sendall(self.script(path, form))


def _request(connection: ssl.SSLSocket) -> tuple[str, dict[str, str]]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    length = next(int(line.split()[1]) for line in fields if line.startswith("Content-Length"))
    while len(body) < length:
        body += some(connection)
    return first.split()[1], dict(parse_qsl(body.decode(), strict_parsing=True))
