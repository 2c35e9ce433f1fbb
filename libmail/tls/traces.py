"""Traces of handshakes: with `,trace` behind a TLS loglevel, a file each in the queue's tlstrace.

A trace tells what both sides say while they shake hands, as SSL_trace(3) writes it, and nothing of
what they say afterwards. It is text, from strangers, so octets that are not printable do not get
into it. Who shakes hands may not write in the queue: tlsmgr(8) makes the files (`TraceFiles`), and
as it is one process, tls_trace_rate_limit holds for all daemons together. They themselves do not
even begin with what could only be too many (`Tracer`).

The name of a file is PROGRAM-YYYYMMDDhhmmss.MICROSECONDS-ADDRESS-RANDOM.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from typing import Final

from libmail.ipc.frames import MAX_FRAME
from libmail.tls.connection import Connection
from libmail.tls.loglevel import LogLevel

__all__ = ["FOLDER", "TraceFiles", "TraceRate", "Tracer"]

FOLDER: Final = "tlstrace"
_LONGEST: Final = MAX_FRAME - 1024  # octets that fit into a message to tlsmgr
_PROGRAM: Final = re.compile(r"[a-z]{1,20}")
_ADDRESS: Final = re.compile(r"[0-9a-fA-F.:]{1,45}")
_SHOWN: Final = bytes(
    octet if 32 <= octet < 127 or octet in b"\n\t" else ord("?") for octet in range(256)
)


class TraceRate:
    """At most so many traces in a second. clock: seconds, from any moment on."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._since = float("-inf")
        self._count = 0

    def allows(self) -> bool:
        """Whether there may be another one, which counts then."""
        now = self._clock()
        if now - self._since >= 1:
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= self._most


class TraceFiles:
    """Makes the files, in the working directory, which is that of the queue."""

    def __init__(self, rate: TraceRate) -> None:
        self._rate = rate

    def write(self, program: str, address: str, text: str) -> None:
        """Keep a trace, unless there are too many.

        address: of the peer, "" for a UNIX socket. Raises OSError, and ValueError for what is none.
        """
        if not _PROGRAM.fullmatch(program) or not _ADDRESS.fullmatch(address or "0"):
            raise ValueError("no trace of a program")
        if not self._rate.allows():
            return
        seconds, micro = divmod(time.time_ns() // 1000, 1_000_000)
        when = f"{time.strftime('%Y%m%d%H%M%S', time.localtime(seconds))}.{micro:06}"
        name = f"{program}-{when}-{address or 'local'}-{secrets.token_hex(3)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(f"{FOLDER}/{name}", flags, 0o600), "wb") as file:
            file.write(text.encode("ascii", "replace").translate(_SHOWN))


class Tracer:
    """Has the handshakes of a program traced.

    limit: octets of a trace, 0 for none. rate: of this process alone. send: to tlsmgr, the program,
    the peer's address and the trace.
    """

    def __init__(
        self, program: str, limit: int, rate: int, send: Callable[[str, str, str], None]
    ) -> None:
        self._program = program
        self._limit = min(limit, _LONGEST)
        self._rate = TraceRate(rate)
        self._send = send

    def begin(self, connection: Connection, loglevel: LogLevel) -> None:
        """Before the handshake."""
        if loglevel.trace and self._limit and self._rate.allows():
            connection.trace(self._limit)

    def end(self, connection: Connection, address: str) -> None:
        """After it, also if it has failed. address: of the peer, numeric, or anything else."""
        if traced := connection.traced():
            address = address if _ADDRESS.fullmatch(address) else ""
            self._send(self._program, address, traced.translate(_SHOWN).decode("ascii"))
