"""Client files: where the table types that ask a server find its address, queries and limits.

`mysql:/etc/postfix/aliases.cf` names a file in the format of main.cf, in which `$` means nothing.
`ldap:staff`, whose name begins with neither "/" nor ".", has its settings in main.cf: `staff_scope`
is `scope`, and `$name` is expanded there as everywhere in main.cf.

Called by: the drivers, when a table is opened, which is before the jail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from libmail.config.declare import BOOL, INT, TIME, Kind, Value
from libmail.config.errors import ConfigError
from libmail.config.main_cf import parse_main_cf
from libmail.files.freshness import read_source
from libmail.tables.match import StringList
from libmail.tables.table import TableConfigError, TableOptions

__all__ = ["ClientFile", "DomainFilter"]

_FILE: Final = ("/", ".")


class DomainFilter:
    """The parameter `domain`: for which keys it is worth to ask."""

    def __init__(self, specs: str, options: TableOptions) -> None:
        """specs: text of the parameter; "": all keys."""
        self._domains = StringList("domain", specs, options)

    async def allows(self, key: str) -> bool:
        """Whether the key may be asked for: a full address in one of the domains.

        Raises TableRetry.
        """
        if not self._domains:
            return True
        user, _, domain = key.rpartition("@")
        return bool(user and domain) and await self._domains.match(domain)


class ClientFile:
    """The settings of one table."""

    def __init__(self, kind: str, name: str, options: TableOptions) -> None:
        """Read the settings of `kind:name`. Raises TableConfigError."""
        self.spec = f"{kind}:{name}"
        self._options = options
        self._where = f"{name}: " if name.startswith(_FILE) else f"{name}_"
        if name.startswith(_FILE):
            self._find: Callable[[str], str | None] = _read(name, options).get
        else:
            self._find = _in_main_cf(name, options)

    def is_set(self, name: str) -> bool:
        """Whether the parameter is there."""
        return self._find(name) is not None

    def text(self, name: str, default: str = "", *, required: bool = False) -> str:
        """The text of a parameter. Raises TableConfigError where it is required and empty."""
        text = self._find(name)
        if required and not text:
            raise TableConfigError(f"{self.spec}: {self._where}{name}: must not be empty")
        return default if text is None else text

    def int(self, name: str, default: int, low: int = 0, high: int = 2**31 - 1) -> int:
        """A whole number. Raises TableConfigError."""
        value = self._parsed(name, INT(low, high))
        return value if isinstance(value, int) else default

    def seconds(self, name: str, default: float, unit: str = "s") -> float:
        """A time, in seconds; `unit` counts where the file gives none. Raises TableConfigError."""
        value = self._parsed(name, TIME(unit))
        return value if isinstance(value, float) else default

    def yes(self, name: str, *, default: bool) -> bool:
        """The value of a parameter that is yes or no. Raises TableConfigError."""
        value = self._parsed(name, BOOL)
        return value if isinstance(value, bool) else default

    def domains(self) -> DomainFilter:
        """The parameter `domain`."""
        return DomainFilter(self.text("domain"), self._options)

    def _parsed(self, name: str, kind: Kind) -> Value | None:
        text = self._find(name)
        if text is None:
            return None
        try:
            return kind.parse(f"{self._where}{name}", text)
        except ValueError as error:
            raise TableConfigError(f"{self.spec}: {error} (must be {kind.allowed})") from None


def _read(path: str, options: TableOptions) -> dict[str, str]:
    try:
        with read_source(path) as file:
            text = file.read()
    except OSError as error:
        raise TableConfigError(f"open {path}: {error.strerror}") from None
    if "\0" in text:
        raise TableConfigError(f"{path}: null byte: only text is allowed")
    try:
        entries, warnings = parse_main_cf(text, path)
    except ConfigError as error:
        raise TableConfigError(str(error)) from None
    for warning in warnings:
        options.log.warning(warning)
    found: dict[str, str] = {}
    for entry in entries:
        if found.get(entry.name, entry.value) != entry.value:
            place = f"{path}, line {entry.line}"
            shown = f"{entry.name}={entry.value}"
            options.log.warning(f"{place}: overriding earlier entry: {shown}")
        found[entry.name] = entry.value
    return found


def _in_main_cf(prefix: str, options: TableOptions) -> Callable[[str], str | None]:
    config = options.config

    def find(name: str) -> str | None:
        full = f"{prefix}_{name}"
        try:
            return config.text(full) if config.is_set(full) else None
        except ConfigError as error:
            raise TableConfigError(str(error)) from None

    return find
