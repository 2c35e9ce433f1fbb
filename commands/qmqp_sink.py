"""qmqp-sink(1): take messages by QMQP, and forget them."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Final, cast

import uvloop

from libmail.load.command_line import Options, parse, run
from libmail.load.listening import Listener, listening_sockets
from libmail.smtp.qmqp import End, PacketError, PacketParser
from libmail.text.netstrings import netstring
from libmail.text.printable import complain

__all__ = ["main"]

_PROGRAM: Final = "qmqp-sink"
_USAGE: Final = "usage: qmqp-sink [-46cv] [-x time] [inet:][host]:port | unix:path backlog"
_MOST_SESSIONS: Final = 10_000
_MOST_ADDRESS: Final = 1 << 16


class _Counter:
    """Shows how many messages have come."""

    def __init__(self, options: Options) -> None:
        self._shown = "-c" in options
        self.verbose = "-v" in options
        self._count = 0

    def add(self) -> None:
        self._count += 1
        if self._shown:
            sys.stdout.write(f"{self._count}\r")
            sys.stdout.flush()


class _Session(asyncio.Protocol):
    """Takes one message."""

    def __init__(self, listener: Listener, counter: _Counter) -> None:
        self._listener = listener
        self._counter = counter
        self._parser = PacketParser(0, _MOST_ADDRESS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        parser = self._parser
        parser.receive_data(data)
        try:
            while (event := parser.next_event()) is not None:
                if isinstance(event, End):
                    self._counter.add()
                    self._answer(b"KOk")
                    return
        except PacketError as error:
            complain(_PROGRAM, f"{error} while {parser.part.value}")
            self._answer(b"D%s" % str(error).encode())

    def _answer(self, text: bytes) -> None:
        if self._counter.verbose:
            complain(_PROGRAM, text.decode())
        self._transport.write(netstring(text))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._listener.session_over()


def _serve(arguments: Sequence[str]) -> None:
    options = parse(arguments, "46cvx:", 2)
    counter = _Counter(options)
    limit = options.number("-x", 0) or None
    sockets = listening_sockets(options.words[0], options.words[1], options)

    async def serve() -> None:
        listener = Listener(sockets, lambda mine: _Session(mine, counter), most=_MOST_SESSIONS)
        await listener.run(limit)

    uvloop.run(serve())


def main(arguments: Sequence[str]) -> int:
    """Run qmqp-sink; returns the exit status. arguments: without the program's name."""
    return run(_PROGRAM, _USAGE, lambda: _serve(arguments))
