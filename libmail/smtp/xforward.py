"""XFORWARD as a client says it: where a message came from first, XFORWARD_README.

A server gets only the attributes that it has offered, in xtext. smtp(8) leaves out what is not
known, and has two commands, by the replies that it waits for; the before-queue filter of smtpd(8)
is told so with `[UNAVAILABLE]`. A command that would be longer than RFC 5321 §4.5.3.1.4 allows is
continued in another one.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from libmail.smtp.address import xtext_encode
from libmail.smtp.client import XFORWARD_HELO, XFORWARD_NAME, Extensions, Phase

__all__ = ["Source", "known_commands", "said_to_filter"]

_LINE: Final = 510  # octets of a command without its end
_VERB: Final = "XFORWARD"
_UNKNOWN: Final = "unknown"
_UNAVAILABLE: Final = "[UNAVAILABLE]"


class Source(NamedTuple):
    """The client that a message came from; "" or "unknown" for what is not known.

    ident: of the message there. local: it is one of ours.
    """

    name: str
    address: str
    port: str
    protocol: str
    helo: str
    ident: str
    local: bool

    @property
    def _values(self) -> dict[str, str]:
        """By attribute, in the order of the original's before-queue filter."""
        address = f"IPv6:{self.address}" if ":" in self.address else self.address
        return {
            "NAME": self.name,
            "ADDR": address,
            "PORT": self.port,
            "HELO": self.helo,
            "IDENT": self.ident,
            "PROTO": self.protocol,
            "SOURCE": "LOCAL" if self.local else "REMOTE",
        }

    def words(self, names: Iterable[str], *, unavailable: str = "") -> list[str]:
        """NAME=value of each attribute. unavailable: the value of those not known, if any."""
        found = []
        values = self._values
        for name in names:
            value = values[name]
            known = value and (name in _ANY or value.lower() != _UNKNOWN)
            if known or unavailable:
                found.append(f"{name}={xtext_encode(value if known else unavailable)}")
        return found


_ANY: Final = frozenset(("HELO", "IDENT"))  # what a stranger may call "unknown"
_FIRST: Final = ("NAME", "ADDR", "PORT")
_SECOND: Final = ("PROTO", "HELO", "IDENT", "SOURCE")
_ALL: Final = ("NAME", "ADDR", "PORT", "HELO", "IDENT", "PROTO", "SOURCE")


def _lines(words: Iterable[str]) -> list[bytes]:
    """The commands for these attributes."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= _LINE:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{_VERB} {word}")
    return [f"{line}\r\n".encode() for line in lines]


def known_commands(source: Source, offered: Extensions) -> list[tuple[Phase, bytes]]:
    """What smtp(8) and lmtp(8) say, with CRLF, before MAIL."""
    return [
        (phase, line)
        for phase, names in ((XFORWARD_NAME, _FIRST), (XFORWARD_HELO, _SECOND))
        for line in _lines(source.words(name for name in names if name in offered.xforward))
    ]


def said_to_filter(source: Source, offered: Extensions) -> list[bytes]:
    """What smtpd(8) says to its before-queue filter, with CRLF."""
    names = (name for name in _ALL if name in offered.xforward)
    return _lines(source.words(names, unavailable=_UNAVAILABLE))
