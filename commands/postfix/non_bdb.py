"""postfix non-bdb: what becomes of tables that were made for Berkeley DB.

Nothing here can read its files. Tables of the types hash and btree are LMDB files, made of their
sources when these have changed; that is what Postfix calls the level enable-reindex.
"""

import sys
from collections.abc import Sequence
from typing import Final

from commands.postfix.report import info
from libmail.log import Fatal

__all__ = ["non_bdb"]

_LEVEL: Final = "enable-reindex"
_USAGE: Final = "usage: postfix non-bdb status|disable|enable-redirect|enable-reindex"


def non_bdb(words: Sequence[str]) -> None:
    """Tell the level, or say that it stays as it is. Raises Fatal for what cannot be had."""
    match list(words):
        case ["status"]:
            sys.stdout.write(f"{_LEVEL}\n")
        case ["enable-redirect" | "enable-reindex"]:
            info("tables of the types hash and btree are LMDB files already, nothing is to be done")
        case ["disable"]:
            raise Fatal("there is no support for Berkeley DB: non-bdb cannot be disabled")
        case _:
            raise Fatal(_USAGE)
