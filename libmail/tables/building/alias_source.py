"""Entries of alias files: `name: value, value` (aliases(5)), with the tokens of RFC 822 §3.3.

What is stored is a normal form: comments stay, white space does not matter, and a word that
needs quotes has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from libmail.tables.entries import EntryError

__all__ = ["parse_alias"]

_SPACE: Final = re.compile(r"[ \t\r\n]+")
_SPECIALS: Final = r'"(),.:;<>@\[\]\\!%|'
_ATOM: Final = re.compile(rf"(?:[^ \t\r\n{_SPECIALS}]|\\.)+", re.DOTALL)
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LITERAL: Final = re.compile(r"\[((?:[^\]\\]|\\.)*)\]?", re.DOTALL)
_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_PLAIN: Final = re.compile(rf"[^\0-\x20\x7f{_SPECIALS}]+")
_TO_ESCAPE: Final = re.compile(r'["\\\r\n]')
_TO_ESCAPE_IN_LITERAL: Final = re.compile(r"[\\\r\n]")


class _Kind(Enum):
    WORD = auto()  # atom, quoted string, domain literal or comment
    QUOTED = auto()
    SPECIAL = auto()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: _Kind
    text: str  # as it is written out; of QUOTED without its quotes


def _scan(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        char = text[at]
        if match := _SPACE.match(text, at):
            at = match.end()
        elif match := _QUOTED.match(text, at):
            tokens.append(_Token(_Kind.QUOTED, _PAIR.sub(r"\1", match.group(1))))
            at = match.end()
        elif char == '"':
            raise EntryError("need name:value pair")
        elif char == "(":
            end = _comment_end(text, at)
            tokens.append(_Token(_Kind.WORD, text[at:end]))
            at = end
        elif match := _LITERAL.match(text, at):
            literal = _TO_ESCAPE_IN_LITERAL.sub(r"\\\g<0>", _PAIR.sub(r"\1", match.group(1)))
            tokens.append(_Token(_Kind.WORD, f"[{literal}]"))
            at = match.end()
        elif match := _ATOM.match(text, at):
            word = _PAIR.sub(r"\1", match.group())
            kind = _Kind.WORD if _PLAIN.fullmatch(word) else _Kind.QUOTED
            tokens.append(_Token(kind, word))
            at = match.end()
        else:
            if char != "\\":  # a backslash at the end of the line
                tokens.append(_Token(_Kind.SPECIAL, char))
            at += 1
    return tokens


def _comment_end(text: str, start: int) -> int:
    """Return the index behind a comment, which may hold others."""
    depth, at = 0, start
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "(":
            depth += 1
        elif text[at] == ")":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return len(text)


def _written(token: _Token) -> str:
    if token.kind is not _Kind.QUOTED:
        return token.text
    return '"' + _TO_ESCAPE.sub(r"\\\g<0>", token.text) + '"'


def _write(tokens: list[_Token]) -> str:
    out: list[str] = []
    before: _Token | None = None
    for token in tokens:
        word = token.kind is not _Kind.SPECIAL
        if before is not None:
            after_word = before.kind is not _Kind.SPECIAL
            if (word and after_word) or (token.text == "<" and (after_word or before.text == ">")):
                out.append(" ")
        out.append(", " if token == _COMMA else _written(token))
        before = token
    return "".join(out)


_COMMA: Final = _Token(_Kind.SPECIAL, ",")
_COLON: Final = _Token(_Kind.SPECIAL, ":")
_AT: Final = _Token(_Kind.SPECIAL, "@")


def parse_alias(line: str) -> tuple[str, str]:
    """Split a logical line into the name of the alias and its value, in their normal form.

    Raises `EntryError`, whose text is what the log says.
    """
    tokens = _scan(line)
    if _COLON not in tokens:
        raise EntryError("need name:value pair")
    colon = tokens.index(_COLON)
    name, value = tokens[:colon], tokens[colon + 1 :]
    if not name or not value:
        raise EntryError("need name:value pair")
    if _AT in name:
        raise EntryError("name must be local and have no domain")
    return _write(name), _write(value)
