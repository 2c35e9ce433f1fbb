"""Recorded handshakes, mutated and cut up anyhow: data or the documented errors, nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.tls.authorities import Authorities
from libmail.tls.client_spec import ClientSpec
from libmail.tls.connection import Connection, Step, accept, connect
from libmail.tls.context import Ask, ClientContext, ClientSettings, ServerContext, ServerSettings
from libmail.tls.errors import TlsClosed, TlsFailed
from libmail.tls.pem import load_chains
from tests.certificates import Authority
from tests.unit.libmail.tls.pair import ANY, CIPHERS, GROUPS, TLS_1_2, Pair

MOST_OUTPUT = 1 << 17


class Recorded:
    """Contexts, and what went over the wire in both directions with them."""

    def __init__(self, authority: Authority) -> None:
        chains = load_chains([str(authority.issue("mx.example.com", kind="rsa").chain)])
        authorities = Authorities(str(authority.certificate), "")
        self.server = ServerContext(
            ServerSettings(
                chains=chains,
                authorities=authorities,
                ciphers=CIPHERS,
                protocols=ANY,
                groups=GROUPS,
                ask=Ask.YES,
                names=True,
                cached=True,
            )
        )
        self.client = ClientContext(
            ClientSettings(chains=chains, authorities=authorities, groups=GROUPS, cached=True)
        )
        self.spec = ClientSpec(ciphers=CIPHERS, protocols=ANY, server_name="mx.example.com")
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        for protocols in (ANY, TLS_1_2):
            pair = Pair(self.server, self.client, replace(self.spec, protocols=protocols)).shake()
            pair.client.write(b"MAIL FROM:<>\r\n")
            pair.server.write(b"250 Ok\r\n")
            self.to_server.append(b"".join(pair.to_server) + pair.client.output())
            self.to_client.append(b"".join(pair.to_client) + pair.server.output())


@pytest.fixture(scope="module")
def recorded(authority: Authority) -> Recorded:
    return Recorded(authority)


changes = st.lists(
    st.tuples(st.integers(0, 5000), st.binary(max_size=8), st.integers(0, 8)), max_size=6
)
chunks = st.lists(st.integers(1, 2000), min_size=1, max_size=8)


def mutated(data: bytes, edits: list[tuple[int, bytes, int]]) -> bytes:
    """Octets at a place replaced by others, perhaps more or fewer."""
    for place, inserted, removed in edits:
        at = place % (len(data) + 1)
        data = data[:at] + inserted + data[at + removed :]
    return data


def follow(connection: Connection, data: bytes, sizes: list[int]) -> Iterator[int]:
    """Feed all of data, in pieces, then the end; tells how much comes of it."""
    start, turn = 0, 0
    connection.handshake()
    while start < len(data):
        piece = data[start : start + sizes[turn % len(sizes)]]
        start, turn = start + len(piece), turn + 1
        connection.receive(piece)
        step = connection.handshake()
        if step is Step.HELLO:
            connection.answer()
            step = connection.handshake()
        if step is Step.DONE:
            connection.read()
        yield len(connection.output())
    connection.end_of_input()
    if connection.handshake() is Step.DONE:
        connection.read()


def feed(connection: Connection, data: bytes, sizes: list[int]) -> None:
    """It ends with an error that has words, after a bounded number of octets for the peer."""
    produced: list[int] = []
    with pytest.raises((TlsFailed, TlsClosed)) as caught:
        produced += follow(connection, data, sizes)
    words = [str(caught.value), *getattr(caught.value, "problems", ())]
    assert all(line.isprintable() for line in words)
    assert sum(produced) + len(connection.output()) <= MOST_OUTPUT
    connection.close()


@given(edits=changes, sizes=chunks, which=st.integers(0, 1))
def test_server(recorded: Recorded, edits: list[tuple[int, bytes, int]], sizes: list[int],
                which: int) -> None:  # fmt: skip
    feed(accept(recorded.server), mutated(recorded.to_server[which], edits), sizes)


@given(edits=changes, sizes=chunks, which=st.integers(0, 1))
def test_client(recorded: Recorded, edits: list[tuple[int, bytes, int]], sizes: list[int],
                which: int) -> None:  # fmt: skip
    connection = connect(recorded.client, recorded.spec)
    feed(connection, mutated(recorded.to_client[which], edits), sizes)


@given(data=st.binary(max_size=500), sizes=chunks)
def test_any_octets(recorded: Recorded, data: bytes, sizes: list[int]) -> None:
    feed(accept(recorded.server), data, sizes)


@given(edits=changes, sizes=chunks)
def test_after_the_handshake(
    recorded: Recorded, edits: list[tuple[int, bytes, int]], sizes: list[int]
) -> None:
    """Records that somebody on the way has changed."""
    pair = Pair(recorded.server, recorded.client, recorded.spec).shake()
    pair.client.write(os.urandom(3000))
    feed(pair.server, mutated(pair.client.output(), edits), sizes)


def test_sessions_leave_no_memory_behind(recorded: Recorded) -> None:
    """Half-open handshakes cost nothing once they are gone."""
    import psutil

    def some(count: int) -> None:
        for _ in range(count):
            connection = accept(recorded.server)
            connection.receive(recorded.to_server[0][:200])
            connection.handshake()

    process = psutil.Process()
    some(300)
    before = process.memory_info().rss
    some(3000)
    assert process.memory_info().rss - before < 4 << 20
