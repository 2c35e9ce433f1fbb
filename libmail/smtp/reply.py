"""SMTP replies as values: code, enhanced status code and text; rendered and parsed in one place."""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from libmail.text.printable import printable

__all__ = ["Reply", "ReplySyntax", "parse_reply", "reply_text", "softened"]

# Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
#                                                                          RFC 5321 §4.2
_LINE: Final = re.compile(r"([2-5][0-9][0-9])(?:[ -](.*))?", re.S)
# status-code = class "." subject "." detail                                RFC 3463 §2
_DSN: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ \t]+|$)")
_BLANKS: Final = {code: " " for code in (*range(32), 127) if code != 10}
_MAX_TEXT: Final = 1 << 14  # characters


class ReplySyntax(Exception):
    """Bytes from a server are no SMTP reply. The text is the offending line."""


def reply_text(text: str) -> str:
    """What another program said, as one line that any record, log and report can hold.

    Everything that a peer says about mail passes here once: replies of servers, names that they
    give themselves, output of commands. It ends at a NUL, as in the original; other controls become
    "?"; what nobody would read to its end is cut off.
    """
    if text.isprintable() and len(text) <= _MAX_TEXT:
        return text
    return printable(text.partition("\0")[0])[:_MAX_TEXT]


class Reply(NamedTuple):
    r"""One reply, RFC 5321 §4.2.

    code: 200 to 599. dsn: enhanced status code ("5.1.1", RFC 3463), "" for none, as in the banner,
    the answer to EHLO and 3xx replies. text: without CR, "\n" between lines.
    """

    code: int
    dsn: str
    text: str

    @property
    def line(self) -> str:
        r"""The reply as it stands in the log: "550 5.1.1 no such user", lines joined by "\n"."""
        return f"{self.code} {self.dsn} {self._shown}" if self.dsn else f"{self.code} {self._shown}"

    @property
    def _shown(self) -> str:
        """The text without the control characters that it may quote of the client."""
        return self.text if self.text.isprintable() else self.text.translate(_BLANKS)

    @lru_cache(64)  # noqa: B019  values, of which a server says the same few again and again
    def wire(self) -> bytes:
        """The wire form; the enhanced status code stands on each line, RFC 2034 §3."""
        code, dsn, text = self
        lead = f"{dsn} " if dsn else ""
        head: list[str] = []
        if not text.isprintable():  # most are, and have one line
            *head, text = self._shown.split("\n")
        lines = "".join([f"{code}-{lead}{line}\r\n" for line in head])
        return f"{lines}{code} {lead}{text}\r\n".encode("utf-8", "surrogateescape")

    @property
    def positive(self) -> bool:
        """Whether the command was carried out, or may go on (2xx, 3xx)."""
        return self.code < 400


def softened(reply: Reply) -> Reply:
    """A permanent refusal as a temporary one, as soft_bounce has it."""
    return Reply(reply.code - 100, f"4{reply.dsn[1:]}" if reply.dsn else "", reply.text)


def parse_reply(lines: list[str]) -> Reply:
    """Make a reply of its lines, which are without CRLF and hold the same code.

    An enhanced status code counts when its class is that of the reply; it is taken off every line.
    Raises ReplySyntax.
    """
    code, dsn, texts = 0, "", []
    for line in lines:
        if (match := _LINE.fullmatch(line)) is None:
            raise ReplySyntax(line)
        code, text = int(match[1]), match[2] or ""
        status = _DSN.match(text)
        if status is not None and status[1][0] == match[1][0]:
            dsn, text = status[1], text[status.end() :]
        texts.append(text)
    if not texts:
        raise ReplySyntax("")
    return Reply(code, dsn, "\n".join(texts))
