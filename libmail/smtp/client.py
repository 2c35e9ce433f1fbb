"""The client's side of SMTP and LMTP, without sockets: replies, EHLO keywords, one transaction.

`ReplyReader` turns bytes into `ServerReply`s. `Extensions` is what a server offers. `Transaction`
plans the commands of one message and says after each reply what is to be sent next; it pipelines
where the server allows it (RFC 2920). `Phase` names what the conversation is at, in the words of
the log.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from libmail.smtp.reply import reply_text

__all__ = [
    "BODY",
    "CONNECT",
    "DATA",
    "EHLO",
    "END_OF_DATA",
    "FINAL_RSET",
    "GREETING",
    "HELO",
    "LHLO",
    "MAIL",
    "MAX_LINE",
    "OPTIONAL",
    "PHASES",
    "QUIT",
    "RCPT",
    "RSET",
    "STARTTLS",
    "XFORWARD_HELO",
    "XFORWARD_NAME",
    "Extensions",
    "Next",
    "Phase",
    "ReplyReader",
    "ReplyTooLong",
    "ServerReply",
    "Transaction",
    "parse_extensions",
]


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """A stage of the conversation.

    timeout: the parameter that limits it. doing: completes "lost connection with X while".
    command: completes "in reply to".
    """

    timeout: str
    doing: str
    command: str = ""


CONNECT: Final = Phase("smtp_connect_timeout", "connecting")
GREETING: Final = Phase("smtp_helo_timeout", "receiving the initial server greeting")
EHLO: Final = Phase("smtp_helo_timeout", "performing the EHLO handshake")
HELO: Final = Phase("smtp_helo_timeout", "performing the HELO handshake")
LHLO: Final = Phase("smtp_helo_timeout", "performing the LHLO handshake")
STARTTLS: Final = Phase(
    "smtp_starttls_timeout", "receiving the STARTTLS response", "STARTTLS command"
)
XFORWARD_NAME: Final = Phase(
    "smtp_xforward_timeout", "sending XFORWARD name/address", "XFORWARD name/address command"
)
XFORWARD_HELO: Final = Phase(
    "smtp_xforward_timeout", "sending XFORWARD protocol/helo_name", "XFORWARD helo/protocol command"
)
MAIL: Final = Phase("smtp_mail_timeout", "sending MAIL FROM", "MAIL FROM command")
RCPT: Final = Phase("smtp_rcpt_timeout", "sending RCPT TO", "RCPT TO command")
DATA: Final = Phase("smtp_data_init_timeout", "sending DATA command", "DATA command")
BODY: Final = Phase("smtp_data_xfer_timeout", "sending message body", "unexpected server message")
END_OF_DATA: Final = Phase(
    "smtp_data_done_timeout",
    "sending end of data -- message may be sent more than once",
    "end of DATA command",
)
RSET: Final = Phase("smtp_rset_timeout", "sending RSET probe", "RSET command")
FINAL_RSET: Final = Phase("smtp_rset_timeout", "sending final RSET", "final RSET command")
QUIT: Final = Phase("smtp_quit_timeout", "sending QUIT", "QUIT command")

PHASES: Final = (
    CONNECT, GREETING, EHLO, HELO, LHLO, STARTTLS, XFORWARD_NAME, XFORWARD_HELO, MAIL, RCPT, DATA,
    BODY, END_OF_DATA, RSET, FINAL_RSET, QUIT,
)  # fmt: skip

OPTIONAL: Final = (XFORWARD_NAME, XFORWARD_HELO)
"""Commands whose refusal does not keep a server from taking the message."""

# A reply without anything odd about it, in one go; [0-9]{3} then "-" or " " or the end of the line.
_WHOLE_REPLY: Final = re.compile(rb"(?:[0-9]{3}-[^\n]*\n)*[0-9]{3}(?: [^\n]*|\r*)\n")
_LINE: Final = re.compile(rb"([0-9]{3})(?:([ -])|\Z)([245]\.[0-9]{1,3}\.[0-9]{1,3}(?=[ \t]|\Z))?")
MAX_LINE: Final = 2048  # octets of a line, and of the lines of a reply, that are kept
_MAX_REPLY: Final = 65536  # octets of a reply, and of what waits to be read
_SHOWN: Final = 100  # characters of garbage for the log
_SHOWN_CUT: Final = 30  # and of what was too long
_PROTOCOL_ERROR: Final = "5.5.0"


class ReplyTooLong(Exception):
    """The server sends a reply without end."""


class ServerReply(NamedTuple):
    """A reply of a server, RFC 5321 §4.2.

    code: 0 to 999. dsn: RFC 3463 status, "2.0.0" and so on by the code where the server gives
    none of its class. lines: as received, with codes, without line ends. garbage: lines that are
    no reply came with it. cut: what was longer than `MAX_LINE`, and how it begins, for the log.
    """

    code: int
    dsn: str
    lines: tuple[str, ...]
    garbage: str = ""
    cut: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole reply in one line."""
        return self.lines[0] if len(self.lines) == 1 else " ".join(self.lines)

    @property
    def positive(self) -> bool:
        """2xx: the command was carried out."""
        return 200 <= self.code < 300


def _status(code: bytes, dsn: bytes | None) -> str:
    if dsn is not None and dsn[0] == code[0]:
        return dsn.decode()
    return f"{code[0] - 48}.0.0" if code[0] in b"245" else _PROTOCOL_ERROR


def _decode(line: bytes) -> str:
    return reply_text(line.decode("utf-8", "surrogateescape"))


@lru_cache(512)
def _whole(data: bytes) -> ServerReply:
    """The reply that is all of `data`, as `_WHOLE_REPLY` matches; servers repeat themselves."""
    lines = [line.rstrip(b"\r") for line in data.split(b"\n")]
    lines.pop()
    match = _LINE.match(lines[-1])
    assert match is not None
    return ServerReply(
        int(match[1]), _status(match[1], match[3]), tuple([_decode(line) for line in lines])
    )


@lru_cache(512)
def _group(data: bytes) -> tuple[tuple[int, ...], tuple[ServerReply, ...]]:
    """The replies that are all of `data`, and their codes; none if anything about one is odd."""
    replies: list[ServerReply] = []
    at = 0
    while at < len(data):
        whole = _WHOLE_REPLY.match(data, at)
        if whole is None:
            return (), ()
        replies.append(_whole(whole[0]))
        at = whole.end()
    return tuple([reply.code for reply in replies]), tuple(replies)


class ReplyReader:
    """Bytes in, replies out. Keeps at most `_MAX_REPLY` octets, and lines cut to `MAX_LINE`."""

    __slots__ = ("_at", "_buffer", "_cut", "_garbage", "_kept", "_lines", "_size")

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0  # what of the buffer has been read
        self._lines: list[str] = []  # of the reply that is not complete
        self._size = 0  # octets of the reply
        self._kept = 0  # characters of the lines that are kept, and of what is between them
        self._garbage = ""
        self._cut: tuple[str, ...] = ()

    @property
    def pending(self) -> bool:
        """Whether anything was received that `next_reply` has not given out."""
        return self._at < len(self._buffer) or bool(self._lines)

    @property
    def unfinished(self) -> tuple[tuple[str, ...], bool]:
        """Lines of a reply that is not complete, and whether one of them is none of a reply."""
        return tuple(self._lines), bool(self._garbage)

    def receive_data(self, data: bytes) -> bool:
        """Take bytes from the server. Returns whether so much waits that no more should be read."""
        if self._at < len(self._buffer):
            data = self._buffer[self._at :] + data
        self._buffer, self._at = data, 0
        return len(data) > _MAX_REPLY

    def group(self, codes: tuple[int, ...]) -> Sequence[ServerReply]:
        """Replies with these codes, if just they were received; else nothing is given out.

        One may have others behind it.
        """
        data, at = self._buffer, self._at
        if len(codes) == 1:
            reply = self._whole_reply()
            if reply is not None and reply.code == codes[0]:
                return (reply,)
            self._at = at
            return ()
        if at or self._lines or len(data) > MAX_LINE:
            return ()
        found, replies = _group(data)
        if found != codes:
            return ()
        self._buffer = b""
        return replies

    def _whole_reply(self) -> ServerReply | None:
        """The next reply, if all of it is there and nothing about it is odd; see `next_reply`."""
        whole = None if self._lines else _WHOLE_REPLY.match(self._buffer, self._at)
        if whole is None or (end := whole.end()) - self._at > MAX_LINE:
            return None
        self._at = end
        return _whole(whole[0])

    def next_reply(self) -> ServerReply | None:
        """The next complete reply, None when more bytes are needed. Raises ReplyTooLong."""
        if self._at == len(self._buffer):
            return None
        reply = self._whole_reply()
        if reply is not None:
            return reply
        while (line := self.next_line()) is not None:
            if (reply := self.accept(line)) is not None:
                return reply
        return None

    def next_line(self) -> bytes | None:
        """The next line that was received, without its end, for `accept`. Raises ReplyTooLong."""
        end = self._buffer.find(b"\n", self._at)
        if end < 0:
            if len(self._buffer) - self._at > _MAX_REPLY:
                raise ReplyTooLong
            return None
        line = self._buffer[self._at : end].rstrip(b"\r")
        self._at = end + 1
        return line

    def accept(self, line: bytes) -> ServerReply | None:
        """Take a line; the reply that it completes. Raises ReplyTooLong."""
        match = _LINE.match(line)
        text = self._keep(line)
        if match is None:
            self._garbage = self._garbage or text[:_SHOWN] or " "
        elif match[2] != b"-":
            return self._take(match)
        return None

    def _keep(self, line: bytes) -> str:
        """Add a line to the reply, unless that is long enough; returns its text."""
        self._size += len(line) + 2
        if self._size > _MAX_REPLY:
            raise ReplyTooLong
        text = _decode(line[:MAX_LINE])
        if len(line) > MAX_LINE:
            self._cut += (f"response longer than {MAX_LINE}: {text[:_SHOWN_CUT]}...",)
        if self._kept >= MAX_LINE:
            return text
        self._kept += len(text) + (1 if self._lines else 0)
        self._lines.append(text)
        if self._kept >= MAX_LINE and len(self._lines) > 1:
            start = "\n".join(self._lines)[:_SHOWN_CUT]
            self._cut += (f"multi-line response longer than {MAX_LINE} {start}...",)
        return text

    def _take(self, match: re.Match[bytes]) -> ServerReply:
        reply = ServerReply(
            int(match[1]),
            _status(match[1], match[3]),
            tuple(self._lines),
            self._garbage,
            self._cut,
        )
        self._lines, self._size, self._kept = [], 0, 0
        self._garbage, self._cut = "", ()
        return reply


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a server offers.

    size: its limit in octets, 0 for none. bad_size: what came with SIZE instead of a number.
    auth: mechanisms, None where AUTH is not offered.
    """

    esmtp: bool = False
    pipelining: bool = False
    eightbit: bool = False
    dsn: bool = False
    smtputf8: bool = False
    chunking: bool = False
    starttls: bool = False
    requiretls: bool = False
    size_offered: bool = False
    size: int = 0
    bad_size: str = ""
    auth: tuple[str, ...] | None = None
    xforward: frozenset[str] = frozenset()


def parse_extensions(reply: ServerReply, discard: Iterable[str] = ()) -> Extensions:
    """The keywords in a positive answer to EHLO or LHLO, RFC 5321 §4.1.1.1.

    discard: keywords to overlook, in any case.
    """
    ignored = {word.upper() for word in discard}
    found: dict[str, list[str]] = {}
    for line in reply.lines[1:]:
        word, *values = line[4:].replace("AUTH=", "AUTH ", 1).split() or [""]
        keyword = word.upper()
        if keyword not in ignored:
            found.setdefault(keyword, []).extend(values)
    size = found.get("SIZE", [])
    limit = size[0] if size else ""
    good = limit.isascii() and limit.isdigit() and len(limit) < 19
    return Extensions(
        esmtp=True,
        pipelining="PIPELINING" in found,
        eightbit="8BITMIME" in found,
        dsn="DSN" in found,
        smtputf8="SMTPUTF8" in found,
        chunking="CHUNKING" in found,
        starttls="STARTTLS" in found,
        requiretls="REQUIRETLS" in found,
        size_offered="SIZE" in found,
        size=int(limit) if good else 0,
        bad_size="" if good else limit,
        auth=tuple(found["AUTH"]) if "AUTH" in found else None,
        xforward=frozenset(value.upper() for value in found.get("XFORWARD", ())),
    )


class Next(Enum):
    """What the client does next in a transaction."""

    REPLY = 1  # await a reply: the phase tells of which command
    CONTENT = 2  # send the content and the end of data, then call `content_sent`
    NOTHING = 3  # the transaction is over: RSET, another one, or QUIT may follow
    RESET = 4  # it is over, but the server has a half-done one: RSET before QUIT


_REPLY_NEXT: Final = Next.REPLY  # members of enums are slow to find
_CONTENT_NEXT: Final = Next.CONTENT
_NOTHING_NEXT: Final = Next.NOTHING


@lru_cache(512)
def _course(
    before: tuple[Phase, ...], recipients: int, *, reset: bool, data: bool
) -> tuple[tuple[Phase, ...], tuple[int, ...], int]:
    """The phases of a transaction; the codes after which content follows, () where there is to be
    none; and the place of the first recipient."""
    opening = ((RSET,) if reset else ()) + before + (MAIL,)
    phases = opening + (RCPT,) * recipients + ((DATA,) if data else ())
    hoped = (250,) * (len(phases) - 1) + (354,) if data else ()
    return phases, hoped, len(opening)


class Transaction:
    """One message to one server: RSET, XFORWARD (if asked for), MAIL, RCPT..., DATA, end of data.

    Send `output()` whenever it is not empty; then do what `next` says. Replies go to `receive`, or
    all at once to `receive_hoped`. Afterwards `mail`, `rcpt`, `data` and `final` hold the replies
    that decide about recipients:

    mail: the refusal of MAIL, else None; it is for all recipients. rcpt: for each recipient its
    reply, None while unknown. data: the refusal of DATA, for all accepted recipients. final: of
    the end of data; one, or with LMTP one for each accepted recipient, in their order. probe: the
    reply to RSET. closing: the server has said that it is about to hang up. confused: a reply was
    none that the command can have (2xx to DATA, 3xx to another): it may be that to another one, and
    ends the transaction in a session that was used before. phase: what a missing reply would be a
    reply to. unsent: there are commands for `output` yet. hoped: the codes of the replies to all
    that was sent, if it goes as it should; () where it does not, or commands go one by one.
    """

    # What most transactions leave as it is, is the class's.
    next = _REPLY_NEXT
    unsent = True
    closing = False
    confused = False
    probe: ServerReply | None = None
    mail: ServerReply | None = None
    data: ServerReply | None = None
    _sent = 0
    _received = 0
    _accepted = 0

    def __init__(
        self,
        mail: bytes,
        recipients: Sequence[bytes],
        *,
        pipelining: bool,
        lmtp: bool = False,
        reset: bool = False,
        before: Sequence[tuple[Phase, bytes]] = (),
        data: bool = True,
    ) -> None:
        """mail, recipients: commands, with CRLF. reset: begin with RSET (a reused session).

        before: what is said before MAIL. data: False for an address probe that ends after RCPT.
        """
        number = len(recipients)
        self._commands = commands = [mail, *recipients]
        first: tuple[Phase, ...] = ()
        if before:
            commands[:0] = [command for _, command in before]
            first = tuple([phase for phase, _ in before])
        if reset:
            commands.insert(0, b"RSET\r\n")
        if data:
            commands.append(b"DATA\r\n")
        self._phases, hoped, self._first_rcpt = _course(first, number, reset=reset, data=data)
        self.hoped = hoped if pipelining else ()
        self._pipelining = pipelining
        self._lmtp = lmtp
        self._used = reset
        self.phase = self._phases[0]
        self.rcpt: list[ServerReply | None] = [None] * number
        self.final: list[ServerReply] = []

    def output(self) -> bytes:
        """The commands to send now; b"" if there are none."""
        commands, sent = self._commands, self._sent
        if not self.unsent or self.next is not _REPLY_NEXT:
            return b""
        if self._pipelining:
            self.unsent = False
            return b"".join(commands)
        if sent > self._received:
            return b""
        self._sent = sent + 1
        self.unsent = sent + 1 < len(commands)
        return commands[sent]

    def receive_hoped(self, replies: Sequence[ServerReply]) -> None:
        """Take the replies with the codes in `hoped`."""
        if self.phase is END_OF_DATA:
            self.final, self.next = [*replies], _NOTHING_NEXT
            return
        if self._used:
            self.probe = replies[0]
        self.rcpt = [*replies[self._first_rcpt : -1]]
        self._received, self._accepted = len(replies), len(self.rcpt)
        self.phase, self.next = END_OF_DATA, _CONTENT_NEXT

    def receive(self, reply: ServerReply) -> None:
        """Take the reply to the command that `phase` tells."""
        phase, self.hoped = self.phase, ()
        if phase is END_OF_DATA:
            self._receive_final(reply)
        else:
            received = self._received = self._received + 1
            done = received == len(self._phases)
            self.phase = END_OF_DATA if done else self._phases[received]
            if phase is RCPT:
                self._receive_rcpt(reply)
            elif phase is MAIL:
                self._receive_mail(reply)
            elif phase is DATA:
                self._receive_data(reply)
            elif phase is RSET:
                self.probe = reply
            if done and self.next is _REPLY_NEXT:
                self.next = Next.RESET
        if reply.code >= 300 or phase is DATA:
            self._doubt(reply.code, phase)

    def _doubt(self, code: int, phase: Phase) -> None:
        """Notice that the server hangs up, or replies to something else."""
        if code in (421, 521):
            self.closing = True
        if code < 400 and (code >= 300) is not (phase is DATA):
            self.confused = True
            if self._used:
                self.next = Next.NOTHING

    def _receive_mail(self, reply: ServerReply) -> None:
        if not reply.positive:
            self.mail = reply
            if not self._pipelining:
                self.next = Next.RESET

    def _receive_rcpt(self, reply: ServerReply) -> None:
        index = self._received - 1 - self._first_rcpt
        self.rcpt[index] = reply
        if reply.positive and self.mail is None:
            self._accepted += 1
        last = index + 1 == len(self.rcpt)
        if last and not self._accepted and not self._pipelining:
            self.next = Next.RESET

    def _receive_data(self, reply: ServerReply) -> None:
        if 300 <= reply.code < 400:
            self.next = _CONTENT_NEXT
            return
        if self._accepted:
            self.data = reply
        self.next = Next.RESET

    @property
    def wanted(self) -> bool:
        """With `Next.CONTENT`: some recipient was accepted; if not, only the dot is to be sent."""
        return self._accepted > 0

    def content_sent(self) -> None:
        """The content and the final dot have been sent."""
        if self._lmtp and not self._accepted:
            # LMTP has a reply for each recipient, and there is none: RSET finds the next reply.
            self.closing = True
            self.next = Next.RESET
        else:
            self.next = _REPLY_NEXT
            self.hoped = (250,) * (self._accepted if self._lmtp else min(self._accepted, 1))

    def _receive_final(self, reply: ServerReply) -> None:
        if self._accepted:
            self.final.append(reply)
        if not self._lmtp or len(self.final) >= self._accepted:
            self.next = _NOTHING_NEXT
