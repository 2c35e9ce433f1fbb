"""A session of smtp-sink(1): octets in, replies out, without a task for it.

What has come is taken apart as far as the session is not waiting, for a delay that was asked for.
"""

import asyncio
import random
import re
from collections.abc import Callable, Mapping
from typing import Final, cast

from commands.smtp_sink.server import Server
from commands.smtp_sink.transaction import Transaction
from libmail.load.listening import Listener
from libmail.text.printable import complain

__all__ = ["Session"]

_MOST_LINE: Final = 1 << 16  # octets
_END: Final = re.compile(rb"\n\.\r?\n")
_TAIL: Final = 4  # octets that may belong to the end of the content
_UNKNOWN: Final = b"500 5.5.1 Error: unknown command\r\n"
_VIOLATION: Final = b"550 This violates SMTP\r\n"


class Session(asyncio.Protocol):
    """Of one client."""

    def __init__(self, server: Server, listener: Listener) -> None:
        self._server = server
        self._settings = server.settings
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._in_data = False
        self._waiting = False
        self._closed = False
        self._blocked = False
        self._helo = ""
        self._protocol = "SMTP"
        self._transaction: Transaction | None = None
        self._recipients = 0
        self._transport: asyncio.Transport | None = None
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._client = str(peer[0]) if isinstance(peer, tuple) else "127.0.0.1"
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(self._settings.timeout, self._look)
        self._command("CONNECT", "")

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._heard = self._loop.time()
        self._received += data
        self._process()

    def pause_writing(self) -> None:
        """Called by the loop: the client does not take what we say, and is not listened to."""
        self._blocked = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._blocked = False
        self._resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._server.counters.session()
        self._listener.session_over()

    def _look(self) -> None:
        """Hang up on a client that is silent for too long."""
        rest = self._heard + self._settings.timeout - self._loop.time()
        if rest <= 0:
            self._close()
        else:
            self._timer = self._loop.call_later(rest, self._look)

    def _close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.close()

    # input

    def _process(self) -> None:
        while not (self._waiting or self._blocked or self._closed):
            if not (self._content() if self._in_data else self._line()):
                return

    def _line(self) -> bool:
        """Take the next command; False if there is none yet."""
        line, newline, rest = self._received.partition(b"\n")
        if not newline:
            if len(line) > _MOST_LINE:
                self._close()
            return False
        self._received = rest
        text = line.decode("utf-8", "surrogateescape").strip()
        if self._settings.verbose:
            complain("smtp-sink", text)
        word, _, arguments = text.partition(" ")
        self._command(word.upper(), arguments.strip())
        return True

    def _content(self) -> bool:
        """Take what there is of the content; False if its end is not."""
        data = self._received
        match = _END.search(data)
        if match is None:
            kept = data[-_TAIL:] if len(data) > _TAIL else data
            self._keep(data[: len(data) - len(kept)])
            self._received = kept
            return False
        self._keep(data[: match.start() + 1])
        self._received = data[match.end() :]
        self._in_data = False
        self._command(".", "")
        return True

    def _keep(self, data: bytes) -> None:
        if self._settings.dump and self._transaction is not None and data:
            self._transaction.pieces.append(data)

    # commands

    def _command(self, name: str, arguments: str) -> None:
        settings = self._settings
        if name in settings.logged:
            self._server.log(f"{name} {arguments}".rstrip())
        if name in settings.dropped:
            self._close()
            return
        delay = settings.delays.get(name)
        if delay is None:
            self._answer(name, arguments)
            return
        seconds = delay.seconds
        while delay.odds and random.randrange(100) < delay.odds:
            seconds += delay.seconds
        self._wait(seconds, lambda: self._answer(name, arguments))

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._waiting = True
        if self._transport is not None:
            self._transport.pause_reading()
        self._loop.call_later(seconds, self._go_on, then)

    def _go_on(self, then: Callable[[], None]) -> None:
        self._waiting = False
        if self._closed or self._transport is None:
            return
        self._heard = self._loop.time()
        then()
        self._resume()

    def _resume(self) -> None:
        if self._transport is not None and not (self._closed or self._waiting or self._blocked):
            self._transport.resume_reading()
            self._process()

    def _answer(self, name: str, arguments: str) -> None:
        reply = self._settings.replies.get(name)
        if reply is None:
            reply = self._reply(name, arguments)
        elif name == ".":
            self._transaction = None
            reply *= max(self._recipients, 1) if self._settings.lmtp else 1
        self._write(reply)
        if name in self._settings.closing or name == "QUIT":
            self._close()

    def _write(self, reply: bytes) -> None:
        if self._settings.verbose:
            complain("smtp-sink", reply.decode("utf-8", "replace").rstrip())
        if self._transport is not None and not self._closed:
            self._transport.write(reply)

    def _reply(self, name: str, arguments: str) -> bytes:
        run = _REPLIES.get(name)
        if run is None or (name not in self._settings.commands and name != "CONNECT"):
            return _UNKNOWN
        return run(self, arguments)

    def _greeting(self, _: str) -> bytes:
        return self._settings.greeting

    def _helo_reply(self, arguments: str) -> bytes:
        self._helo, self._protocol = arguments, "SMTP"
        return f"250 {self._settings.host_name}\r\n".encode()

    def _ehlo_reply(self, arguments: str) -> bytes:
        self._helo, self._protocol = arguments, "LMTP" if self._settings.lmtp else "ESMTP"
        lines = [self._settings.host_name, *self._settings.keywords]
        return "".join([f"250-{line}\r\n" for line in lines]).encode() + b"250 \r\n"

    def _mail(self, arguments: str) -> bytes:
        if self._transaction is not None:
            return b"503 5.5.1 Error: nested MAIL command\r\n"
        mail = arguments[5:].lstrip() if arguments[:5].upper() == "FROM:" else arguments
        self._transaction = Transaction(self._client, self._protocol, self._helo, mail)
        self._recipients = 0
        return b"250 2.1.0 Ok\r\n"

    def _rcpt(self, arguments: str) -> bytes:
        if self._transaction is None:
            return b"503 5.5.1 Error: need MAIL command\r\n"
        self._recipients += 1
        if self._settings.dump:
            rcpt = arguments[3:].lstrip() if arguments[:3].upper() == "TO:" else arguments
            self._transaction.recipients.append(rcpt)
        return b"250 2.1.5 Ok\r\n"

    def _data(self, _: str) -> bytes:
        settings = self._settings
        if not self._recipients:
            return b"503 5.5.1 Error: need RCPT command\r\n"
        if settings.abort_after is not None:
            self._wait(settings.abort_after, self._abort)
        elif settings.read_delay:
            self._wait(settings.read_delay, lambda: None)
        self._in_data = True
        self._received = b"\n" + self._received  # where the content may end at once
        return b"354 End data with <CR><LF>.<CR><LF>\r\n"

    def _abort(self) -> None:
        self._write(_VIOLATION)
        self._close()

    def _end_of_data(self, _: str) -> bytes:
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            return _UNKNOWN
        if self._settings.dump:
            try:
                self._server.keep(transaction)
            except OSError as err:
                complain("smtp-sink", f"warning: {err}")
                return b"451 4.3.0 Error: dump file error\r\n"
        reply = b"250 2.0.0 Ok\r\n"
        if self._settings.lmtp:
            reply = b"250 2.2.0 Ok\r\n" * self._recipients
        self._recipients = 0
        self._server.counters.message()
        return reply

    def _rset(self, _: str) -> bytes:
        self._transaction = None
        self._recipients = 0
        return b"250 2.1.0 Ok\r\n"

    def _ok(self, _: str) -> bytes:
        return b"250 2.0.0 Ok\r\n"

    def _quit(self, _: str) -> bytes:
        self._server.counters.quit()
        return b"221 Bye\r\n"


_REPLIES: Final[Mapping[str, Callable[[Session, str], bytes]]] = {
    "CONNECT": Session._greeting,
    "HELO": Session._helo_reply,
    "EHLO": Session._ehlo_reply,
    "LHLO": Session._ehlo_reply,
    "XCLIENT": Session._ok,
    "XFORWARD": Session._ok,
    "AUTH": Session._ok,
    "MAIL": Session._mail,
    "RCPT": Session._rcpt,
    "DATA": Session._data,
    ".": Session._end_of_data,
    "RSET": Session._rset,
    "NOOP": Session._ok,
    "VRFY": Session._ok,
    "QUIT": Session._quit,
}
