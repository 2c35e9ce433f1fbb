"""A Milter for the bench: it takes every event, answers each, and adds one header.

The port is its argument.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from typing import Final

_OFFER: Final = struct.pack(">III", 6, 1, 0)  # it adds headers, and wants all events
_NEGOTIATE, _MACROS, _END, _ABORT, _QUIT = b"ODEAQ"


def _packet(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


_CONTINUE: Final = _packet(b"c")
_ADDED: Final = _packet(b"hX-Bench\0seen\0") + _CONTINUE


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._data = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It takes what comes."""
        if isinstance(transport, asyncio.WriteTransport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer the packets that are complete."""
        data, answers = self._data + data, []
        at = 0
        while len(data) >= at + 5:
            (length,) = struct.unpack_from(">I", data, at)
            if len(data) < at + 4 + length:
                break
            answers.append(_answer(data[at + 4]))
            at += 4 + length
        self._data = data[at:]
        if self._transport is not None:
            self._transport.write(b"".join(answers))


def _answer(command: int) -> bytes:
    if command == _NEGOTIATE:
        return _packet(b"O" + _OFFER)
    if command in (_MACROS, _ABORT, _QUIT):
        return b""
    return _ADDED if command == _END else _CONTINUE


async def serve(port: int) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Session, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
