"""postscreen_access_list: clients that are let in, or turned away, without tests.

Items are `permit_mynetworks`, `permit`, `reject`, `dunno`, and tables, whose results are lists of
such words (not of tables). The first item that decides counts.
"""

import re
from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from daemons.postscreen.params import PostscreenParams
from libmail.log import LOG, printable
from libmail.tables.maps import Maps
from libmail.tables.match import AddressList
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["Access", "AccessList", "open_access_list"]

_TITLE: Final = "postscreen_access_list"
_SEPARATORS: Final = re.compile(r"[\s,]+")


class Access(Enum):
    """What the list says of a client."""

    PERMIT = auto()
    REJECT = auto()
    DUNNO = auto()


_WORDS: Final = {
    "permit": Access.PERMIT,
    "reject": Access.REJECT,
    "dunno": Access.DUNNO,
}


class AccessList:
    """The list, with its tables open."""

    def __init__(self, items: Iterable[str | Maps], mynetworks: AddressList) -> None:
        self._items = tuple(items)
        self._mynetworks = mynetworks

    async def decide(self, address: str) -> Access:
        """The decision about a client. A table that fails is skipped, with a warning."""
        for item in self._items:
            found = await self._decided(item, address)
            if found is not None:
                return found
        return Access.DUNNO

    async def _decided(self, item: str | Maps, address: str) -> Access | None:
        """None: the next item decides."""
        if isinstance(item, str):
            return await self._word(item, address)
        try:
            value = await item.find(address)
        except TableRetry:
            return None  # the table has warned
        for word in _SEPARATORS.split(value or ""):
            found = await self._word(word, address) if word else None
            if found is Access.DUNNO:
                return None
            if found is not None:
                return found
        return None

    async def _word(self, word: str, address: str) -> Access | None:
        """A word that is unknown does nothing, with a warning."""
        name = word.lower()
        if name == "permit_mynetworks":
            try:
                return Access.PERMIT if await self._mynetworks.match("", address) else None
            except TableRetry:
                return None
        if name not in _WORDS:
            LOG.seldom(f"{_TITLE}: unknown command", f": {printable(word[:80])}")
        return _WORDS.get(name)


def open_access_list(params: PostscreenParams, options: TableOptions) -> AccessList:
    """Open the list, before the jail. Raises TableConfigError."""
    parent = _TITLE in params.parent_domain_matches_subdomains
    mynetworks = AddressList("mynetworks", params.mynetworks, options, parent=parent)
    items = [
        Maps(_TITLE, [word], options) if ":" in word else word
        for word in params.postscreen_access_list
    ]
    return AccessList(items, mynetworks)
