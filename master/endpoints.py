"""Listening sockets: from the name, type and private columns of master.cf to descriptors.

inet: `host:port`, `port`, `[address]:port`; without a host on the addresses of inet_interfaces.
unix, unix-dgram, pass and fifo: a name below `private/` or `public/` of the queue directory, which
is the working directory. Every socket is non-blocking: several processes accept from it.
"""

import errno
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from libmail.config import Config
from libmail.config.interfaces import address_families, own_interfaces
from libmail.ipc.rendezvous import beside_fifo
from libmail.log import Fatal
from libmail.net.buffers import limit_window
from libmail.privileges import Identity, acting_as

__all__ = [
    "Endpoint",
    "Fifo",
    "Listener",
    "Network",
    "network_of",
    "open_endpoint",
    "socket_path",
]

_BACKLOG: Final = 4096  # the kernel takes net.core.somaxconn if that is less
_SOCKET_UMASK: Final = 0o111  # sockets get mode 0666: their directory says who may connect
_DATAGRAM_BUFFER: Final = 1 << 20
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_WILDCARD: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


_Host = tuple[socket.AddressFamily, str]
_Address = tuple[socket.AddressFamily, str, int]


@dataclass(frozen=True, slots=True)
class Network:
    """What main.cf says about addresses.

    families: those of inet_protocols that the kernel has. interfaces: the addresses of services
    without a host. ports: known_tcp_ports, names with their numbers. window: tcp_windowsize.
    """

    families: tuple[socket.AddressFamily, ...]
    interfaces: tuple[_Host, ...]
    ports: Mapping[str, str]
    window: int = 0


class Fifo:
    """A named pipe, with as much of a socket's interface as master needs."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor; -1 when closed."""
        return self._fd

    def close(self) -> None:
        """Close it; twice is allowed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


Listener = socket.socket | Fifo


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service listens. kind: second column of master.cf. place: "file, line 7".

    triggered: it understands the letters that come through a FIFO, and nothing else.
    """

    name: str
    kind: str
    private: bool
    place: str
    triggered: bool = False


def socket_path(endpoint: Endpoint) -> str:
    """Of a UNIX socket or fifo, below the queue directory."""
    return f"{'private' if endpoint.private else 'public'}/{endpoint.name}"


def open_endpoint(endpoint: Endpoint, network: Network, owner: Identity) -> list[Listener]:
    """What a service listens on.

    owner: who owns UNIX sockets. Raises Fatal.
    """
    try:
        match endpoint.kind:
            case "inet":
                return _listen_inet(_addresses(endpoint, network), network.window)
            case "fifo":
                return _open_fifo(endpoint, owner)
            case _:
                return [_listen_unix(socket_path(endpoint), endpoint.kind, owner)]
    except OSError as err:
        where = endpoint.name if endpoint.kind == "inet" else socket_path(endpoint)
        raise Fatal(f"{endpoint.place}: bind {where}: {err.strerror}") from err


# inet


def network_of(config: Config) -> Network:
    """What the configuration says about addresses. Raises ConfigError."""
    versions = address_families(config.list("inet_protocols"))
    families = tuple(_FAMILIES[version] for version in versions)
    names = config.list("inet_interfaces")
    if "all" in (name.lower() for name in names):
        hosts = tuple((family, _WILDCARD[family]) for family in families)
    else:
        own = own_interfaces(names, config.list("inet_protocols"))
        hosts = tuple((_FAMILIES[one.address.version], str(one.address)) for one in own)
    ports: dict[str, str] = {}
    for word in config.list("known_tcp_ports"):
        *aliases, number = word.split("=")
        ports.update(dict.fromkeys(aliases, number))
    return Network(families, hosts, ports, config.int("tcp_windowsize"))


def _addresses(endpoint: Endpoint, network: Network) -> list[_Address]:
    host, port = _split(endpoint.name)
    number = _port_number(port, network)
    if number is None:
        raise Fatal(f"{endpoint.place}: unknown port name: {port}")
    found = _resolve(host, network) if host else network.interfaces
    if not found:
        raise Fatal(f"{endpoint.place}: host not found: {host or 'inet_interfaces'}")
    return [(family, address, number) for family, address in dict.fromkeys(found)]


def _split(name: str) -> tuple[str, str]:
    """("host", "port"); host "" if there is none."""
    host, colon, port = name.rpartition(":")
    if not colon:
        return "", name
    return host.removeprefix("[").removesuffix("]"), port


def _port_number(port: str, network: Network) -> int | None:
    port = network.ports.get(port, port)
    if port.isascii() and port.isdigit():
        return int(port) if int(port) < 65536 else None
    try:
        return socket.getservbyname(port, "tcp")
    except OSError:
        return None


def _resolve(host: str, network: Network) -> tuple[_Host, ...]:
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(
        (family, str(address[0]))
        for family, _, _, _, address in answers
        if family in network.families
    )


def _listen_inet(addresses: list[_Address], window: int) -> list[Listener]:
    """All or none of them."""
    with ExitStack() as opened:
        listeners: list[Listener] = []
        for family, address, port in addresses:
            listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            opened.callback(listener.close)
            limit_window(listener, window)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections have it from their listener; replies are written in one piece each.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind((address, port))
            except OSError as err:
                text = f"{address} port {port}: {os.strerror(err.errno or 0)}"
                raise OSError(err.errno, text) from err
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            listeners.append(listener)
        opened.pop_all()
    return listeners


# unix


def _remove(path: str) -> None:
    """Make room for what is to be at path: a socket or FIFO is removed, nothing else."""
    try:
        found = stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if found not in (stat.S_IFSOCK, stat.S_IFIFO):
        raise OSError(errno.EEXIST, "a file that is no socket is in the way")
    os.unlink(path)


def _listen_unix(path: str, type_: str, owner: Identity) -> socket.socket:
    datagrams = type_ == "unix-dgram"
    kind = socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    mask = os.umask(_SOCKET_UMASK)
    try:
        if datagrams:  # also of those that come before a service reads: who has sent them
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _DATAGRAM_BUFFER)
        with acting_as(owner):
            _remove(path)
            listener.bind(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    if not datagrams:
        listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _open_fifo(endpoint: Endpoint, owner: Identity) -> list[Listener]:
    """A FIFO, and beside it the socket on which its service answers; see libmail.ipc.rendezvous.

    It is held open for writing as well, so that it never reports the end of the file. Who writes to
    it cannot be told, so where there is a socket, it is for the mail system and root.
    """
    path = socket_path(endpoint)
    with acting_as(owner):
        _remove(path)
        os.mkfifo(path, 0o600)
        fifo = Fifo(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    try:
        if endpoint.triggered:
            os.fchmod(fifo.fileno(), 0o600 if endpoint.private else 0o622)
            return [fifo]
        return [fifo, _listen_unix(beside_fifo(path), "unix", owner)]
    except OSError:
        fifo.close()
        raise
