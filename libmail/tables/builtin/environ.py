"""environ:NAME - the environment of the process, by the name of the variable."""

from __future__ import annotations

import os

from libmail.tables.table import KeyFilter, TableOptions, key_filter

__all__ = ["EnvironmentTable", "open_named"]


class EnvironmentTable:
    """A table of variables."""

    pattern = False

    def __init__(self, spec: str, ready: KeyFilter) -> None:
        self.spec = spec
        self._ready = ready

    async def lookup(self, key: str) -> str | None:
        """Return the value of the variable, or None."""
        wanted = self._ready(key)
        return None if wanted is None else os.environ.get(wanted)

    def close(self) -> None:
        """Do nothing: nothing is open."""


def open_named(kind: str, name: str, options: TableOptions) -> EnvironmentTable:
    """Open `environ:name`; the name has no meaning."""
    spec = f"{kind}:{name}"
    return EnvironmentTable(spec, key_filter(spec, options))
