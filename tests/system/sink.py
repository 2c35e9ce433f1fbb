"""An SMTP server that keeps what it gets, byte by byte, and answers as told.

It runs an event loop in a thread of its own, so that tests stay plain functions.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from tests.system.processes import PATIENCE, wait_until

# Gets the verb ("MAIL", "RCPT", "DATA", "." for the end of data, ...) and the command line.
# Returns a reply without CRLF, or None for the usual one.
Script: TypeAlias = Callable[[str, str], str | None]

KEYWORDS: Final = ("PIPELINING", "SIZE 0", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")
USUAL: Final = {
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 End data with <CR><LF>.<CR><LF>",
    ".": "250 2.0.0 Ok: kept",
    "RSET": "250 2.0.0 Ok",
    "NOOP": "250 2.0.0 Ok",
    "QUIT": "221 2.0.0 Bye",
    "STARTTLS": "220 2.0.0 go on",
}
READ_LIMIT: Final = 1 << 20


@dataclass(slots=True)
class Received:
    """One message. content: as sent, without dot-stuffing, with its CRLFs. began: when its MAIL
    command came, by time.monotonic()."""

    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    content: bytes = b""
    port: int = 0
    began: float = 0.0


def address_of(line: str) -> str:
    """The address between the angle brackets of MAIL FROM or RCPT TO."""
    match = re.search(r"<([^>]*)>", line)
    return match[1] if match else ""


class PythonSink:
    """Use as a context manager; `messages` grows as mail arrives.

    data_delay: seconds before the reply to DATA; holds_data: none comes before release().
    host: "0.0.0.0" for all of 127.0.0.0/8. keep: whether to keep the content, or only to count.
    tls: offers STARTTLS, or with `wrapped` begins with TLS.
    """

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        script: Script | None = None,
        data_delay: float = 0.0,
        holds_data: bool = False,
        keep: bool = True,
        keywords: tuple[str, ...] = KEYWORDS,
        tls: ssl.SSLContext | None = None,
        wrapped: bool = False,
    ) -> None:
        self.port = port
        self._wrapper = tls if wrapped else None
        tls = None if wrapped else tls
        self.host = host
        self.script = script
        self.data_delay = data_delay
        self.holds_data = holds_data
        self.keep = keep
        self.keywords = keywords if tls is None else ("STARTTLS", *keywords)
        self.tls = tls
        self.resumed: list[bool] = []  # for each handshake
        self.messages: list[Received] = []
        self.connections = 0
        self.open_now = 0
        self.open_most = 0
        self._ready = threading.Event()
        self._failed: OSError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._released: asyncio.Event | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> PythonSink:
        self._thread.start()
        self._ready.wait(PATIENCE)
        if self._failed:
            raise self._failed
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop and self._stop:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)

    def wait_for(self, count: int, timeout: float = PATIENCE) -> list[Received]:
        """Waits until `count` messages are here. Raises TimeoutError."""
        wait_until(
            lambda: len(self.messages) >= count,
            lambda: f"{len(self.messages)} of {count} messages arrived",
            timeout,
        )
        return self.messages

    def release(self) -> None:
        """Answers DATA from now on, also those that wait."""
        if self._loop and self._released:
            self._loop.call_soon_threadsafe(self._released.set)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._released = asyncio.Event()
        if not self.holds_data:
            self._released.set()
        try:
            server = await asyncio.start_server(
                self._session,
                self.host,
                self.port,
                limit=READ_LIMIT,
                backlog=1024,
                ssl=self._wrapper,
            )
        except OSError as error:
            self._failed = error
            self._ready.set()
            return
        self._ready.set()
        await self._stop.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.05)  # lets the sessions end before their loop does

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_now += 1
        self._writers.add(writer)
        self.open_most = max(self.open_most, self.open_now)
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away: its business
        finally:
            self.open_now -= 1
            self._writers.discard(writer)
            writer.close()

    def _reply(self, verb: str, line: str) -> str:
        scripted = self.script(verb, line) if self.script else None
        if scripted is not None:
            return scripted
        if verb == "EHLO":
            lines = ["sink.test", *self.keywords]
            return "\r\n".join([*(f"250-{x}" for x in lines[:-1]), f"250 {lines[-1]}"])
        return USUAL.get(verb, "250 2.0.0 Ok" if verb == "HELO" else "502 5.5.2 Unknown")

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(reply: str) -> None:
            writer.write(reply.encode() + b"\r\n")

        send(self._reply("CONNECT", "") if self.script else "220 sink.test ESMTP")
        message = Received(port=self.port)
        while line := (await reader.readline()).decode("utf-8", "surrogateescape").strip():
            verb = line.split()[0].upper()
            if verb == "DATA" and self._released:
                await self._released.wait()
                await asyncio.sleep(self.data_delay)
            reply = self._reply(verb, line)
            send(reply)
            if verb == "STARTTLS" and reply[0] == "2" and self.tls is not None:
                await writer.start_tls(self.tls)
                self.resumed.append(writer.get_extra_info("ssl_object").session_reused)
            elif verb == "MAIL":
                message = Received(address_of(line), port=self.port, began=time.monotonic())
            elif verb == "RCPT" and reply[0] == "2":
                message.recipients.append(address_of(line))
            elif verb == "DATA" and reply[0] == "3":
                message.content = await read_data(reader)
                final = self._reply(".", "")
                if final[0] == "2":
                    self.messages.append(message if self.keep else Received())
                send(final)
            elif verb == "QUIT":
                return


async def read_data(reader: asyncio.StreamReader) -> bytes:
    """Reads up to the line with a single dot and removes dot-stuffing, RFC 5321 §4.5.2."""
    content = bytearray(b"\r\n")
    while not content.endswith(b"\r\n.\r\n"):
        chunk = await reader.readuntil(b"\r\n")
        content += chunk
    return bytes(content[2:-3]).replace(b"\r\n..", b"\r\n.").removeprefix(b".")
