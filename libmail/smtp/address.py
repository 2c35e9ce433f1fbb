r"""Addresses of the SMTP envelope: paths, ESMTP parameters, quoting, xtext.

An address has two forms. In the external form, which goes over the wire and into headers, the
local part is quoted where RFC 5321 §4.1.2 asks for it: `"john doe"@example.org`. In the internal
form, which everything else uses, it is not: `john doe@example.org`; there the last "@" separates
local part and domain. The null path is "".
"""

import re
from typing import Final

from libmail.text.quoting import quote_local, rejoined

__all__ = [
    "MAX_ADDRESS",
    "AddressSyntax",
    "Unterminated",
    "XtextError",
    "address_fault",
    "parse_parameters",
    "parse_path",
    "quote_local",
    "split_address",
    "split_path",
    "strip_route",
    "unquote",
    "without_line_breaks",
    "xtext_decode",
    "xtext_encode",
]


MAX_ADDRESS: Final = 2048
"""Octets of an address: as many as a line of SMTP has (line_length_limit)."""


class AddressSyntax(ValueError):
    """Text is no address; the caller picks 5.1.7 (sender) or 5.1.3 (recipient)."""


class Unterminated(AddressSyntax):
    """A bracket or a quote is never closed."""


class XtextError(ValueError):
    """Text is not in the xtext form of RFC 3461 §4."""


# The usual path: <local@domain>, nothing quoted, nothing that needs a closer look.
_SIMPLE: Final = re.compile(r"<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+)>", re.A)
# What a path consists of; a text without closing quote or bracket falls through to one character.
_TOKEN: Final = re.compile(
    r'"(?:[^"\\]|\\.)*"'  # quoted string
    r"|\[(?:[^\[\]\\]|\\.)*\]"  # address literal
    r"|\\."
    r"|[ \t\r]+"
    r'|[^"\[\]\\ \t\r<>()]+'
    r"|.",
    re.S,
)
_NO_NAME: Final = frozenset('@<>()[],;:\\".')  # not in the name of a group
_SPACE: Final = " \t\r"  # also what a client that ends lines oddly may leave in one
_BLANKS: Final = {ord("\t"): " ", ord("\r"): " ", ord("\n"): " "}
_UNESCAPE: Final = re.compile(r"\\(.)", re.S)
_XCHARS: Final = re.compile(r"[!-*,-<>-~]*(?:\+[0-9A-F]{2}[!-*,-<>-~]*)*", re.A)
_XTEXT_UNSAFE: Final = re.compile(r"[^!-*,-<>-~]", re.S)
_HEXCHAR: Final = re.compile(rb"\+([0-9A-F]{2})")
# esmtp-param = esmtp-keyword ["=" esmtp-value]                          RFC 5321 §4.1.2
_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20\x7f]*))?")


def address_fault(address: str) -> str:
    """Why no program of the mail system takes this address (internal form); "" if it is taken.

    The one rule for whoever takes an address from somebody else: smtpd, pickup, cleanup. What it
    lets pass fits into any record, and cannot begin another header, log line or record. Other
    controls may stand in a quoted local part; they are made printable where they are shown.
    """
    octets = address if address.isascii() else address.encode("utf-8", "surrogateescape")
    if len(octets) > MAX_ADDRESS:
        return "address too long"
    return "control character in an address" if "\n" in address or "\0" in address else ""


def split_address(address: str) -> tuple[str, str]:
    """Split an internal address at its last "@"; the domain is "" where there is none."""
    local, at, domain = address.rpartition("@")
    return (local, domain) if at else (address, "")


def unquote(address: str) -> str:
    r"""Turn an external address into its internal form: quotes and backslashes taken off.

    Takes any text; what is not quoted stays as it is.
    """
    if '"' not in address and "\\" not in address:
        return address
    return rejoined("".join(_plain(token[0]) for token in _TOKEN.finditer(address)))


def _plain(token: str) -> str:
    if len(token) > 1 and token[0] == '"' and token[-1] == '"':
        return _UNESCAPE.sub(r"\1", token[1:-1])
    if len(token) == 2 and token[0] == "\\":
        return token[1]
    return token


def strip_route(path: str) -> str:
    """Take the source route off "@a,@b:user@c", RFC 5321 appendix C; it is not used."""
    if not path.startswith("@"):
        return path
    colon = 0
    for token in _TOKEN.finditer(path):
        if token[0][0] in '["':
            continue
        if token[0][0] != "@" and token.start() == colon:
            break  # the address begins
        while (at := token[0].find(":", max(0, colon - token.start()))) >= 0:
            colon = token.start() + at + 1
            if not path.startswith("@", colon):
                return path[colon:]
    return path[colon:]


def without_line_breaks(address: str) -> str:
    """An address whose quoted local part goes over no line: for white space in it stands " "."""
    return address if address.isprintable() else address.translate(_BLANKS)


def split_path(text: str) -> tuple[str, str]:
    """Split `<path> parameters`, or `path parameters`, at the end of the path.

    Returns (path as written, the rest without leading blanks). A path without ">" reaches to the
    end of the text, and what follows ">" without a blank belongs to it.
    """
    text = text.lstrip(_SPACE)
    if (match := _SIMPLE.match(text)) is not None and match.end() == len(text):
        return text, ""
    angle = text.startswith("<")
    depth = 0
    for token in _TOKEN.finditer(text):
        part = token[0]
        if part == "<":
            depth += 1
        elif part == ">" and angle:
            depth -= 1
            angle = depth > 0
        elif not angle and part[0] in _SPACE:
            return text[: token.start()], text[token.end() :]
    return text, ""


def parse_path(text: str, *, utf8: bool, strict: bool = False) -> tuple[str, str]:
    """Split "<path> parameters" after FROM: or TO:, RFC 5321 §4.1.2.

    text: without CRLF. utf8: non-ASCII characters are allowed (RFC 6531 §3.3). strict:
    `strict_rfc821_envelopes`: only `<path>`, without comments, and with a local part.
    Returns (address in internal form, parameters); "<>" gives "". A source route is dropped.
    Raises AddressSyntax.
    """
    if (match := _SIMPLE.match(text)) is not None:
        end = match.end()
        if end == len(text):
            return match[1], ""
        if text[end] == " ":
            return match[1], text[end + 1 :].lstrip(_SPACE)
    path, rest = split_path(text)
    if not path.isascii() and not utf8:
        raise AddressSyntax(path)
    if not path:
        raise AddressSyntax(path)
    inner = _bracketed(path) if strict or path.startswith("<") else path
    if inner.endswith(">") and "<" in inner:  # <<a@b>>, <Name <a@b>>
        inner = inner[_bracket(inner) + 1 : -1]
    inner = _loose(inner)
    if not strict and inner.endswith(";"):
        inner = _only_member(inner)
    address = _internal(strip_route(inner), path, strict=strict)
    if strict and address.startswith("@"):
        raise AddressSyntax(path)
    return address, rest


def _only_member(inner: str) -> str:
    """The member of "name: member;", a group of one (RFC 5322 §3.4); other text as it is."""
    name, colon, member = inner[:-1].partition(":")
    return member.strip(_SPACE) if colon and not _NO_NAME.intersection(name) else inner


def _bracketed(path: str) -> str:
    """What is between "<" and ">"; a comment may follow. Raises AddressSyntax."""
    if not path.startswith("<"):
        raise AddressSyntax(path)
    head, comment, _ = path.rpartition("(")
    if comment and path.endswith(")") and head.endswith(">"):
        path = head
    tokens = [token[0] for token in _TOKEN.finditer(path)]
    if tokens.count("<") > tokens.count(">"):
        raise Unterminated(path)
    if tokens[-1] != ">":
        raise AddressSyntax(path)
    return path[1:-1]


def _bracket(text: str) -> int:
    """The place of the first "<" that is not quoted, -1 for none."""
    return next((token.start() for token in _TOKEN.finditer(text) if token[0] == "<"), -1)


def _loose(inner: str) -> str:
    """Without white space around it, and without the one ">" too many that some clients send."""
    return inner.strip(_SPACE).removesuffix(">")


def _internal(inner: str, path: str, *, strict: bool) -> str:
    """The internal form of a path without brackets and route. Raises AddressSyntax."""
    parts: list[str] = []
    comment = 0
    quoted = False  # the part before is a quoted string
    for match in _TOKEN.finditer(inner):
        token = match[0]
        if strict and token[0] == "(":
            raise AddressSyntax(path)
        if token == "(":
            comment += 1
        elif token == ")" and comment:
            comment -= 1
        elif comment:
            continue
        elif token == '"':
            raise Unterminated(path)
        elif token in "<>)[]" or token == "\\":
            raise AddressSyntax(path)
        elif token[0] in _SPACE:
            if parts and match.end() < len(inner) and not _joins(parts[-1], inner[match.end()]):
                raise AddressSyntax(path)
        elif token[0] not in '"[\\' and ("," in token or ";" in token):
            raise AddressSyntax(path)
        elif parts and (
            (quoted and token[0] not in "@.") or (token[0] == '"' and parts[-1][-1:] not in "@.")
        ):
            raise AddressSyntax(path)  # a"b"c
        else:
            parts.append(_plain(token))
            quoted = token[0] == '"'
    if comment and strict:
        raise AddressSyntax(path)
    return rejoined("".join(parts))


def _joins(before: str, after: str) -> bool:
    """Whether white space between these is not part of a local part: around "@" and "."."""
    return before.endswith(("@", ".")) or after in "@.("


def parse_parameters(text: str) -> list[tuple[str, str | None]]:
    """Split "SIZE=100 BODY=8BITMIME" into pairs; names in upper case, None for no value.

    Words that are no parameter by RFC 5321 §4.1.2 come back as (word, None), for the caller to
    refuse by name; but an empty value comes back as "".
    """
    found: list[tuple[str, str | None]] = []
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            found.append((word, None))
        else:
            found.append((match[1].upper(), match[2]))
    return found


def xtext_encode(text: str) -> str:
    """Encode as xtext, RFC 3461 §4: unsafe octets of the UTF-8 form become "+XX"."""
    if text.isascii() and not _XTEXT_UNSAFE.search(text):
        return text
    octets = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return _XTEXT_UNSAFE.sub(lambda match: f"+{ord(match[0]):02X}", octets)


def xtext_decode(text: str) -> str:
    """Decode xtext, RFC 3461 §4. Raises XtextError."""
    if "+" not in text and text.isascii():
        if not _XCHARS.fullmatch(text):
            raise XtextError(text)
        return text
    if not _XCHARS.fullmatch(text):
        raise XtextError(text)
    octets = _HEXCHAR.sub(lambda match: bytes([int(match[1], 16)]), text.encode("ascii"))
    return octets.decode("utf-8", "surrogateescape")
