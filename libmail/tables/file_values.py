"""Values that are names of files, whose content they stand for (postmap -F, tls_server_sni_maps).

A table holds the content in base64 form: it may be anything, and has line ends.
"""

from __future__ import annotations

import base64
import binascii

from libmail.files.safe_open import safe_open
from libmail.tables.entries import EntryError
from libmail.tables.table import TableError, TableOptions

__all__ = ["decoded", "encoded", "value_of"]

_SEPARATORS = ", \t\r\n"


def encoded(names: str) -> str:
    """The content of files, one behind the other. Raises EntryError ("open NAME: why")."""
    for separator in _SEPARATORS:
        names = names.replace(separator, " ")
    parts = []
    for path in names.split(" "):
        if not path:
            continue
        try:
            with open(path, "rb", opener=safe_open) as file:
                parts.append(file.read())
        except OSError as error:
            raise EntryError(f"open {path}: {error.strerror}") from None
    return base64.b64encode(b"\n".join(parts)).decode("ascii")


def value_of(text: str, options: TableOptions) -> str:
    """What a table holds for the right side of an entry. Raises EntryError."""
    return encoded(text) if options.files else text


def decoded(value: str) -> bytes:
    """The content again. Raises TableError for what no table of files holds."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise TableError(f"malformed BASE64 value: {value}") from None
