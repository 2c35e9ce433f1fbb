"""Header fields with addresses: finding the addresses, and putting others in their place.

RFC 5322 §3.4 and §4.4: phrases, comments, groups, routes. What is no address list by that grammar
is read as generously as the original reads it: words without a comma between them are addresses.
"""

import re
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
     b"disposition-notification-to", b"mail-reply-to",
     b"resent-from", b"resent-sender", b"resent-reply-to")
)  # fmt: skip
RECIPIENT_FIELDS: Final = frozenset(
    (b"to", b"cc", b"bcc", b"apparently-to", b"mail-followup-to",
     b"resent-to", b"resent-cc", b"resent-bcc")
)  # fmt: skip

_LINE: Final = 70
_COMMA: Final = Token(Kind.SPECIAL, ",")
_TIGHT: Final = frozenset(".@%!<>")

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
        return f"<{self.address}{self._comments}>" if self.bracketed else self.address


class AddressField:
    """The value of a header field, parsed. Takes any text. truncated: it exceeds the limit."""

    def __init__(self, value: str, limit: int = 0) -> None:
        """limit: of tokens, see header_address_token_limit; addresses beyond it are dropped.

        Only for text that is to be shown: recipients have no limit, none of them may get lost.
        """
        self.nodes: list[Token | Mailbox] = []
        self._run: list[Token] = []
        tokens = tokenize(value, limit + 1 if limit else 0)
        self.truncated: Final = bool(limit) and len(tokens) > limit
        self._parse(_whole_addresses(tokens, limit) if self.truncated else tokens)

    @property
    def mailboxes(self) -> list[Mailbox]:
        """The addresses, in order."""
        return [node for node in self.nodes if isinstance(node, Mailbox)]

    def _parse(self, tokens: list[Token]) -> None:
        ends = _bracket_ends(tokens)
        last_end = max((at for at, token in enumerate(tokens) if _is(token, ";")), default=-1)
        at, in_group = 0, False
        while at < len(tokens):
            token = tokens[at]
            if _is(token, ",") or _is(token, ";"):
                self._addresses()
                self.nodes.append(token)
                in_group = in_group and token.text == ","
            elif _is(token, ":") and not in_group and at < last_end:
                self._phrase()
                self.nodes.append(token)
                in_group = True
            elif at in ends:
                self._phrase()
                self.nodes.append(Mailbox(tokens[at + 1 : ends[at]], bracketed=True))
                at = ends[at]
            elif _is(token, ">"):
                self._addresses()
                self.nodes.append(token)
            else:
                self._run.append(token)
            at += 1
        self._addresses()

    def _phrase(self) -> None:
        """The words since the last separator were the name of a mailbox or group."""
        self.nodes += self._run
        self._run = []

    def _addresses(self) -> None:
        """The words since the last separator are addresses, or comments.

        Comments stand behind the address whose words they are among or in front of.
        """
        run, self._run = self._run, []
        current: list[Token] = []
        comments: list[Token] = []
        waiting: list[Token] = []  # comments since the last word
        for token in run:
            if token.kind is Kind.COMMENT:
                waiting.append(token)
                continue
            if current and _words(current[-1], token):
                self._bare(current, comments)
                current, comments = [], []
            comments += waiting
            waiting = []
            current.append(token)
        if current:
            self._bare(current, comments + waiting)
        else:
            self.nodes += waiting

    def _bare(self, tokens: list[Token], comments: list[Token]) -> None:
        previous = next((n for n in reversed(self.nodes) if not _is_comment(n)), _COMMA)
        if isinstance(previous, Mailbox) or previous.text in (";", ">"):
            self.nodes.append(_COMMA)
        self.nodes.append(Mailbox(tokens, bracketed=False))
        self.nodes += comments

    def render(self, name: str) -> str:
        """The field "name: value" in standard form, folded with CRLF and a tab at commas."""
        lines = [""]
        previous = ""
        for node in self.nodes:
            text = str(node)
            special = isinstance(node, Token) and node.kind is Kind.SPECIAL
            bracketed = isinstance(node, Mailbox) and node.bracketed
            opening = special and text == "<"
            tight = not (bracketed or opening) and (special or previous in _TIGHT)
            if lines[-1] and (previous == ":" or not tight):
                lines[-1] += " "
            lines[-1] += text
            previous = text if special else text[-1:] if text.endswith(">") else ""
            if special and text == ",":
                lines.append("")
        if self.truncated and not lines[-1]:
            lines.pop()
        return _folded(f"{name}:", lines)


def _folded(head: str, lines: list[str]) -> str:
    parts = [head]
    width = len(head)
    for number, line in enumerate(lines):
        if number and width + 1 + len(line) >= _LINE:
            parts.append(f"\r\n\t{line}")
            width = len(line)
        else:
            parts.append(f" {line}")
            width += 1 + len(line)
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


def _bracket_ends(tokens: list[Token]) -> dict[int, int]:
    """For each "<" that has one: where its ">" is.

    Read from the end: an address goes from a ">" back to the next "<", whatever is between them.
    """
    ends: dict[int, int] = {}
    end = -1
    for at in range(len(tokens) - 1, -1, -1):
        if end < 0 and _is(tokens[at], ">"):
            end = at
        elif end >= 0 and _is(tokens[at], "<"):
            ends[at] = end
            end = -1
    return ends


def addresses_in(value: str) -> list[str]:
    """The addresses of a header field or command line argument, as they are, in external form."""
    return [mailbox.address for mailbox in AddressField(value).mailboxes if mailbox.address]
