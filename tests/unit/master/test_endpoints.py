"""Listening sockets, on loopback and in a temporary directory."""

import itertools
import os
import socket
import stat
from pathlib import Path

import pytest

from libmail.config import Config
from libmail.config.main_cf import parse_main_cf
from libmail.ipc.blocking import BlockingConnection, ServiceDown
from libmail.log import Fatal
from libmail.privileges import Identity
from master.endpoints import Endpoint, Fifo, Listener, Network, network_of, open_endpoint

V4 = socket.AF_INET
NETWORK = Network((V4,), ((V4, "127.0.0.1"),), {"smtps": "465", "submissions": "465"})
OWNER = Identity("self", os.geteuid(), os.getegid(), ())


@pytest.fixture
def queue(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (short_tmp / "private").mkdir()
    (short_tmp / "public").mkdir()
    monkeypatch.chdir(short_tmp)
    return short_tmp


def opened(name: str, kind: str, *, private: bool = False) -> list[Listener]:
    return open_endpoint(Endpoint(name, kind, private, "master.cf: line 7"), NETWORK, OWNER)


def close(listeners: list[Listener]) -> None:
    for one in listeners:
        one.close()


@pytest.mark.parametrize("name", ["127.0.0.1:0", "[127.0.0.1]:0", "0"])
def test_inet_listens_where_it_says(name: str) -> None:
    (listener,) = opened(name, "inet")
    assert isinstance(listener, socket.socket)
    assert listener.getsockname()[0] == "127.0.0.1"
    assert not listener.getblocking()
    client = socket.create_connection(listener.getsockname())
    client.close()
    close([listener])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("127.0.0.1:no-such-port", "master.cf: line 7: unknown port name: no-such-port"),
        ("127.0.0.1:99999", "master.cf: line 7: unknown port name: 99999"),
        ("[::1]:0", "master.cf: line 7: host not found: ::1"),
    ],
)
def test_inet_that_cannot_be(name: str, text: str) -> None:
    with pytest.raises(Fatal, match="^" + text.replace("[", r"\[") + "$"):
        opened(name, "inet")


def test_an_address_in_use_is_fatal_with_its_place() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    with pytest.raises(Fatal, match=f"^master.cf: line 7: bind .*{port}.*in use"):
        opened(f"127.0.0.1:{port}", "inet")
    taken.close()


@pytest.mark.parametrize(("private", "place"), [(True, "private"), (False, "public")])
def test_unix_replaces_what_an_earlier_run_left(queue: Path, private: bool, place: str) -> None:
    close(opened("x", "unix", private=private))
    listeners = opened("x", "unix", private=private)
    path = queue / place / "x"
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close(listeners)


def test_unix_replaces_nothing_but_sockets(queue: Path) -> None:
    (queue / "public/x").write_text("precious")
    with pytest.raises(Fatal, match="in the way"):
        opened("x", "unix")
    assert (queue / "public/x").read_text() == "precious"


def test_datagrams(queue: Path) -> None:
    listeners = opened("postlog", "unix-dgram")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"line", str(queue / "public/postlog"))
    assert isinstance(listeners[0], socket.socket)
    assert listeners[0].recv(100) == b"line"
    close(listeners)


def test_fifo_is_never_at_its_end(queue: Path) -> None:
    close(opened("f", "fifo"))
    fifo, listener = opened("f", "fifo")
    assert isinstance(fifo, Fifo)
    (queue / "public/f").write_bytes(b"W")
    assert os.read(fifo.fileno(), 10) == b"W"
    with pytest.raises(BlockingIOError):
        os.read(fifo.fileno(), 10)
    assert (queue / "public/f").stat().st_mode & 0o777 == 0o600
    fifo.close()
    fifo.close()
    assert fifo.fileno() == -1
    listener.close()


def test_service_of_a_fifo_is_reached_by_a_socket_beside_it(queue: Path) -> None:
    listeners = opened("f", "fifo")
    BlockingConnection("public/f", 10).close()
    BlockingConnection(str(queue / "public/f"), 10).close()
    close(listeners)
    with pytest.raises(ServiceDown):
        BlockingConnection("public/f", 10)


@pytest.mark.parametrize("kinds", list(itertools.permutations(("unix", "fifo", "unix-dgram"), 2)))
def test_type_of_a_service_may_change(queue: Path, kinds: tuple[str, str]) -> None:
    for kind in (*kinds, kinds[0]):
        close(opened("f", kind))


def test_program_that_is_not_ours_has_the_fifo_alone(queue: Path) -> None:
    endpoint = Endpoint("f", "fifo", False, "master.cf: line 7", triggered=True)
    (fifo,) = open_endpoint(endpoint, NETWORK, OWNER)
    assert (queue / "public/f").stat().st_mode & 0o777 == 0o622
    fifo.close()


def test_network_of_main_cf() -> None:
    text = "inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nknown_tcp_ports = a=b=7, c=9\n"
    entries, _ = parse_main_cf(text, "main.cf")
    network = network_of(Config("/etc/postfix", entries))
    assert network == Network((V4,), ((V4, "127.0.0.1"),), {"a": "7", "b": "7", "c": "9"})


def test_all_interfaces_are_one_wildcard_a_family() -> None:
    entries, _ = parse_main_cf("inet_protocols = ipv4\n", "main.cf")
    assert network_of(Config("/etc/postfix", entries)).interfaces == ((V4, "0.0.0.0"),)
