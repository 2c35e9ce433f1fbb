"""smtp_reply_filter: tables that replace lines of server replies before these are parsed."""

from typing import Final

from daemons.smtp.failure import LocalTrouble
from libmail.log import LOG
from libmail.tables.maps import Maps
from libmail.tables.table import TableRetry

__all__ = ["LineFilter", "ReplyFilter"]

_SHOWN: Final = 100  # characters of a line in the log


class ReplyFilter:
    """For all sessions of the process."""

    def __init__(self, maps: Maps) -> None:
        """maps: titled with the name of the parameter."""
        self._maps = maps

    def __bool__(self) -> bool:
        """Whether anything is replaced."""
        return bool(self._maps)

    async def replace(self, relay: str, line: bytes) -> bytes:
        """The line to use instead of this one, without its end. relay: the server, for the log.

        Raises LocalTrouble.
        """
        text = line.decode("utf-8", "surrogateescape")
        try:
            found = await self._maps.find(text)
        except TableRetry as error:  # has been logged
            raise LocalTrouble from error
        if found is None:
            return line
        LOG.info(f'{relay}: replacing server reply "{text[:_SHOWN]}" with "{found[:_SHOWN]}"')
        return found.encode("utf-8", "surrogateescape")


class LineFilter:
    """For one session, of the server that `relay` names."""

    __slots__ = ("_filter", "_relay")

    def __init__(self, reply_filter: ReplyFilter, relay: str) -> None:
        self._filter = reply_filter
        self._relay = relay

    async def replace(self, line: bytes) -> bytes:
        """See ReplyFilter."""
        return await self._filter.replace(self._relay, line)
