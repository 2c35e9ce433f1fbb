"""Waking a service up: as if a client connected and wrote one byte, without ever waiting."""

import os
import socket
from typing import Final

from libmail.log import LOG
from master.endpoints import Fifo, Listener, socket_path
from master.plan import Plan

__all__ = ["wake"]

_REQUEST: Final = b"W"


def wake(plan: Plan, listeners: list[Listener]) -> socket.socket | None:
    """Send the request. What is returned has to stay open for a while: it is still connecting."""
    try:
        if plan.entry.type == "fifo":
            os.write(next(one.fileno() for one in listeners if isinstance(one, Fifo)), _REQUEST)
            return None
        if plan.entry.type == "inet":
            return _wake_inet(listeners)
        _wake_unix(socket_path(plan.endpoint), datagram=plan.entry.type == "unix-dgram")
    except BlockingIOError:
        pass  # so many clients are waiting that the service wakes up anyway
    except OSError as err:
        LOG.warning(f"wake up service {plan.entry.name}: {err.strerror}")
    return None


def _wake_unix(path: str, *, datagram: bool) -> None:
    kind = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as client:
        client.connect(path)
        client.send(_REQUEST)


def _wake_inet(listeners: list[Listener]) -> socket.socket | None:
    """Connecting alone wakes the service: a server that speaks first expects nothing."""
    listener = next(one for one in listeners if isinstance(one, socket.socket))
    client = socket.socket(listener.family, listener.type | socket.SOCK_CLOEXEC)
    client.setblocking(False)
    client.connect_ex(listener.getsockname())
    return client
