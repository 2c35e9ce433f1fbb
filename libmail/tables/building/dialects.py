"""The two kinds of table sources: those of postmap(1) and those of postalias(1)."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Final

from libmail.tables.building.alias_source import parse_alias
from libmail.tables.building.source import Dialect
from libmail.tables.entries import parse_entry

__all__ = ["POSTALIAS", "POSTMAP"]


def _parse_alias(line: str) -> tuple[str, str, str]:
    name, value = parse_alias(line)
    return name, value, ""


def _origin() -> Mapping[str, str]:
    """Say when and where the table was made, as NIS and Sendmail expect it."""
    return {"YP_LAST_MODIFIED": str(int(time.time())), "YP_MASTER_NAME": socket.gethostname()}


POSTMAP: Final = Dialect(parse=parse_entry, separator="\t", plain=True)

# The entry "@" tells Sendmail that the table is complete.
POSTALIAS: Final = Dialect(parse=_parse_alias, separator=":\t", fixed=_origin, always={"@": "@"})
