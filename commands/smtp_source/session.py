"""A connection of smtp-source(1).

The dialogue is a generator: it gives what is to be sent, and gets the reply to it. So there is no
task for a session, and a step costs little more than its system calls.
"""

import asyncio
from collections.abc import Generator
from typing import Final, cast

from commands.smtp_source.message import Messages
from libmail.load.traffic import Sender, Traffic
from libmail.log import Fatal
from libmail.text.printable import complain

__all__ = ["Session"]

_PAUSE: Final = "pause"
_MOST_REPLY: Final = 1 << 16  # octets

_Script = Generator[tuple[bytes, str], bytes, None]


class Session(Sender):
    """Sends messages over one connection."""

    def __init__(self, traffic: Traffic, messages: Messages) -> None:
        self._traffic = traffic
        self._messages = messages
        self._verbose = traffic.plan.verbose
        self._received = b""
        self._script: _Script = self._dialogue()
        self._doing = "connection"
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self.over = self._loop.create_future()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._number = transport.get_extra_info("socket").fileno()
        next(self._script)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._received += data
        while (end := self._received.find(b"\n") + 1) > 0:
            line, self._received = self._received[:end], self._received[end:]
            if self._verbose:
                complain("smtp-source", f"<<< {line.decode('utf-8', 'replace').rstrip()}")
            if line[3:4] != b"-":
                self._step(line)
        if len(self._received) > _MOST_REPLY:
            self._fail("the server's reply is too long")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if not self.over.done():
            if self._ended:
                self.over.set_result(None)
            else:
                self.over.set_exception(Fatal(f"lost connection ({self._doing})"))

    # the dialogue

    def _step(self, reply: bytes) -> None:
        if self._ended or self._doing is _PAUSE:
            return
        if not self._messages.patient and reply[:1] not in b"23" and self._doing:
            text = reply.decode("utf-8", "replace").rstrip()
            self._fail(f"{self._doing} rejected: {text}")
            return
        self._go_on(reply)

    def _go_on(self, reply: bytes) -> None:
        try:
            data, self._doing = self._script.send(reply)
        except StopIteration:
            self._ended = True
            self._transport.close()
            return
        if data:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._verbose:
            complain("smtp-source", f">>> {data[:200].decode('utf-8', 'replace').rstrip()}")
        self._transport.write(data)

    def _fail(self, reason: str) -> None:
        if not self.over.done():
            self.over.set_exception(Fatal(reason))
        self._ended = True
        self._transport.close()

    def _dialogue(self) -> _Script:
        """What is sent, and what it is about; each reply comes back."""
        messages, traffic = self._messages, self._traffic
        yield b"", "connection"
        hello = messages.hello()
        if hello:
            yield hello, "helo name"
        while (number := traffic.next_message()) is not None:
            yield from self._message(number)
            if not messages.keep:
                break
            seconds = traffic.pause() if traffic.more else 0.0
            if seconds:
                self._loop.call_later(seconds, self._go_on, b"")
                yield b"", _PAUSE
        yield b"QUIT\r\n", ""

    def _message(self, number: int) -> _Script:
        messages, taken = self._messages, 0
        for command, doing in messages.envelope():
            reply = yield command, doing
            taken += doing == "recipient" and reply[:1] == b"2"
        if reply[:1] != b"3":
            return
        yield messages.content(self._number, number), "end of data"
        if messages.lmtp:
            for _ in range(taken - 1):
                yield b"", "end of data"
        self._traffic.delivered()
