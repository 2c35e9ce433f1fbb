"""debug_peer_list: the peers whose sessions are told in the log, for whoever looks into trouble.

Lines are those of `-v` in the original: "< peer: line" for what it says, "> peer: line" for what it
is told.
"""

from __future__ import annotations

from typing import NamedTuple

from libmail.config import Config
from libmail.log import LOG
from libmail.lookup.record import Asked
from libmail.tables.match import AddressList
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["ToldLookups", "WatchedPeers", "tell"]

_TITLE = "debug_peer_list"
_LOOKUPS = 2  # the level from which on lookups are told, too
_MOST_LINES = 100  # at a time; what is more is content


class WatchedPeers:
    """Which peers are watched. level: debug_peer_level."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError, TableConfigError."""
        parent = _TITLE in config.list("parent_domain_matches_subdomains")
        options = TableOptions.of(config)
        self._peers = AddressList(_TITLE, config.list(_TITLE), options, parent=parent)
        self.level = config.int("debug_peer_level")

    def __bool__(self) -> bool:
        return bool(self._peers)

    @property
    def with_lookups(self) -> bool:
        """Whether what is looked up for such a peer is told, too."""
        return self.level >= _LOOKUPS

    async def match(self, name: str, address: str) -> bool:
        """Whether a host is watched; not while a table does not answer, of which it warns."""
        try:
            return await self._peers.match(name, address)
        except TableRetry as error:
            LOG.warning(str(error))
            return False


class PeerLine(NamedTuple):
    """A line of a session. sign: "<" from the peer, ">" to it."""

    sign: str
    peer: str
    line: str

    def text(self) -> str:
        """`< host[1.2.3.4]: EHLO x`."""
        return f"{self.sign} {self.peer}: {self.line}"


class LookedUp(NamedTuple):
    """What was looked up for a client, and what came of it."""

    kind: str
    where: str
    key: str
    result: str

    def text(self) -> str:
        """`lookup table inline:{a=OK} a: OK`."""
        return f"lookup {self.kind} {self.where} {self.key}: {self.result}"


def tell(sign: str, peer: str, data: bytes) -> None:
    """Log what was said. sign: see `PeerLine`."""
    for line in data.splitlines()[:_MOST_LINES]:
        LOG.event(PeerLine(sign, peer, line.decode("utf-8", "surrogateescape")))


class ToldLookups(list[Asked]):
    """A record of lookups that keeps none, but tells of each."""

    def append(self, asked: Asked) -> None:
        """Log it."""
        result = asked.failure or str(asked.answer)
        LOG.event(LookedUp(asked.kind, asked.where, asked.key, result))
