"""Dovecot's authentication protocol 1.x for clients, without sockets.

Lines of fields that are separated by TAB. Both sides begin with their version; the server lists its
mechanisms and ends its greeting with DONE. Then any number of requests may be under way on one
connection, each with a number:

    AUTH  id  mechanism  parameters...  resp=base64     we begin; resp is the last parameter
    CONT  id  base64                                    either side goes on
    OK    id  user=name ...                             the end
    FAIL  id  user=name  temp  reason=text ...

Source: the protocol's description in Dovecot's documentation ("Authentication Protocol").
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from libmail.sasl.mechanism import Mechanism, Property, valid_name
from libmail.sasl.server import AuthContext, Challenge, Failure, Success

__all__ = ["Answer", "DovecotCore", "DovecotError", "Ready"]

_MAJOR: Final = 1
_MINOR: Final = 1
_MAX_LINE: Final = 65536
_MAX_MECHANISMS: Final = 100
_MAX_ID: Final = 0x7FFFFFFF
_PROPERTIES: Final = {
    "anonymous": Property.ANONYMOUS,
    "plaintext": Property.PLAINTEXT,
    "dictionary": Property.DICTIONARY,
    "active": Property.ACTIVE,
    "forward-secrecy": Property.FORWARD_SECRECY,
    "mutual-auth": Property.MUTUAL_AUTH,
    "private": Property.PRIVATE,
}
# \1 and a letter stand for what cannot be in a field.
_UNESCAPED: Final = {"0": "\0", "1": "\1", "t": "\t", "r": "\r", "n": "\n"}
_ESCAPED: Final = str.maketrans({char: "\1" + letter for letter, char in _UNESCAPED.items()})
_ESCAPE: Final = re.compile("\1(.?)", re.S)


class DovecotError(Exception):
    """The server broke the protocol, or speaks another version. The text is printable."""


class Ready(NamedTuple):
    """The greeting is complete: requests may begin."""

    mechanisms: tuple[Mechanism, ...]


class Answer(NamedTuple):
    """The next step of a request."""

    request: int
    step: Challenge | Success | Failure


Event: TypeAlias = Ready | Answer


class DovecotCore:
    """One connection. Bytes in, events out; a line is bounded."""

    __slots__ = ("_buffer", "_last_id", "_mechanisms", "_ready", "_version")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._mechanisms: list[Mechanism] = []
        self._version = False
        self._ready = False
        self._last_id = 0

    def greeting(self, pid: int) -> bytes:
        """What we say first. pid: unique among the clients of the server."""
        return f"VERSION\t{_MAJOR}\t{_MINOR}\nCPID\t{pid}\n".encode()

    # requests

    def auth(
        self, mechanism: str, initial: bytes | None, context: AuthContext
    ) -> tuple[int, bytes]:
        """Begin a request: its number, and what to send. initial: None for no initial response."""
        self._last_id = self._last_id % _MAX_ID + 1
        fields = [
            "AUTH",
            str(self._last_id),
            mechanism,
            "service=" + _escape(context.service),
            "nologin",
        ]
        for name, value in (
            ("lip", context.server_address),
            ("rip", context.client_address),
            ("lport", context.server_port),
            ("rport", context.client_port),
        ):
            if value:
                fields.append(f"{name}={_escape(value)}")
        if context.encrypted:
            fields.append("secured")
        if context.certified:
            fields.append("valid-client-cert")
        if initial is not None:
            # An empty one has to be told from none: it is "=", as in SMTP.
            fields.append(f"resp={base64.b64encode(initial).decode() or '='}")
        return self._last_id, ("\t".join(fields) + "\n").encode("utf-8", "surrogateescape")

    def cont(self, request: int, response: bytes) -> bytes:
        """The client's response to a challenge."""
        return b"CONT\t%d\t%b\n" % (request, base64.b64encode(response))

    def cancel(self, request: int) -> bytes:
        """The client has given up."""
        return b"CANCEL\t%d\n" % request

    # answers

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the server."""
        self._buffer += data

    def next_event(self) -> Event | None:
        """The next event; None if more must be received. Raises DovecotError."""
        while (end := self._buffer.find(b"\n")) >= 0:
            if end > _MAX_LINE:
                raise DovecotError("line too long")
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            event = self._line(line.decode("utf-8", "surrogateescape").split("\t"))
            if event is not None:
                return event
        if len(self._buffer) > _MAX_LINE:
            raise DovecotError("line too long")
        return None

    def _line(self, fields: Sequence[str]) -> Event | None:
        name, arguments = fields[0], fields[1:]
        if not self._ready:
            return self._greeting(name, arguments)
        if name in ("CONT", "OK", "FAIL"):
            if not arguments or not _is_id(arguments[0]):
                raise DovecotError(f"malformed {name}")
            return Answer(int(arguments[0]), _step(name, arguments[1:]))
        return None  # of a newer version

    def _greeting(self, name: str, arguments: Sequence[str]) -> Event | None:
        if name == "VERSION":
            if arguments[:1] != [str(_MAJOR)]:
                raise DovecotError("unsupported protocol version")
            self._version = True
        elif name == "MECH":
            if not arguments or not valid_name(arguments[0]):
                raise DovecotError("malformed mechanism")
            if len(self._mechanisms) < _MAX_MECHANISMS:
                self._mechanisms.append(_mechanism(arguments))
        elif name == "DONE":
            if not self._version:
                raise DovecotError("no protocol version")
            self._ready = True
            return Ready(tuple(self._mechanisms))
        return None


def _mechanism(arguments: Sequence[str]) -> Mechanism:
    properties = Property.NONE
    for word in arguments[1:]:
        properties |= _PROPERTIES.get(word, Property.NONE)
    return Mechanism(arguments[0], properties)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _step(name: str, arguments: Sequence[str]) -> Challenge | Success | Failure:
    if name == "CONT":
        try:
            return Challenge(base64.b64decode(arguments[0] if arguments else "", validate=True))
        except (ValueError, binascii.Error):
            raise DovecotError("malformed challenge") from None
    values = dict(_parameter(argument) for argument in arguments)
    if name == "OK":
        if not values.get("user"):
            raise DovecotError("no user in OK")
        return Success(values["user"])
    return Failure(values.get("reason", ""), "temp" in values, values.get("user"))


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, _unescape(value)


def _escape(text: str) -> str:
    return text.translate(_ESCAPED)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: _UNESCAPED.get(match[1], match[1]), text)
