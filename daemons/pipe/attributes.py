"""The command attributes of a pipe(8) service, as master.cf gives them."""

import re
from dataclasses import dataclass
from typing import Final

from libmail.execution.user import command_user
from libmail.log import Fatal
from libmail.privileges import Identity

__all__ = ["Attributes", "Flags", "parse_attributes", "parse_eol"]

_LETTERS: Final = {
    "B": "blank_end",
    "D": "delivered_to",
    "F": "from_line",
    "O": "original_to",
    "R": "return_path",
    "X": "final",
    "h": "fold_domain",
    "q": "quote",
    "u": "fold_user",
    ".": "stuff_dots",
    ">": "quote_from",
}
_ESCAPE: Final = re.compile(r"\\(?:([0-7]{1,3})|(.?))", re.DOTALL)
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True, slots=True)
class Flags:
    """flags=BDFORXhqu.>: what is done to the message, and to addresses on the command line."""

    blank_end: bool = False
    delivered_to: bool = False
    from_line: bool = False
    original_to: bool = False
    return_path: bool = False
    final: bool = False
    fold_domain: bool = False
    quote: bool = False
    fold_user: bool = False
    stuff_dots: bool = False
    quote_from: bool = False


@dataclass(frozen=True, slots=True)
class Attributes:
    """root, folder: chroot= and directory=. size_limit: octets, 0 for none. argv: as written."""

    user: Identity
    argv: tuple[str, ...]
    flags: Flags = Flags()
    root: str | None = None
    folder: str | None = None
    eol: bytes = b"\n"
    null_sender: str = "MAILER-DAEMON"
    size_limit: int = 0


def parse_attributes(
    arguments: tuple[str, ...], mail_owner: str, mail_network_user: str
) -> Attributes:
    """The attributes; all that follows argv= is its command. Raises Fatal."""
    values: dict[str, str] = {}
    argv: tuple[str, ...] = ()
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "argv" and equals:
            argv = (value, *arguments[number + 1 :])
            break
        if not equals or name not in _NAMES:
            raise Fatal(f"unknown attribute name: {argument}")
        values[name] = value
    if "user" not in values:
        raise Fatal("missing user= command-line attribute")
    if not argv or not argv[0]:
        raise Fatal("missing argv= command-line attribute")
    return Attributes(
        user=command_user(values["user"], mail_owner, mail_network_user),
        argv=argv,
        flags=_flags(values.get("flags", "")),
        root=values.get("chroot"),
        folder=values.get("directory"),
        eol=parse_eol(values.get("eol", r"\n")),
        null_sender=values.get("null_sender", "MAILER-DAEMON"),
        size_limit=_size(values.get("size", "0")),
    )


_NAMES: Final = frozenset(("chroot", "directory", "eol", "flags", "null_sender", "size", "user"))


def _flags(letters: str) -> Flags:
    for letter in letters:
        if letter not in _LETTERS:
            raise Fatal(f"unknown flag: {letter} (ignored)")
    return Flags(**{_LETTERS[letter]: True for letter in letters})


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Fatal(f"get_service_attr: bad size= value: {text}")
    return int(text)


def parse_eol(text: str) -> bytes:
    r"""The octets that eol= means: \a \b \f \n \r \t \v, \ and up to three octal digits, or itself.

    Like every string of the original, it ends at a NUL.
    """
    plain = _ESCAPE.sub(_unescaped, text)
    return plain.encode("utf-8", "surrogateescape").partition(b"\0")[0]


def _unescaped(match: re.Match[str]) -> str:
    if match[1]:
        octet = bytes([int(match[1], 8) & 0xFF])
        return octet.decode("utf-8", "surrogateescape")
    return _ESCAPES.get(match[2], match[2])
