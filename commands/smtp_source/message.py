"""What smtp-source(1) sends: envelopes, headers, payload."""

import itertools
import os
import re
import time
from collections.abc import Iterator
from typing import Final

from libmail.load.command_line import Options
from libmail.load.traffic import Plan
from libmail.message.dates import rfc5322_date

__all__ = ["Messages"]

_LINE: Final = 80  # octets of a line of payload, with its CRLF
_USUAL: Final = b"".join([b"La de da de da %d.\r\n" % number for number in range(1, 5)])
_LINE_START: Final = re.compile(rb"^(?=\.)", re.M)


class Messages:
    """Of one run. lmtp, keep, patient: options -L, -d and -A."""

    def __init__(self, plan: Plan, options: Options) -> None:
        """Raises OSError for the file of -F."""
        self.lmtp: Final = "-L" in options
        self.keep: Final = "-d" in options
        self.patient: Final = "-A" in options
        self._old = "-o" in options
        self._numbered = itertools.count(1) if "-N" in options else None
        self._plan = plan
        self._subject = options.text("-S", "")
        self._host = _octets(plan.host_name)
        self._recipient = _octets(plan.recipient)
        self._file = _file_content(options.text("-F", "")) if "-F" in options else None
        self._payload = _USUAL if plan.length is None else _payload(plan.length)
        self._mail = b"MAIL FROM:<%s>\r\n" % _octets(plan.sender)
        self._date = (0, "")

    def hello(self) -> bytes:
        """The command that begins a session, "" for none."""
        if self._old and not self.lmtp:
            return b""
        return b"%s %s\r\n" % (b"LHLO" if self.lmtp else b"HELO", self._host)

    def envelope(self) -> Iterator[tuple[bytes, str]]:
        """The commands of a message before its content, and what each is about."""
        yield self._mail, "sender"
        for number in range(self._plan.recipients, 0, -1):
            yield b"RCPT TO:<%s%s>\r\n" % (self._number(number), self._recipient), "recipient"
        yield b"DATA\r\n", "data command"

    def _number(self, left: int) -> bytes:
        """What makes a recipient another than the others."""
        if self._numbered is not None:
            return b"%d" % next(self._numbered)
        return b"%d" % left if left > 1 else b""

    def content(self, connection: int, message: int) -> bytes:
        """A message, dot-stuffed, with its last dot."""
        if self._file is not None:
            return self._file
        if self._old:
            return self._payload + b".\r\n"
        return self._header(connection, message) + self._payload + b".\r\n"

    def _header(self, connection: int, message: int) -> bytes:
        plan, now = self._plan, int(time.time())
        if self._date[0] != now:
            self._date = (now, rfc5322_date(now))
        ident = f"{os.getpid() & 0xFFFF:04x}.{connection:04x}.{message:04x}@{plan.host_name}"
        text = (
            f"From: <{plan.sender}>\r\nTo: <{plan.recipient}>\r\n"
            f"Date: {self._date[1]}\r\nMessage-Id: <{ident}>\r\n"
        )
        if self._subject:
            text += f"Subject: {self._subject}\r\n"
        return _octets(f"{text}\r\n")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _payload(length: int) -> bytes:
    """So many octets, in lines that begin with their numbers."""
    lines, rest = divmod(length, _LINE)
    if 0 < rest < 2:
        lines, rest = max(lines - 1, 0), rest + _LINE * bool(lines)
    whole = [(b"%d" % number).ljust(_LINE - 2, b"X") for number in range(1, lines + 1)]
    last = [b"X" * (rest - 2)] if rest >= 2 else []
    return b"".join([line + b"\r\n" for line in whole + last])


def _file_content(path: str) -> bytes:
    """A file as it goes over the wire, with the last dot. Raises OSError."""
    with open(path, "rb") as file:
        data = _LINE_START.sub(b".", file.read()).replace(b"\n", b"\r\n")
    return data + (b"" if data.endswith(b"\n") or not data else b"\r\n") + b".\r\n"
