"""libmail.tls against openssl(1) as another process, both directions, over real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from libmail.tls.authorities import Authorities
from libmail.tls.client_spec import ClientSpec
from libmail.tls.connection import Connection, Step, accept, connect
from libmail.tls.context import Ask, ClientContext, ClientSettings, ServerContext, ServerSettings
from libmail.tls.errors import TlsClosed
from libmail.tls.facts import Trust
from libmail.tls.pem import load_chains
from libmail.tls.settings import parse_protocols
from tests.certificates import OPENSSL, Authority, Issued
from tests.system.harness import free_port
from tests.system.processes import wait_until

CIPHERS = "HIGH:!aNULL"
GROUPS = ("X25519", "prime256v1")
VERSIONS = pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
LIMIT = 60


class Line:
    """A session over a socket, blocking."""

    def __init__(self, connection: Connection, sock: socket.socket) -> None:
        self.connection = connection
        self.sock = sock

    def shake(self) -> None:
        while True:
            step = self.connection.handshake()
            self.sock.sendall(self.connection.output())
            if step is Step.DONE:
                return
            self._take()

    def _take(self) -> None:
        data = self.sock.recv(1 << 16)
        if data:
            self.connection.receive(data)
        else:
            self.connection.end_of_input()

    def read(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            part = self.connection.read()
            if not part:
                self._take()
            got += part
        return got

    def write(self, data: bytes) -> None:
        self.connection.write(data)
        self.sock.sendall(self.connection.output())

    def close(self) -> None:
        self.connection.shutdown()
        self.sock.sendall(self.connection.output())
        self.sock.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("mx.example.com", "mx.example.com", kind="rsa")


@contextmanager
def running(*words: str, stdin: int | None = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [OPENSSL, *words], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@VERSIONS
def test_s_client(authority: Authority, issued: Issued, version: str) -> None:
    """With a certificate, against our server: what both say is the same."""
    own = authority.issue("client.example.com")
    context = ServerContext(
        ServerSettings(
            chains=load_chains([str(issued.chain)]),
            authorities=Authorities(str(authority.certificate), ""),
            ciphers=CIPHERS,
            protocols=parse_protocols(">=TLSv1.2"),
            groups=GROUPS,
            ask=Ask.YES,
        )
    )
    data = os.urandom(300_000).hex().encode() + b"\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        words = ["s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", f"-{version}"]
        words += ["-CAfile", str(authority.certificate), "-verify_return_error", "-no_ign_eof"]
        words += ["-verify_hostname", "mx.example.com", "-quiet"]
        words += ["-cert", str(own.certificate), "-key", str(own.key)]
        with running(*words) as process:
            sock, _ = listener.accept()
            sock.settimeout(LIMIT)
            line = Line(accept(context), sock)
            line.shake()
            assert line.connection.trust is Trust.TRUSTED
            assert line.connection.peer is not None
            assert line.connection.peer.common_name == "client.example.com"
            assert line.connection.agreed.protocol == version.replace("tls1_", "TLSv1.")
            assert process.stdin is not None
            process.stdin.write(data)
            process.stdin.flush()
            assert line.read(len(data)) == data
            line.write(data)
            line.close()
            assert process.stdout is not None
            assert process.stdout.read().endswith(data)


@VERSIONS
def test_s_server(authority: Authority, issued: Issued, version: str, tmp_path: Path) -> None:
    """Our client against it, twice: the second time the session is resumed."""
    port = free_port()
    words = ["s_server", "-accept", f"127.0.0.1:{port}", f"-{version}", "-rev", "-naccept", "2"]
    words += ["-cert", str(issued.certificate), "-key", str(issued.key)]
    context = ClientContext(
        ClientSettings(
            authorities=Authorities(str(authority.certificate), ""), groups=GROUPS, cached=True
        )
    )
    session = b""
    with running(*words):
        for resumed in (False, True):
            spec = ClientSpec(
                ciphers=CIPHERS,
                protocols=parse_protocols(">=TLSv1.2"),
                names=("mx.example.com",),
                server_name="mx.example.com",
            )
            sock = connected(port)
            line = Line(connect(context, spec, session), sock)
            line.shake()
            agreed = line.connection.agreed
            assert agreed.resumed is resumed
            assert agreed.protocol == version.replace("tls1_", "TLSv1.")
            assert line.connection.trust is Trust.VERIFIED
            line.write(b"abc\n")
            assert line.read(4) == b"cba\n"
            saved = line.connection.saved_session()
            session = saved.data if saved is not None else session
            assert session
            line.close()


def test_garbage_from_a_plain_server() -> None:
    context = ClientContext(ClientSettings())
    spec = ClientSpec(ciphers=CIPHERS, protocols=parse_protocols(""))
    connection = connect(context, spec)
    connection.handshake()
    connection.receive(b"220 mx.example.com ESMTP\r\n")
    with pytest.raises(Exception, match="-1") as caught:
        connection.handshake()
    assert not isinstance(caught.value, TlsClosed)


def connected(port: int) -> socket.socket:
    """A connection to a server that is just starting."""
    found: list[socket.socket] = []

    def attempt() -> bool:
        try:
            found.append(socket.create_connection(("127.0.0.1", port), LIMIT))
        except ConnectionRefusedError:
            return False
        return True

    wait_until(attempt)
    return found[0]
