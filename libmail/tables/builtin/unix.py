"""unix:passwd.byname and unix:group.byname - the system's accounts, as lines of their files.

A process in a jail (chroot) cannot see them any more. It knows those that were in the file when the
table was opened. After a minute that is too old to say that there is no such account: then the
answer is not known, and the process is to be replaced. Nor is it known where accounts come from
elsewhere than from files (nsswitch.conf(5)).
"""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable
from typing import Final

from libmail.files.freshness import register
from libmail.tables.table import (
    KeyFilter,
    TableConfigError,
    TableOptions,
    TableRetry,
    key_filter,
)

__all__ = ["UnixTable", "open_named"]

_FRESH: Final = 60.0  # seconds
_FILE_SOURCES: Final = frozenset({"files", "compat", "systemd", "db"})


class UnixTable:
    """The passwd or the group database, through the name service switch."""

    pattern = False

    def __init__(self, spec: str, find: Callable[[str], str], ready: KeyFilter, path: str) -> None:
        """find: asks the system, raises KeyError. path: the file of the accounts."""
        self.spec = spec
        self._find = find
        self._ready = ready
        self.path = path
        self._lines = _read(path)
        self._only_files = _only_files(os.path.basename(path))
        self._opened = time.monotonic()
        self._outdated = False
        register(self)

    async def lookup(self, key: str) -> str | None:
        """Return the line of the user or group, or None. Raises TableRetry in a jail."""
        name = self._ready(key)
        if not name or "\0" in name:
            return None
        try:
            return self._find(name)
        except KeyError:
            if os.path.exists(self.path):
                return None
        return self._from_jail(name)

    def _from_jail(self, name: str) -> str | None:
        line = self._lines.get(name)
        if line is None:
            self._outdated = time.monotonic() - self._opened > _FRESH
            if self._outdated or not self._only_files:
                raise TableRetry(f"{self.spec}: {self.path} cannot be seen from the jail")
        return line

    @property
    def replaced(self) -> bool:
        """Whether a new process would know more."""
        return self._outdated

    def close(self) -> None:
        """Do nothing: nothing is open."""


def _only_files(database: str, path: str = "/etc/nsswitch.conf") -> bool:
    """Whether all accounts that have mail are in the file, nsswitch.conf(5)."""
    words = " ".join(line.partition("#")[0] for line in _lines(path) if line.startswith(database))
    return _FILE_SOURCES.issuperset(words.replace(f"{database}:", "").split())


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().split("\n")
    except OSError:
        return []


def _read(path: str) -> dict[str, str]:
    """Lines by name; none where there is no such file."""
    return {line.partition(":")[0]: line for line in _lines(path) if line[:1] not in "#+-"}


def _passwd_line(name: str) -> str:
    entry = pwd.getpwnam(name)
    return ":".join(map(str, entry))


def _group_line(name: str) -> str:
    entry = grp.getgrnam(name)
    return f"{entry.gr_name}:{entry.gr_passwd}:{entry.gr_gid}:{','.join(entry.gr_mem)}"


def open_named(kind: str, name: str, options: TableOptions) -> UnixTable:
    """Open `unix:passwd.byname` or `unix:group.byname`."""
    databases = {
        "passwd.byname": (_passwd_line, "/etc/passwd"),
        "group.byname": (_group_line, "/etc/group"),
    }
    if name not in databases:
        raise TableConfigError(f"unknown table: {kind}:{name}")
    spec = f"{kind}:{name}"
    find, path = databases[name]
    return UnixTable(spec, find, key_filter(spec, options), path)
