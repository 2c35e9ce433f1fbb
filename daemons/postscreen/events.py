"""The log lines of postscreen(8). fail2ban, logwatch and the like depend on every character.

client: "[address]:port".
"""

from typing import Final, NamedTuple

from libmail.log import LOG
from libmail.log.events import seconds_text
from libmail.text.escapes import escaped_octets

__all__ = [
    "BareNewline",
    "CommandLimit",
    "Connect",
    "Disconnect",
    "DnsblRank",
    "Hangup",
    "Listed",
    "NonSmtpCommand",
    "NoqueueReject",
    "Passed",
    "Pipelining",
    "Pregreet",
    "TooBusy",
    "Vetoed",
    "shown",
]  # fmt: skip

_SHOWN: Final = 100  # characters of what a client has sent


def shown(data: bytes) -> str:
    r"""What a client has sent, as in a string of C: "EHLO x\r\n"."""
    return escaped_octets(data[:_SHOWN])[:_SHOWN]


class Connect(NamedTuple):
    """A client is here."""

    client: str
    server: str

    def text(self) -> str:
        """`CONNECT from [1.2.3.4]:5 to [5.6.7.8]:25`."""
        return f"CONNECT from {self.client} to {self.server}"


class Disconnect(NamedTuple):
    """A client that was not handed over is gone."""

    client: str

    def text(self) -> str:
        """`DISCONNECT [1.2.3.4]:5`."""
        return f"DISCONNECT {self.client}"


class Listed(NamedTuple):
    """The access list decides. allowed: or rejected. respectful: respectful_logging."""

    client: str
    allowed: bool
    respectful: bool

    def text(self) -> str:
        """`ALLOWLISTED [1.2.3.4]:5`."""
        return f"{_list_word(self.allowed, self.respectful)}LISTED {self.client}"


class Vetoed(NamedTuple):
    """The client has come to an address at which nobody earns a pass."""

    client: str
    respectful: bool

    def text(self) -> str:
        """`ALLOWLIST VETO [1.2.3.4]:5`."""
        return f"{_list_word(True, self.respectful)}LIST VETO {self.client}"


def _list_word(allowed: bool, respectful: bool) -> str:
    if respectful:
        return "ALLOW" if allowed else "DENY"
    return "WHITE" if allowed else "BLACK"


class Passed(NamedTuple):
    """All tests are passed. new: by a client that is not known."""

    client: str
    new: bool

    def text(self) -> str:
        """`PASS NEW [1.2.3.4]:5`."""
        return f"PASS {'NEW' if self.new else 'OLD'} {self.client}"


class Pregreet(NamedTuple):
    """The client spoke before its turn: so many octets, after so many seconds."""

    client: str
    size: int
    after: float
    said: str

    def text(self) -> str:
        r"""`PREGREET 8 after 0.1 from [1.2.3.4]:5: EHLO x\r\n`."""
        return (
            f"PREGREET {self.size} after {seconds_text(self.after)} from {self.client}: {self.said}"
        )


class Hangup(NamedTuple):
    """The client closed the connection. stage: "tests before SMTP handshake" or "after" it."""

    client: str
    after: float
    stage: str

    def text(self) -> str:
        """`HANGUP after 0.1 from [1.2.3.4]:5 in tests before SMTP handshake`."""
        return f"HANGUP after {seconds_text(self.after)} from {self.client} in {self.stage}"


class DnsblRank(NamedTuple):
    """The score of a client that block lists know."""

    client: str
    rank: int

    def text(self) -> str:
        """`DNSBL rank 3 for [1.2.3.4]:5`."""
        return f"DNSBL rank {self.rank} for {self.client}"


class TooBusy(NamedTuple):
    """There is no room for a client. reason: as the log has it, with how it begins."""

    client: str
    reason: str

    def text(self) -> str:
        """`NOQUEUE: reject: CONNECT from [1.2.3.4]:5: too many connections`."""
        begin = "reject: connect" if "screening" in self.reason else "NOQUEUE: reject: CONNECT"
        return f"{begin} from {self.client}: {self.reason}"


class NoqueueReject(NamedTuple):
    """A recipient was refused."""

    client: str
    reply: str
    sender: str
    recipient: str
    proto: str
    helo: str

    def text(self) -> str:
        """`NOQUEUE: reject: RCPT from ...: 550 ...; from=<a>, to=<b>, proto=SMTP, helo=<c>`."""
        sender, recipient = LOG.address(self.sender), LOG.address(self.recipient)
        return (
            f"NOQUEUE: reject: RCPT from {self.client}: {self.reply}; from=<{sender}>, "
            f"to=<{recipient}>, proto={self.proto}, helo=<{self.helo}>"
        )


class Pipelining(NamedTuple):
    """The client did not wait for a reply. after: the command. said: what it sent early."""

    client: str
    after: str
    said: str

    def text(self) -> str:
        r"""`COMMAND PIPELINING from [1.2.3.4]:5 after HELO: MAIL FROM:<a>\r\n`."""
        return f"COMMAND PIPELINING from {self.client} after {self.after}: {self.said}"


class NonSmtpCommand(NamedTuple):
    """The client speaks something else."""

    client: str
    after: str
    said: str

    def text(self) -> str:
        """`NON-SMTP COMMAND from [1.2.3.4]:5 after CONNECT: GET / HTTP/1.1`."""
        return f"NON-SMTP COMMAND from {self.client} after {self.after}: {self.said}"


class BareNewline(NamedTuple):
    """The client ended a line with a line feed alone."""

    client: str
    after: str

    def text(self) -> str:
        """`BARE NEWLINE from [1.2.3.4]:5 after HELO`."""
        return f"BARE NEWLINE from {self.client} after {self.after}"


class CommandLimit(NamedTuple):
    """A session was ended. what: TIME, COUNT or LENGTH."""

    client: str
    what: str
    after: str

    def text(self) -> str:
        """`COMMAND TIME LIMIT from [1.2.3.4]:5 after CONNECT`."""
        return f"COMMAND {self.what} LIMIT from {self.client} after {self.after}"
