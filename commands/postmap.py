"""postmap(1): build, query, list and change lookup tables.

Reads: table sources; the parameters default_database_type, lmdb_map_size and smtputf8_enable.
Writes: indexed tables beside their sources.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from libmail.tables.building.command_line import Program, run
from libmail.tables.building.dialects import POSTMAP

_PROGRAM: Final = Program(
    name="postmap",
    letters="bc:d:fFhijmnNopq:rsuUvw",
    usage="[-bfFhijmnNoprsuUvw] [-c config_dir] [-d key] [-q key] [map_type:]file...",
    dialect=POSTMAP,
)


def main(argv: Sequence[str]) -> int:
    """Run postmap. argv: without the program name."""
    return run(_PROGRAM, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
