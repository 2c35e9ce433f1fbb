"""The older address forms: source routes, host!user, user%host."""

import re
from typing import Final

from libmail.message.tokens import Kind, Token

__all__ = ["domain_at", "is_special", "last_special", "operators", "strip_route", "to_domain_form"]

_OPERATOR: Final = re.compile(r"([@%!:]|(?<=@)\[[^\[\]@]*\]\Z)")


def operators(address: str) -> list[Token]:
    """An internal address at its operators, wherever they are; nothing else has a meaning.

    A domain literal at the end is one token. Quotes, parentheses and blanks are what they are: part
    of a name.
    """
    return [
        Token(Kind.SPECIAL if piece in "@%!:" else Kind.ATOM, piece)
        for piece in _OPERATOR.split(address)
        if piece
    ]


def is_special(token: Token, text: str) -> bool:
    """Whether the token is this separator (and not a word that looks like it)."""
    return token.kind is Kind.SPECIAL and token.text == text


def last_special(tokens: list[Token], text: str) -> int:
    """Where the separator occurs last; -1 where it does not."""
    for at in range(len(tokens) - 1, -1, -1):
        if is_special(tokens[at], text):
            return at
    return -1


def domain_at(tokens: list[Token]) -> int:
    """Where the "@" in front of the domain is; -1 where there is none."""
    return last_special(tokens, "@")


def strip_route(tokens: list[Token]) -> list[Token]:
    """Take off "@one,@two:", RFC 5321 appendix C."""
    if not tokens or not is_special(tokens[0], "@"):
        return tokens
    for at, token in enumerate(tokens):
        if is_special(token, ":"):
            return tokens[at + 1 :]
    return tokens


def to_domain_form(tokens: list[Token], *, bang: bool, percent: bool) -> list[Token] | None:
    """Turn host!user or user%host, which have no "@", into user@host; None if it is neither."""
    at_sign = Token(Kind.SPECIAL, "@")
    if bang:
        for at, token in enumerate(tokens):
            if is_special(token, "!"):
                return [*tokens[at + 1 :], at_sign, *tokens[:at]]
    if percent and (at := last_special(tokens, "%")) >= 0:
        return [*tokens[:at], at_sign, *tokens[at + 1 :]]
    return None
