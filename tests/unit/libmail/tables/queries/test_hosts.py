"""Which server of several is asked, and when a failed one is asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from libmail.tables.queries.client_file import ClientFile
from libmail.tables.queries.hosts import (
    Host,
    Hosts,
    QueryFailed,
    ServerFailed,
    ServerLost,
    host_names,
)
from libmail.tables.table import TableOptions


class Servers:
    """Servers that can be told to be down; a connection is the name with a number."""

    def __init__(self, *names: str) -> None:
        self.down: set[str] = set()
        self.lost: set[str] = set()
        self.now = 1000.0
        self.connected: list[str] = []
        self.closed: list[str] = []
        self.hosts = Hosts(
            names, self.connect, self.closed.append, 60.0, lambda: self.now, self.choose
        )

    @staticmethod
    def choose(hosts: Sequence[Host[str]]) -> Host[str]:
        return hosts[0]

    def connect(self, name: str) -> str:
        if name in self.down:
            raise ServerFailed(f"{name} is down")
        self.connected.append(f"{name}#{len(self.connected)}")
        return self.connected[-1]

    def answer(self, connection: str, name: str) -> str:
        if connection in self.lost:
            raise ServerLost(f"{name} closed")
        if name in self.down:
            raise ServerFailed(f"{name} hangs")
        return connection

    def ask(self, question: Callable[[str, str], str] | None = None) -> str:
        return self.hosts.ask(question or self.answer)


def test_connection_is_kept() -> None:
    servers = Servers("a", "b")
    assert servers.ask() == servers.ask() == "a#0"
    assert servers.connected == ["a#0"]
    servers.hosts.close()
    assert servers.closed == ["a#0"]
    assert servers.ask() == "a#1"


def test_sockets_come_first() -> None:
    servers = Servers("inet:a", "unix:/b")
    assert servers.ask() == "unix:/b#0"


def test_another_server_helps_out() -> None:
    servers = Servers("a", "b")
    servers.down.add("a")
    assert servers.ask() == "b#0"
    servers.down.clear()
    servers.down.add("b")
    with pytest.raises(ServerFailed, match="b hangs"):
        servers.ask()  # a failed less than a minute ago
    assert servers.closed == ["b#0"]
    servers.now += 60.0
    assert servers.ask() == "a#1"


def test_all_are_down() -> None:
    servers = Servers("a", "b")
    servers.down |= {"a", "b"}
    with pytest.raises(ServerFailed, match="b is down"):
        servers.ask()
    with pytest.raises(ServerFailed, match="no server is available"):
        servers.ask()
    servers.down.clear()
    servers.now += 60.0
    assert servers.ask() == "a#0"


def test_same_server_twice() -> None:
    """How a load balancer gets a second chance at once, mysql_table(5)."""
    servers = Servers("a", "a")
    attempts = []

    def answer(connection: str, name: str) -> str:
        attempts.append(connection)
        if len(attempts) == 1:
            raise ServerFailed("no")
        return connection

    assert servers.ask(answer) == "a#1"


def test_kept_connection_was_closed() -> None:
    servers = Servers("a")
    assert servers.ask() == "a#0"
    servers.lost.add("a#0")
    assert servers.ask() == "a#1"
    servers.lost.add("a#1")
    servers.down.add("a")
    with pytest.raises(ServerFailed, match="a is down"):
        servers.ask()


def test_bad_query_is_no_reason_to_leave() -> None:
    servers = Servers("a", "b")

    def answer(connection: str, name: str) -> str:
        raise QueryFailed(f"{name} does not understand")

    with pytest.raises(QueryFailed, match="b does not understand"):
        servers.ask(answer)
    assert servers.closed == []
    assert servers.ask() == "a#0"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("hosts = inet:a:1, unix:/b", ["inet:a:1", "unix:/b"]),
        ("hosts = a a", ["a", "a"]),
        ("host = 192.0.2.1", ["192.0.2.1"]),
        ("user = x", ["localhost"]),
    ],
)
def test_names(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "x.cf").write_text(f"{text}\n")
    assert host_names(ClientFile("mysql", f"{tmp_path}/x.cf", TableOptions())) == names
