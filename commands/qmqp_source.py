"""qmqp-source(1): send messages by QMQP, many at a time, to see what a server can bear."""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Final, cast

import uvloop

from libmail.load.command_line import parse, run
from libmail.load.traffic import Plan, Sender, Traffic, read_plan
from libmail.log import Fatal
from libmail.message.dates import rfc5322_date
from libmail.smtp.qmqp import packet
from libmail.text.printable import complain

__all__ = ["main"]

_PROGRAM: Final = "qmqp-source"
_USAGE: Final = (
    "usage: qmqp-source [-46cv] [-C count] [-f from] [-l length] [-m messages] [-M host_name]"
    " [-r recipients] [-R interval] [-s sessions] [-t to] [inet:]host[:port] | unix:path"
)
_LETTERS: Final = "46cC:f:l:m:M:r:R:s:t:v"
_LENGTH: Final = 1024
_MOST_ANSWER: Final = 4096


def content(plan: Plan) -> bytes:
    """A message of the length that was asked for, with its header."""
    number, host = os.getpid(), plan.host_name
    header = (
        f"From: <{plan.sender}>\nTo: <{plan.recipient}>\n"
        f"Date: {rfc5322_date(int(time.time()))}\nMessage-Id: <{number:04x}@{host}>\n\n"
    ).encode("utf-8", "surrogateescape")
    length = _LENGTH if plan.length is None else plan.length
    rest = length - len(header)
    lines = b"".join([b"X" * n + b"\n" for n in range(1, 80)])
    body = (lines * (max(rest, 0) // len(lines) + 1))[: max(rest - 1, 0)]
    return (header + body + b"\n")[:length] if rest > 0 else header[:length]


def recipients(plan: Plan) -> list[bytes]:
    """Of each message."""
    address = plan.recipient.encode("utf-8", "surrogateescape")
    if plan.recipients == 1:
        return [address]
    return [b"%d%s" % (number, address) for number in range(plan.recipients)]


class _Session(Sender):
    """One message to one connection."""

    def __init__(self, traffic: Traffic, data: bytes) -> None:
        self._traffic = traffic
        self._data = data
        self._answer = b""
        self._said_all = False
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        if self._traffic.next_message() is None:
            transport.close()
        else:
            self._said_all = True
            self._transport.write(self._data)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._answer += data
        if len(self._answer) > _MOST_ANSWER or self._answer.endswith(b","):
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if self.over.done():
            return
        text = self._answer.partition(b":")[2].removesuffix(b",").decode("utf-8", "replace")
        if self._traffic.plan.verbose and text:
            complain(_PROGRAM, text)
        if self._said_all and not text.startswith("K"):
            self.over.set_exception(Fatal(f"server error: {text or 'lost connection'}"))
            return
        if self._said_all:
            self._traffic.delivered()
        self.over.set_result(None)


def _send(arguments: Sequence[str]) -> None:
    options = parse(arguments, _LETTERS, 1)
    plan = read_plan(options, options.words[0], "628")
    data = packet(content(plan), plan.sender.encode("utf-8", "surrogateescape"), recipients(plan))
    traffic = Traffic(plan, lambda mine: _Session(mine, data))
    try:
        uvloop.run(traffic.run())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


def main(arguments: Sequence[str]) -> int:
    """Run qmqp-source; returns the exit status. arguments: without the program's name."""
    return run(_PROGRAM, _USAGE, lambda: _send(arguments))
