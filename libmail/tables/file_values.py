"""Values that are names of files, whose content they stand for (postmap -F, tls_server_sni_maps).

A table holds the content in base64 form: it may be anything, and has line ends.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from contextlib import suppress

from libmail.files.safe_open import safe_open
from libmail.tables.entries import EntryError, parse_entry
from libmail.tables.lines import logical_lines
from libmail.tables.table import TableError, TableOptions

__all__ = ["decoded", "encoded", "in_base64", "named_files", "names_in", "value_of"]

_SEPARATORS = ", \t\r\n"


def names_in(text: str) -> list[str]:
    """The names of files in a value."""
    for separator in _SEPARATORS:
        text = text.replace(separator, " ")
    return [name for name in text.split(" ") if name]


def named_files(source: str, *, patterns: bool = False) -> Iterator[tuple[str, ...]]:
    """The files that each entry of a postmap(1) source names. Raises OSError.

    patterns: it is a table of patterns instead, regexp_table(5).
    """
    with open(source, encoding="utf-8", errors="surrogateescape", opener=safe_open) as file:
        for _, line in logical_lines(file, lambda _: None):
            with suppress(EntryError):  # whoever uses it complains
                yield tuple(names_in(_result(line) if patterns else parse_entry(line)[1]))


def _result(rule: str) -> str:
    """What stands behind the patterns, which may be two: `/one/i!/two/ result`; "" for none."""
    text = rule.strip()
    while text and not text[0].isalnum():
        text = text.lstrip("! \t")
        end = _end_of_pattern(text)
        while end < len(text) and text[end] not in "! \t":
            end += 1  # flags
        text = text[end:]
        if not text.startswith("!"):
            return text
    return ""


def _end_of_pattern(text: str) -> int:
    """Where the text goes on behind the second delimiter, which is the first character again."""
    at = 1
    while at < len(text) and text[at] != text[0]:
        at += 2 if text[at] == "\\" else 1
    return at + 1


def in_base64(contents: Iterable[bytes]) -> str:
    """Contents of files, one behind the other."""
    return base64.b64encode(b"\n".join(contents)).decode("ascii")


def encoded(names: str) -> str:
    """The content of files, one behind the other. Raises EntryError ("open NAME: why")."""
    parts = []
    for path in names_in(names):
        try:
            with open(path, "rb", opener=safe_open) as file:
                parts.append(file.read())
        except OSError as error:
            raise EntryError(f"open {path}: {error.strerror}") from None
    return in_base64(parts)


def value_of(text: str, options: TableOptions) -> str:
    """What a table holds for the right side of an entry. Raises EntryError."""
    return text if options.files is None else options.files(text)


def decoded(value: str) -> bytes:
    """The content again. Raises TableError for what no table of files holds."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise TableError(f"malformed BASE64 value: {value}") from None
