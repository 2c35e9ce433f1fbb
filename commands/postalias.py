"""postalias(1): build, query, list and change alias databases.

Reads: alias files (aliases(5)); the parameters default_database_type, lmdb_map_size and
smtputf8_enable.  Writes: indexed tables beside their sources.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from libmail.tables.alias_source import parse_alias
from libmail.tables.command_line import Program, run
from libmail.tables.maintenance import Dialect


def _parse(line: str) -> tuple[str, str, str]:
    name, value = parse_alias(line)
    return name, value, ""


def _origin() -> Mapping[str, str]:
    """Say when and where the table was made, as NIS and Sendmail expect it."""
    return {"YP_LAST_MODIFIED": str(int(time.time())), "YP_MASTER_NAME": socket.gethostname()}


_PROGRAM: Final = Program(
    name="postalias",
    letters="c:d:fijnNopq:rsuvw",
    usage="[-Nfijnoprsuvw] [-c config_dir] [-d key] [-q key] [map_type:]file...",
    # The entry "@" tells Sendmail that the table is complete.
    dialect=Dialect(parse=_parse, separator=":\t", fixed=_origin, always={"@": "@"}),
)


def main(argv: Sequence[str]) -> int:
    """Run postalias. argv: without the program name."""
    return run(_PROGRAM, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
