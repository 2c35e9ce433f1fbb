"""A Milter for the bench: it takes every event, answers each, and adds one header.

As little as possible is done for that, as it is the mail system that is measured; one thread serves
all connections. The port is its argument.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
from typing import Final

_LENGTH: Final = struct.Struct(">I")


def _packet(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


_OFFER: Final = _packet(b"O" + struct.pack(">III", 6, 1, 0))  # adds headers, wants all events
_CONTINUE: Final = _packet(b"c")
_ANSWERS: Final = {
    ord("O"): _OFFER,
    ord("E"): _packet(b"hX-Bench\0seen\0") + _CONTINUE,
    **dict.fromkeys(b"DAQ", b""),  # macros, and the ends of a message and of a session
}
_READ: Final = 1 << 16
_BACKLOG: Final = 100


def _answered(data: bytes) -> tuple[bytes, bytes]:
    """The answers to the packets that are complete, and what is left of the data."""
    answers, at, size = b"", 0, len(data)
    while at + 4 < size:
        end = at + 4 + _LENGTH.unpack_from(data, at)[0]
        if end > size:
            break
        answers += _ANSWERS.get(data[at + 4], _CONTINUE)
        at = end
    return answers, data[at:]


def serve(port: int) -> None:
    """Until the process is ended."""
    listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    clients: dict[int, tuple[socket.socket, bytes]] = {}  # each with what is incomplete yet
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                client, _ = listener.accept()
                clients[client.fileno()] = client, b""
                epoll.register(client, select.EPOLLIN)
                continue
            client, rest = clients.pop(fd)
            try:
                data = client.recv(_READ)
            except ConnectionResetError:
                data = b""
            if not data:
                client.close()
                continue
            answers, rest = _answered(rest + data)
            clients[fd] = client, rest
            if answers:
                client.sendall(answers)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
