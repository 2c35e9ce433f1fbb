"""tcp_windowsize."""

from __future__ import annotations

import socket

import pytest

from libmail.net.buffers import limit_window


def _size(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def test_window() -> None:
    with socket.socket() as usual, socket.socket() as limited:
        limit_window(limited, 8192)
        assert _size(limited) == 2 * 8192  # Linux counts its own data, too: socket(7)
        assert _size(limited) < _size(usual)


@pytest.mark.parametrize("size", [0, 65536, 1 << 20])
def test_what_needs_scaling_is_left_to_the_system(size: int) -> None:
    with socket.socket() as usual, socket.socket() as left_alone:
        limit_window(left_alone, size)
        assert _size(left_alone) == _size(usual)
