"""Workarounds for old Cisco PIX firewalls, which garble SMTP (smtp_pix_workarounds).

Such a firewall is recognized by the greeting, in which it has replaced all letters.
"""

import re
import time
from collections.abc import Iterable
from typing import Final

from daemons.smtp.settings import SmtpParams
from libmail.agents.delivery import Delivery
from libmail.log import LOG
from libmail.smtp.client import ServerReply
from libmail.tables.maps import Maps
from libmail.tables.table import TableRetry

__all__ = ["DELAY_DOT", "NO_ESMTP", "PixWorkarounds"]

NO_ESMTP: Final = "disable_esmtp"
DELAY_DOT: Final = "delay_dotcrlf"
_KNOWN: Final = (NO_ESMTP, DELAY_DOT)
_SPOILT: Final = re.compile(r"[20 *\t]*")


class PixWorkarounds:
    """Chooses workarounds: smtp_pix_workaround_maps, smtp_pix_workarounds, ..._threshold_time."""

    def __init__(self, params: SmtpParams, maps: Maps) -> None:
        self._usual = params.smtp_pix_workarounds
        self._threshold = params.smtp_pix_workaround_threshold_time
        self._maps = maps

    @staticmethod
    def suspects(greeting: ServerReply) -> bool:
        """Whether the greeting seems to have passed such a firewall."""
        return _SPOILT.fullmatch(greeting.text) is not None

    async def of(self, delivery: Delivery, address: str, relay: str) -> frozenset[str]:
        """The workarounds for a server behind such a firewall. Logs them."""
        words: Iterable[str] = self._usual
        queue_id = delivery.request.queue_id
        try:
            found = await self._maps.find(address) if self._maps else None
        except TableRetry as error:
            LOG.warning(f"{queue_id}: {error}")
        else:
            words = self._usual if found is None else re.split(r"[\s,]+", found)
        wanted = {word.lower() for word in words if word}
        if not wanted:
            return frozenset()
        if time.time() - delivery.arrival < self._threshold:
            wanted.discard(DELAY_DOT)
        shown = " ".join(word for word in _KNOWN if word in wanted)
        LOG.info(f"{queue_id}: enabling PIX workarounds: {shown} for {relay}")
        return frozenset(wanted)
