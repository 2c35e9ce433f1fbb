"""Header fields with addresses: finding the addresses, and putting others in their place.

RFC 5322 §3.4 and §4.4: phrases, comments, groups, routes. What is no address list by that grammar
is read as generously as the original reads it: words without a comma between them are addresses.
"""

import re
from enum import Enum
from typing import Final

from libmail.message.tokens import Kind, Token, external, internal, tokenize
from libmail.text.quoting import PLAIN_ATEXT

__all__ = [
    "RECIPIENT_FIELDS",
    "SENDER_FIELDS",
    "AddressField",
    "Mailbox",
    "addresses_in",
    "complete",
]

# RFC 5322 §3.6.2, §3.6.3 and §3.6.6, and others that hold addresses in practice; in lower case.
SENDER_FIELDS: Final = frozenset(
    (b"from", b"sender", b"reply-to", b"errors-to", b"return-receipt-to",
     b"disposition-notification-to", b"mail-followup-to",
     b"resent-from", b"resent-sender", b"return-path")
)  # fmt: skip
RECIPIENT_FIELDS: Final = frozenset(
    (b"to", b"cc", b"bcc", b"apparently-to",
     b"resent-to", b"resent-cc", b"resent-bcc", b"resent-reply-to")
)  # fmt: skip

_LINE: Final = 70
_COMMA: Final = Token(Kind.SPECIAL, ",")
_GROUP: Final = Token(Kind.SPECIAL, ":")  # behind the name of a group, and none else
_TIGHT: Final = frozenset(".@%!<>|;:")

# Fields that need no rewriting: a list of plain addresses, each with a domain of two or more
# labels, bare or in angle brackets behind a phrase. Nothing quoted in the address, no route, no
# comment, no group, nothing older. No two ways to match one text: linear in any text.
# (Repetitions of groups are not possessive, which the re of Python 3.11.2 gets wrong.)
_PHRASE: Final = rb'(?:[^\x00-\x08\x0b\x0c\x0e-\x1f"(),.:;<>@\\\[\]]|"[^"\\\x00-\x1f]*+")*'
_ATOM: Final = rb"%s++" % PLAIN_ATEXT.encode()
_LABEL: Final = rb"[A-Za-z0-9_-]++"
_SPEC: Final = rb"%s(?:\.%s)*@%s(?:\.%s)+" % (_ATOM, _ATOM, _LABEL, _LABEL)
_ITEM: Final = rb"\s*+(?:%s\s*+|%s<%s>\s*+)" % (_SPEC, _PHRASE, _SPEC)
_COMPLETE: Final = re.compile(rb"%s(?:,%s)*" % (_ITEM, _ITEM))


def complete(value: bytes) -> bool:
    """Whether the value of an address field is in a standard form that rewriting leaves alone.

    False only means that a closer look is needed.
    """
    return _COMPLETE.fullmatch(value) is not None


class Mailbox:
    """One address of a field. `address`, in external form, may be assigned to; "" is `<>`.

    Comments within its brackets stay there, behind it.
    """

    __slots__ = ("_comments", "address", "bracketed", "plain")

    def __init__(self, tokens: list[Token], *, bracketed: bool) -> None:
        self._comments = ""
        if any(token.kind is Kind.COMMENT for token in tokens):
            self._comments = "".join(f" {t}" for t in tokens if t.kind is Kind.COMMENT)
            tokens = [token for token in tokens if token.kind is not Kind.COMMENT]
        self.address = external(tokens)
        self.plain = internal(tokens)  # as it was, in internal form
        self.bracketed = bracketed

    def __str__(self) -> str:
        inside = self.address + self._comments if self.address else self._comments[1:]
        return f"<{inside}>" if self.bracketed else self.address


class AddressField:
    """The value of a header field, parsed. Takes any text. truncated: it exceeds the limit."""

    def __init__(self, value: str, limit: int = 0) -> None:
        """limit: of tokens, see header_address_token_limit; addresses beyond it are dropped.

        Only for text that is to be shown: recipients have no limit, none of them may get lost.
        """
        self.nodes: list[Token | Mailbox] = []
        tokens = tokenize(value, limit + 1 if limit else 0)
        self.truncated: Final = bool(limit) and len(tokens) > limit
        self._parse(_whole_addresses(tokens, limit) if self.truncated else tokens)

    @property
    def mailboxes(self) -> list[Mailbox]:
        """The addresses, in order."""
        return [node for node in self.nodes if isinstance(node, Mailbox)]

    def _parse(self, tokens: list[Token]) -> None:
        """From the end to the begin: what a word is follows from what is behind it."""
        reader = _Reader(tokens)
        for node in reader.nodes():
            if _needs_comma(node, self.nodes):
                self.nodes.append(_COMMA)
            self.nodes.append(node)

    def render(self, name: str) -> str:
        """The field "name: value" in standard form, folded at commas and where comments were."""
        lines = [""]
        previous, in_front = "", None
        for node in self.nodes:
            text = str(node)
            special = isinstance(node, Token) and node.kind is Kind.SPECIAL
            bracketed = isinstance(node, Mailbox) and node.bracketed
            opening = special and text == "<"
            tight = not (bracketed or opening) and (special or previous in _TIGHT)
            if lines[-1] and (in_front is _GROUP or not tight):
                lines[-1] += " "
            first, *others = text.split("\n")  # of a folded comment
            lines[-1] += first
            lines += others
            previous = text if special else text[-1:] if text.endswith(">") else ""
            in_front = node
            if special and text == ",":
                lines.append("")
        if self.truncated and not lines[-1]:
            lines.pop()
        return _folded(f"{name}:", lines)


def _folded(head: str, lines: list[str]) -> str:
    """The lines with CRLF and white space, or with a space, between them."""
    parts = [head]
    width = len(head)
    for number, line in enumerate(lines):
        length = len(line) if line.isascii() else len(line.encode("utf-8", "surrogateescape"))
        if number and width + 1 + length >= _LINE:
            parts.append("\r\n" if line.startswith((" ", "\t")) else "\r\n\t")
            width = length
        else:
            parts.append(" ")
            width += 1 + length
        parts.append(line)
    return "".join(parts)


def _is(token: Token, special: str) -> bool:
    return token.kind is Kind.SPECIAL and token.text == special


def _is_comment(node: Token | Mailbox) -> bool:
    return isinstance(node, Token) and node.kind is Kind.COMMENT


def _words(left: Token, right: Token) -> bool:
    """Whether there is no operator between two tokens, so that an address ends there."""
    return left.kind is not Kind.SPECIAL and right.kind is not Kind.SPECIAL


def _whole_addresses(tokens: list[Token], limit: int) -> list[Token]:
    """The first ones, without an address that the limit would cut into another one."""
    end = limit
    while end and not (_is(tokens[end], ",") or _is(tokens[end - 1], ",")):
        end -= 1
    return tokens[:end]


class _Mode(Enum):
    """What words are, as seen from the end of the field."""

    ADDRESSES = 1
    PHRASE = 2  # the name of a mailbox
    GROUP_NAME = 3  # and all else up to a comma


class _Reader:
    """Reads the tokens of a field backwards. in_group: there was a semicolon."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._opening = [at for at, token in enumerate(tokens) if _is(token, "<")]
        self._parts: list[list[Token | Mailbox]] = []  # the last one first
        self._run: list[Token] = []  # words of addresses, the last one first
        self._mode = _Mode.ADDRESSES
        self._in_group = False

    def nodes(self) -> list[Token | Mailbox]:
        """All of them, in order."""
        at = len(self._tokens) - 1
        while at >= 0:
            at = self._read(at) - 1
        self._end_run()
        return [node for part in reversed(self._parts) for node in part]

    def _read(self, at: int) -> int:
        """The token at `at`, and those in front of it to which it leads; returns where they
        begin."""
        token, mode = self._tokens[at], self._mode
        if _is(token, ","):
            self._separate(token, _Mode.ADDRESSES)
        elif mode is _Mode.GROUP_NAME:
            self._parts.append([token])
        elif _is(token, ";"):
            self._separate(token, _Mode.ADDRESSES)
            self._in_group = True
        elif _is(token, ":") and self._in_group:
            self._separate(_GROUP, _Mode.GROUP_NAME)
        elif _is(token, ":") and mode is _Mode.PHRASE:
            self._separate(token, _Mode.ADDRESSES)
        elif _is(token, ">"):
            return self._bracketed(at)
        elif mode is _Mode.PHRASE:
            self._parts.append([token])
        else:
            self._run.append(token)
        return at

    def _separate(self, token: Token, mode: _Mode) -> None:
        self._end_run()
        self._parts.append([token])
        self._mode = mode

    def _bracketed(self, at: int) -> int:
        """An address goes from a ">" back to the next "<", whatever is between them."""
        while self._opening and self._opening[-1] > at:
            self._opening.pop()
        self._end_run()
        if not self._opening:
            self._parts.append([self._tokens[at]])
            return at
        start = self._opening.pop()
        self._parts.append([Mailbox(self._tokens[start + 1 : at], bracketed=True)])
        self._mode = _Mode.PHRASE
        return start

    def _end_run(self) -> None:
        if self._run:
            self._parts.append(_bare(self._run[::-1]))
            self._run = []


def _bare(run: list[Token]) -> list[Token | Mailbox]:
    """Words that are addresses, or comments.

    Comments stand behind the address whose words they are among or in front of.
    """
    nodes: list[Token | Mailbox] = []
    current: list[Token] = []
    comments: list[Token] = []
    waiting: list[Token] = []  # comments since the last word
    for token in run:
        if token.kind is Kind.COMMENT:
            waiting.append(token)
            continue
        if current and _words(current[-1], token):
            nodes += (Mailbox(current, bracketed=False), *comments)
            current, comments = [], []
        comments += waiting
        waiting = []
        current.append(token)
    if current:
        nodes += (Mailbox(current, bracketed=False), *comments)
    return nodes + waiting


def _needs_comma(node: Token | Mailbox, before: list[Token | Mailbox]) -> bool:
    """Whether a bare address stands behind something without a comma between them."""
    if isinstance(node, Token) or node.bracketed:
        return False
    previous = next((one for one in reversed(before) if not _is_comment(one)), _COMMA)
    return isinstance(previous, Mailbox) or previous.text in (";", ">")


def addresses_in(value: str) -> list[str]:
    """The addresses of a header field or command line argument, as they are, in external form."""
    return [mailbox.address for mailbox in AddressField(value).mailboxes if mailbox.address]
