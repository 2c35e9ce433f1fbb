"""Packets of the Milter protocol, versions 2 to 6: names, framing, parsing.

A packet is a length (4 octets, big endian) of what follows, one octet that names the command or the
answer, and data. Strings end in NUL. Text of the mail system is str here; content of messages stays
bytes.
"""

import re
import socket
import struct
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple, TypeAlias

from libmail.smtp.reply import Reply

__all__ = [
    "BODY_CHUNK",
    "Accept",
    "AddHeader",
    "AddRecipient",
    "Answer",
    "ChangeHeader",
    "ChangeSender",
    "Command",
    "ConnectionFailed",
    "Continue",
    "DeleteRecipient",
    "Discard",
    "Edit",
    "Edits",
    "InsertHeader",
    "MalformedReply",
    "MilterError",
    "Negotiated",
    "PacketReader",
    "Progress",
    "Quarantine",
    "Refuse",
    "Reject",
    "ReplaceBody",
    "Shutdown",
    "Skip",
    "Stage",
    "Steps",
    "TempFail",
    "connection",
    "header_event",
    "macro_packet",
    "negotiation",
    "packet",
    "parse_answer",
    "parse_negotiation",
    "strings",
]

BODY_CHUNK: Final = 65535
"""Octets of the body in one packet at the most."""

_LENGTH: Final = struct.Struct(">I")
_OFFER: Final = struct.Struct(">III")
_INDEX: Final = struct.Struct(">I")
_MAX_PACKET: Final = 1 << 20
_MAX_MACRO_LIST: Final = 4096
_MAX_REPLY: Final = 1 << 14  # octets
_SHOWN: Final = 80
# reply-code SP [ status SP ] text, RFC 2034 §4
_REPLY: Final = re.compile(r"([45][0-9][0-9])[ -](.*)")
_NAME: Final = re.compile(rb"[!-9;-~]{1,998}")  # a longer one would be no field of a header
_STATUS: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?=[ \t]|\Z)")
_PERCENT: Final = re.compile(r"%(.?)")


class MilterError(Exception):
    """The Milter broke the protocol; the text says how, and is printable.

    told: it says all; else the event that was answered is to be named, too.
    """

    def __init__(self, text: str, *, told: bool = False) -> None:
        super().__init__(text)
        self.told = told


class MalformedReply(MilterError):
    """The reply for the client is none: a mistake in the configuration of the Milter."""

    def __init__(self, data: bytes) -> None:
        super().__init__(f"malformed reply: {_shown(data.partition(bytes(1))[0])}", told=True)


class Command(IntEnum):
    """What we report, SMFIC_*."""

    ABORT = ord("A")
    BODY = ord("B")
    CONNECT = ord("C")
    MACRO = ord("D")
    END_OF_BODY = ord("E")
    HELO = ord("H")
    HEADER = ord("L")
    MAIL = ord("M")
    END_OF_HEADER = ord("N")
    NEGOTIATE = ord("O")
    QUIT = ord("Q")
    RCPT = ord("R")
    DATA = ord("T")
    UNKNOWN = ord("U")


class Stage(IntEnum):
    """Places for which a Milter can name the macros that it wants, SMFIM_*."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    END_OF_MESSAGE = 5
    END_OF_HEADER = 6


class Edits(IntFlag):
    """What a Milter may ask for at the end of a message, SMFIF_*."""

    ADD_HEADERS = 0x1
    CHANGE_BODY = 0x2
    ADD_RECIPIENTS = 0x4
    DELETE_RECIPIENTS = 0x8
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENTS_WITH_ARGUMENTS = 0x80
    SET_MACROS = 0x100


class Steps(IntFlag):
    """Events that a Milter does not want, or does not answer, SMFIP_*."""

    NO_CONNECT = 0x1
    NO_HELO = 0x2
    NO_MAIL = 0x4
    NO_RCPT = 0x8
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_END_OF_HEADER = 0x40
    NO_REPLY_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    REJECTED_RCPT = 0x800
    NO_REPLY_CONNECT = 0x1000
    NO_REPLY_HELO = 0x2000
    NO_REPLY_MAIL = 0x4000
    NO_REPLY_RCPT = 0x8000
    NO_REPLY_DATA = 0x10000
    NO_REPLY_UNKNOWN = 0x20000
    NO_REPLY_END_OF_HEADER = 0x40000
    NO_REPLY_BODY = 0x80000
    LEADING_SPACE = 0x100000


# answers to an event


class Continue(NamedTuple):
    """Go on."""


class Accept(NamedTuple):
    """No more of this message, or at connect and HELO, of this session."""


class Discard(NamedTuple):
    """Pretend to take the message."""


class Reject(NamedTuple):
    """Refuse with the general permanent reply."""


class TempFail(NamedTuple):
    """Refuse with the general temporary reply."""


class Shutdown(NamedTuple):
    """Refuse, and close the connection."""


class ConnectionFailed(NamedTuple):
    """Close the connection as if it had failed."""


class Skip(NamedTuple):
    """No more of the body is wanted."""


class Progress(NamedTuple):
    """Still at work: the time limit begins anew."""


class Refuse(NamedTuple):
    """Refuse with this reply."""

    reply: Reply


# changes, only at the end of a message


class AddHeader(NamedTuple):
    """Append a field. value: as received, perhaps with LF and leading space."""

    name: bytes
    value: bytes


class InsertHeader(NamedTuple):
    """Insert a field before the one at this position, counted from 0 at the top."""

    position: int
    name: bytes
    value: bytes


class ChangeHeader(NamedTuple):
    """Change the field of this name at this position, from 1; an empty value removes it."""

    position: int
    name: bytes
    value: bytes


class ReplaceBody(NamedTuple):
    """A piece of the new body."""

    data: bytes


class AddRecipient(NamedTuple):
    """Add a recipient. arguments: ESMTP, as after RCPT TO."""

    address: str
    arguments: str = ""


class DeleteRecipient(NamedTuple):
    """Take a recipient out."""

    address: str


class ChangeSender(NamedTuple):
    """Another envelope sender. arguments: ESMTP, as after MAIL FROM."""

    address: str
    arguments: str = ""


class Quarantine(NamedTuple):
    """Put the message on hold."""

    reason: str


Edit: TypeAlias = (
    AddHeader
    | InsertHeader
    | ChangeHeader
    | ReplaceBody
    | AddRecipient
    | DeleteRecipient
    | ChangeSender
    | Quarantine
)
Answer: TypeAlias = (
    Continue
    | Accept
    | Discard
    | Reject
    | TempFail
    | Shutdown
    | ConnectionFailed
    | Skip
    | Progress
    | Refuse
    | Edit
)

_PLAIN: Final[dict[int, Answer]] = {
    ord("a"): Accept(),
    ord("c"): Continue(),
    ord("d"): Discard(),
    ord("f"): ConnectionFailed(),
    ord("p"): Progress(),
    ord("r"): Reject(),
    ord("s"): Skip(),
    ord("t"): TempFail(),
    ord("4"): Shutdown(),
}


# framing


def packet(command: Command, data: bytes = b"") -> bytes:
    """The wire form of one packet."""
    return b"%b%c%b" % (_LENGTH.pack(len(data) + 1), command, data)


def macro_packet(command: Command, macros: bytes) -> bytes:
    """The macros that go with a command."""
    return b"%b%c%c%b" % (_LENGTH.pack(len(macros) + 2), Command.MACRO, command, macros)


def strings(*values: str) -> bytes:
    """NUL-terminated strings; what is behind a NUL within one of them is cut off."""
    text = "\0".join((*values, ""))
    if text.count("\0") != len(values):
        text = "".join([value.partition("\0")[0] + "\0" for value in values])
    return text.encode("utf-8", "surrogateescape")


def header_event(name: bytes, value: bytes) -> bytes:
    """A field of the header. value: with LF at its line ends."""
    return b"%b\0%b\0" % (name, value.partition(b"\0")[0])


def connection(name: str, address: str, port: str) -> bytes:
    """What a Milter is told with CONNECT: who the client is, and from where it comes."""
    family = _family(address)
    if family == b"U":
        return strings(name) + family
    number = int(port) if port.isdigit() and int(port) < 65536 else 0
    return strings(name) + family + number.to_bytes(2, "big") + strings(address)


def _family(address: str) -> bytes:
    for family, letter in ((socket.AF_INET, b"4"), (socket.AF_INET6, b"6")):
        try:
            socket.inet_pton(family, address.partition("%")[0])
        except (OSError, UnicodeError):
            continue
        return letter
    return b"U"


class PacketReader:
    """Bytes in, packets out; a packet is bounded, and nothing is copied more than once."""

    __slots__ = ("pending",)

    def __init__(self) -> None:
        """pending: what was received and `next_packet` has not given out."""
        self.pending = bytearray()

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the Milter."""
        self.pending += data

    def next_packet(self) -> tuple[int, bytes] | None:
        """The octet that names the answer, and its data; None if more is needed.

        Raises MilterError.
        """
        buffer = self.pending
        if len(buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        if not 0 < length <= _MAX_PACKET:
            raise MilterError(f"unreasonable packet length: {length}")
        end = _LENGTH.size + length
        if len(buffer) < end:
            return None
        data = bytes(buffer[_LENGTH.size + 1 : end])
        name = buffer[_LENGTH.size]
        del buffer[:end]
        return name, data


# negotiation


class Negotiated(NamedTuple):
    """What a Milter wants. macros: names by stage, as in milter_connect_macros.

    edits, steps: bits of Edits and Steps, as plain integers: operators of flags are slow.
    """

    version: int
    edits: int
    steps: int
    macros: dict[int, str]


def negotiation(version: int, edits: Edits, steps: Steps) -> bytes:
    """The first packet: what we can do."""
    return packet(Command.NEGOTIATE, _OFFER.pack(version, edits, steps))


def parse_negotiation(name: int, data: bytes) -> Negotiated:
    """The answer to `negotiation`. Raises MilterError."""
    if name != Command.NEGOTIATE:
        raise MilterError(f'unexpected reply "{_shown(bytes([name]))}" in initial handshake')
    if len(data) < _OFFER.size:
        raise MilterError("short reply in initial handshake")
    version, edits, steps = _OFFER.unpack_from(data)
    macros: dict[int, str] = {}
    at = _OFFER.size
    while at < len(data):
        end = data.find(b"\0", at + _INDEX.size)
        if end < 0 or end - at > _MAX_MACRO_LIST:
            raise MilterError("malformed macro list in initial handshake")
        (stage,) = _INDEX.unpack_from(data, at)
        if stage in Stage.__members__.values():
            macros[stage] = _text(data[at + _INDEX.size : end])
        at = end + 1
    return Negotiated(version, edits, steps, macros)


# answers


def parse_answer(name: int, data: bytes) -> Answer:
    """One answer to an event. Raises MilterError."""
    plain = _PLAIN.get(name)
    if plain is not None:
        if data and not isinstance(plain, Progress):
            raise MilterError(f'unexpected data after reply "{chr(name)}"')
        return plain
    parse = _PARSERS.get(name)
    if parse is None:
        raise MilterError("unexpected filter response (unknown filter reply)")
    return parse(data)


def _refuse(data: bytes) -> Answer:
    """A reply in the words of the Milter, in which %% stands for % (smfi_setreply)."""
    if not data.endswith(b"\0"):
        raise MilterError(f"malformed string: {_shown(data)}")
    text = _PERCENT.sub(r"\1", _text(data.partition(b"\0")[0]))
    lines = text.replace("\r\n", "\n").split("\n")
    found = [_REPLY.fullmatch(line) for line in lines]
    code = lines[0][:3]
    if len(data) > _MAX_REPLY or any(one is None or one[1] != code for one in found):
        raise MalformedReply(data)
    texts = [one[2] for one in found if one is not None]
    statuses = {"" if (status := _STATUS.match(one)) is None else status[0] for one in texts}
    if any(one and one[0] != code[0] for one in statuses):
        raise MalformedReply(data)
    dsn = statuses.pop()
    if statuses or "" in (dsn, *(one[len(dsn) + 1 :] for one in texts)):
        return Refuse(Reply(int(code), "", "\n".join(texts)))
    return Refuse(Reply(int(code), dsn, "\n".join(one[len(dsn) + 1 :] for one in texts)))


def _add_header(data: bytes) -> Answer:
    return AddHeader(*_header(data))


def _insert_header(data: bytes) -> Answer:
    return InsertHeader(_index(data), *_header(data[_INDEX.size :]))


def _change_header(data: bytes) -> Answer:
    return ChangeHeader(_index(data), *_header(data[_INDEX.size :]))


def _index(data: bytes) -> int:
    if len(data) < _INDEX.size:
        raise MilterError("short header index")
    return int(_INDEX.unpack_from(data)[0])


def _header(data: bytes) -> tuple[bytes, bytes]:
    parts = data.split(b"\0", 2)
    if len(parts) != 3 or parts[2]:
        raise MilterError("malformed header edit")
    name, value = parts[0], parts[1]
    if not _NAME.fullmatch(name):
        raise MilterError(f"malformed header name: {_shown(name)}")
    return name, value


def _recipient(data: bytes) -> Answer:
    return AddRecipient(_text(_string(data)))


def _recipient_with_arguments(data: bytes) -> Answer:
    return AddRecipient(*_address(data))


def _delete_recipient(data: bytes) -> Answer:
    return DeleteRecipient(_text(_string(data)))


def _sender(data: bytes) -> Answer:
    return ChangeSender(*_address(data))


def _quarantine(data: bytes) -> Answer:
    return Quarantine(_text(_string(data)) if data else "")


def _address(data: bytes) -> tuple[str, str]:
    address, _, arguments = data.partition(b"\0")
    return _text(address), _text(_string(arguments)) if arguments else ""


def _string(data: bytes) -> bytes:
    """A string that is all of the data."""
    if not data.endswith(b"\0") or b"\0" in data[:-1]:
        raise MilterError(f"malformed string: {_shown(data)}")
    return data[:-1]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _shown(data: bytes) -> str:
    return ascii(data[:_SHOWN])[2:-1]


_PARSERS: Final = {
    ord("b"): ReplaceBody,
    ord("e"): _sender,
    ord("h"): _add_header,
    ord("i"): _insert_header,
    ord("m"): _change_header,
    ord("q"): _quarantine,
    ord("y"): _refuse,
    ord("+"): _recipient,
    ord("-"): _delete_recipient,
    ord("2"): _recipient_with_arguments,
}
