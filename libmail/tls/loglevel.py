"""smtpd_tls_loglevel and its like: how much is logged, and whether sessions are traced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from libmail.config import Config
from libmail.dns.hostname import valid_hostname
from libmail.log import LOG
from libmail.tables.maps import Maps
from libmail.tables.table import TableError, TableOptions
from libmail.tls.errors import TlsConfigError
from libmail.tls.settings import words

__all__ = ["LogLevel", "LogLevels", "open_loglevels", "parse_loglevel"]

_HIGHEST: Final = 4


@dataclass(frozen=True, slots=True)
class LogLevel:
    """level: 0 to 4. trace: each session has a file that tells its handshake."""

    level: int
    trace: bool = False

    @property
    def summary(self) -> bool:
        """Whether a line tells what was agreed upon."""
        return self.level >= 1

    @property
    def states(self) -> bool:
        """Whether the states of a handshake are told, and certificates that nobody asked for."""
        return self.level >= 2

    @property
    def octets(self) -> bool:
        """Whether what goes over the network while both shake hands is shown."""
        return self.level >= 3

    @property
    def all_octets(self) -> bool:
        """Whether what goes over it afterwards is, too."""
        return self.level >= 4


def parse_loglevel(text: str, where: str) -> LogLevel:
    """Of `1` or `1,trace`. where: the parameter or table. Raises TlsConfigError."""
    parts = words(text)
    numbers = [part for part in parts if part.isascii() and part.isdecimal() and len(part) <= 3]
    others = [part.lower() for part in parts if part not in numbers]
    if len(numbers) > 1 or any(other != "trace" for other in others) or not parts:
        raise TlsConfigError(f'{where}: bad TLS log level "{text[:100]}"')
    level = min(int(numbers[0]), _HIGHEST) if numbers else 0
    return LogLevel(level, bool(others))


class LogLevels:
    """The level for each peer, by tables such as smtp_tls_loglevel_maps. usual: for all others."""

    def __init__(self, usual: LogLevel, maps: Maps, *, undotted: bool = False) -> None:
        """undotted: parent domains have no dot in front."""
        self.usual: Final = usual
        self._maps = maps if maps else None
        self._undotted = undotted

    async def of(self, name: str, address: str) -> LogLevel:
        """The level for a peer. name: "" or "unknown" if it has none. address: numeric.

        No log is worth a session: where tables fail, or have no level, it is the usual one.
        """
        if self._maps is None:
            return self.usual
        try:
            return await self._found(self._maps, name, address)
        except (TableError, TlsConfigError) as error:
            LOG.warning(str(error))
            return self.usual

    async def _found(self, maps: Maps, name: str, address: str) -> LogLevel:
        for key, partial in (*self._names(name), *_networks(address)):
            found = await maps.search(key, partial=partial)
            if found is None:
                continue
            if found.value.strip().upper() == "DUNNO":
                break
            return parse_loglevel(found.value, f"{maps.title}: {key}")
        return self.usual

    def _names(self, name: str) -> Iterator[tuple[str, bool]]:
        """(key, whether it is a part of the name)."""
        if name == "unknown" or not valid_hostname(name):
            return
        name = name.lower()
        yield name, False
        at = name.find(".")
        while at > 0:
            yield name[at + self._undotted :], True
            at = name.find(".", at + 1)


def _networks(address: str) -> Iterator[tuple[str, bool]]:
    """An address, and without its last parts; (key, whether it is a part)."""
    if not address or "/" in address:
        return  # a UNIX socket
    yield address, False
    separator = ":" if ":" in address else "."
    while separator in address:
        address = address.rpartition(separator)[0].rstrip(":")
        if address:
            yield address, True


def open_loglevels(config: Config, title: str, usual: str, options: TableOptions) -> LogLevels:
    """Open the tables, before the jail. title: the parameter, such as smtp_tls_loglevel_maps.

    usual: the value of the parameter without tables. Raises TlsConfigError, ConfigError.
    """
    return LogLevels(
        parse_loglevel(usual, title.removesuffix("_maps")),
        Maps(title, config.list(title), options),
        undotted=title in config.list("parent_domain_matches_subdomains"),
    )
