"""Sizes of the buffers of TCP connections."""

from __future__ import annotations

import socket

__all__ = ["limit_window"]

_TOO_LARGE = 65536  # from here on TCP scales its window, which is what some routers break


def limit_window(sock: socket.SocketType, size: int) -> None:
    """tcp_windowsize: no larger window than that is announced; 0 leaves it to the system.

    It has to be set before the socket listens or connects. Sizes that need scaling are left alone.
    """
    if 0 < size < _TOO_LARGE:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
