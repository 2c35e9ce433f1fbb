r"""Cuts the text of an address, or of a header field with addresses, into tokens.

RFC 5322 §3.2, with the obsolete forms of §4 and whatever else comes: any text gives tokens, nothing
raises. Header fields and SMTP paths share this, so that both see the same address in a text.
"""

import re
from enum import Enum
from typing import Final, NamedTuple

from libmail.text.quoting import rejoined

__all__ = ["Kind", "Token", "external", "internal", "tokenize"]


class Kind(Enum):
    """What a token is; `SPECIAL` covers every single character that separates."""

    ATOM = "atom"
    QUOTED = "quoted"
    LITERAL = "literal"
    COMMENT = "comment"
    SPECIAL = "special"


class Token(NamedTuple):
    """text: for ATOM and QUOTED without quotes and backslashes, else as it was written.

    spaced: there was white space in front of it.
    """

    kind: Kind
    text: str
    spaced: bool = False

    def __str__(self) -> str:
        """The external form."""
        if self.kind is Kind.QUOTED or (self.kind is Kind.ATOM and not _ATEXT.fullmatch(self.text)):
            return '"' + _ESCAPED.sub(r"\\\g<0>", self.text) + '"'
        return self.text


_ATEXT: Final = re.compile(r"[^\x00-\x20()<>@,;:\\\".\[\]!%|\x7f]+")
_ESCAPED: Final = re.compile(r'["\\\r]')
_UNESCAPE: Final = re.compile(r"\\(.)", re.S)
_WHITE: Final = re.compile(r"[\t\r\n]")
# "!" and "%" are operators of older address forms (user%host@relay, host!user); "|" is one, so that
# |"command with arguments" is one member of a list.
_TOKEN: Final = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r'|(?P<quoted>"(?P<words>(?:[^"\\]|\\.)*)(?:"|\\?$))'
    r"|(?P<literal>\[(?P<host>(?:[^\]\\]|\\.)*)(?:\]|\\?$))"
    r"|(?P<atom>(?:[^()<>@,;:\\\".\[\]!%| \t\r\n]|\\.)+)"
    r"|(?P<special>.)",
    re.S,
)
_COMMENT_PART: Final = re.compile(r"[^()\\]++|\\.|[()\\]", re.S)


def _comment_end(text: str, start: int) -> int:
    """Where the comment that begins at `start` ends; comments nest."""
    depth = 0
    for part in _COMMENT_PART.finditer(text, start):
        if part[0] == "(":
            depth += 1
        elif part[0] == ")":
            depth -= 1
            if depth == 0:
                return part.end()
    return len(text)


def tokenize(text: str, limit: int = 0) -> list[Token]:
    """The tokens of `text`: all, or with a limit at most that many of its beginning.

    Line ends are spaces, also where something is quoted or lacks its end; those of comments stay.
    """
    if "\n" in text:
        text = text.rstrip("\r\n").replace("\r\n", "\n")
    tokens: list[Token] = []
    at, spaced = 0, False
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            break
        at = found.end()
        token: Token
        match found.lastgroup:
            case "space":
                spaced = True
                continue
            case "atom":
                word = found[0]
                token = Token(Kind.ATOM, _plain(word) if "\\" in word else word, spaced)
            case "quoted":
                token = Token(Kind.QUOTED, _plain(found["words"]), spaced)
            case "literal":
                token = Token(Kind.LITERAL, f"[{_plain(found['host'])}]", spaced)
            case _ if found[0] == "\\":
                continue  # the last character, with nothing to escape
            case _ if found[0] == "(":
                at = _comment_end(text, found.start())
                token = Token(Kind.COMMENT, text[found.start() : at], spaced)
            case _:
                token = Token(Kind.SPECIAL, found[0], spaced)
        tokens.append(token)
        if len(tokens) == limit:
            break
        spaced = False
    return tokens


def _plain(word: str) -> str:
    """A word without backslashes; each octet of white space in it is a space."""
    return _WHITE.sub(" ", _UNESCAPE.sub(r"\1", word) if "\\" in word else word)


def external(tokens: list[Token]) -> str:
    """The tokens of one address as text, quoted where they were or have to be."""
    parts = (f" {token}" if _apart(tokens, at) else str(token) for at, token in enumerate(tokens))
    return rejoined("".join(parts))


def internal(tokens: list[Token]) -> str:
    """The tokens of one address as text without quotes."""
    parts = (
        f" {token.text}" if _apart(tokens, at) else token.text for at, token in enumerate(tokens)
    )
    return rejoined("".join(parts))


def _apart(tokens: list[Token], at: int) -> bool:
    """Whether a space keeps this token from the one in front of it."""
    if at == 0:
        return False
    before, token = tokens[at - 1], tokens[at]
    if before.kind is Kind.SPECIAL or token.kind is Kind.SPECIAL:
        return before.text == "," or token.text == "<"
    return not before.kind is token.kind is Kind.ATOM
