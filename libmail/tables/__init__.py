"""Lookup tables: `open_table("lmdb:/etc/postfix/virtual")`, then `await table.lookup(key)`.

The types are listed in `registry.TABLE_TYPES`, one small module each.  `maps.Maps` searches a
list of tables in order, `match` holds the match lists such as mynetworks.
"""

from libmail.tables.braces import split_list
from libmail.tables.registry import TABLE_TYPES, open_table, open_with
from libmail.tables.table import (
    Log,
    SequenceTable,
    Table,
    TableConfigError,
    TableError,
    TableOptions,
    TableRetry,
    TableUnsupported,
    lookup_now,
)

__all__ = [
    "TABLE_TYPES",
    "Log",
    "SequenceTable",
    "Table",
    "TableConfigError",
    "TableError",
    "TableOptions",
    "TableRetry",
    "TableUnsupported",
    "lookup_now",
    "open_table",
    "open_with",
    "split_list",
]
