"""Delivery status filters: other words and another code for what happened to a recipient.

Called by: the shared part of delivery agents, for each outcome. Parameters:
default_delivery_status_filter and <agent>_delivery_status_filter, see postconf(5).
"""

from collections.abc import Sequence
from typing import Final

from libmail.config import Config
from libmail.dsn.codes import DsnText, split_dsn
from libmail.log import LOG
from libmail.tables.maps import Maps
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["StatusFilter", "open_status_filter"]

_SUCCESS: Final = "2"


class StatusFilter:
    """Replaces "X.Y.Z text" by what the tables say; a success stays one, and so does a failure."""

    def __init__(self, maps: Maps) -> None:
        """maps: titled with the name of the parameter."""
        self.maps: Final = maps

    def __bool__(self) -> bool:
        """Whether anything can be replaced."""
        return bool(self.maps)

    async def replace(self, dsn: str, reason: str) -> DsnText:
        """The code and text to use; the given ones where the tables have none that fit."""
        given = DsnText(dsn, reason)
        try:
            found = await self.maps.find(f"{dsn} {reason}")
        except TableRetry:  # has been logged; what happened to the mail is known without it
            return given
        if found is None:
            return given
        code, text = split_dsn(found, "")
        if not code or (code[0] == _SUCCESS) != (dsn[0] == _SUCCESS):
            LOG.warning(f"{self.maps.title}: bad status code: {found}")
            return given
        return DsnText(code, text or reason)


def open_status_filter(config: Config, title: str, specs: Sequence[str]) -> StatusFilter:
    """The filter of an agent. title: name of the parameter; specs: its value."""
    return StatusFilter(Maps(title, specs, TableOptions.of(config)))
