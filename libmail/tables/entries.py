"""Entries of table sources: `key value`, where white space in a key stands in double quotes."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["EntryError", "parse_entry", "plain_entries", "split_entry"]

_ODD: Final = re.compile(rb":[ \t]|[^\n\t -~]")  # looks like an alias; control characters
_INDENT: Final = frozenset(" \t")
_BLANKS: Final = " \t\r\n\v\f"
# Unquoted text, or a quoted part in which a backslash quotes the next character.
_KEY: Final = re.compile(r'(?:[^\s"\\]|\\.|"(?:[^"\\]|\\.)*"|\\$)*(?=\s|$)', re.ASCII | re.DOTALL)


class EntryError(ValueError):
    """A line is no entry.  `str()` says why, in the words of the log."""


def split_entry(line: str) -> tuple[str, str]:
    """Split a logical line at its first white space outside of quotes; both parts are stripped.

    Quotes and backslashes stay in the key: `"a b"@example.org` is how such an address is looked
    up.  Raises `EntryError` for a quote without its partner.
    """
    if '"' not in line and "\\" not in line and line.isascii():
        parts = line.split(None, 1) or [""]  # nearly every line; the rest is for the others
        return parts[0], parts[1].rstrip() if len(parts) > 1 else ""
    text = line.strip(_BLANKS)
    match = _KEY.match(text)
    if match is None:
        raise EntryError(f"unbalanced '\"' in '{text}' -- ignoring this line")
    return match.group(), text[match.end() :].lstrip(_BLANKS)


def plain_entries(data: bytes, *, fold: bool, end: bytes) -> dict[bytes, bytes] | None:
    """The entries of a source that has nothing but plain lines and comments; None for others.

    Several times as fast as line by line, for tables of many lines.  fold: keys in lower case.
    end: of each key and value.  Continuation lines, quotes, what is not ASCII, duplicates, and
    whatever deserves a warning are left to `parse_entry`.
    """
    if not data.isascii() or b'"' in data or b"\\" in data or _ODD.search(data):
        return None
    lines = data.decode("ascii").split("\n")
    if not {line[:1] for line in lines}.isdisjoint(_INDENT):
        return None
    # In the order of the keys, for whoever writes them in order: as text, lines sort fastest.
    lines.sort()
    pairs = [line.split(None, 1) for line in lines if line and line[0] != "#"]
    try:
        if fold:
            entries = {
                key.lower().encode() + end: value.rstrip().encode() + end for key, value in pairs
            }
        else:
            entries = {key.encode() + end: value.rstrip().encode() + end for key, value in pairs}
    except ValueError:  # a key alone
        return None
    return entries if len(entries) == len(pairs) else None


def parse_entry(line: str) -> tuple[str, str, str]:
    """Parse one entry into key, value and a remark ("" where there is nothing to say).

    Raises `EntryError` for a line that must be left out.
    """
    key, value = split_entry(line)
    if not value:
        raise EntryError("expected format: key whitespace value")
    if key.endswith(":"):
        return key, value, 'record is in "key: value" format; is this an alias file?'
    return key, value, ""
