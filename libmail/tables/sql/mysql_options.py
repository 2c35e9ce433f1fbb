"""Option files of MySQL and MariaDB (my.cnf): what their client libraries read for every client.

Called by: the mysql table, when it is opened, which is before the jail. PyMySQL would read such a
file at each connection, one group of it, and without !include.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from libmail.files.safe_open import safe_open

__all__ = ["DEFAULT_FILES", "read_options"]

DEFAULT_FILES: Final = ("/etc/my.cnf", "/etc/mysql/my.cnf")
_MAX_DEPTH: Final = 10  # files within files
_MAX_SIZE: Final = 1 << 20
_ESCAPES: Final = {"b": "\b", "t": "\t", "n": "\n", "r": "\r", "\\": "\\", "s": " "}


def read_options(paths: Iterable[str], groups: Iterable[str]) -> Mapping[str, str]:
    """The options of the groups in the files; the last one counts.

    Names have hyphens only. Files that are not there are left out. Raises OSError for one that
    cannot be read.
    """
    wanted = frozenset(groups)
    found: dict[str, str] = {}
    for path in paths:
        for group, name, value in _entries(path, 0):
            if group in wanted:
                found[name] = value
    return found


def _entries(path: str, depth: int) -> Iterator[tuple[str, str, str]]:
    group = ""
    for line in _lines(path):
        if line.startswith("["):
            group = line[1:].partition("]")[0].strip()
        elif line.startswith("!"):
            if depth < _MAX_DEPTH:
                for included in _included(line):
                    yield from _entries(included, depth + 1)
        else:
            name, _, value = line.partition("=")
            yield group, name.strip().replace("_", "-"), _unquoted(value.strip())


def _lines(path: str) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", opener=safe_open) as file:
            text = file.read(_MAX_SIZE)
    except FileNotFoundError:
        return
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and stripped[0] not in "#;":
            yield stripped


def _included(line: str) -> Iterator[str]:
    word, _, path = line[1:].partition(" ")
    path = path.strip()
    if word == "include":
        yield path
    elif word == "includedir" and os.path.isdir(path):
        for name in sorted(os.listdir(path)):
            if name.endswith(".cnf"):
                yield os.path.join(path, name)


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    else:
        value = value.partition(" #")[0].rstrip()
    if "\\" not in value:
        return value
    head, *rest = value.split("\\")
    out = [head]
    pending = False
    for piece in rest:
        if pending or not piece:
            # Two backslashes in a row: the second one is text.
            out.append(piece if pending else "\\")
            pending = not pending and not piece
            continue
        out.append(_ESCAPES.get(piece[0], "\\" + piece[0]) + piece[1:])
    return "".join(out)
