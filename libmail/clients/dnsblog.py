"""Looks up clients in DNS lists, through dnsblog(8).

Called by: postscreen. Asks: `private/dnsblog`.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from libmail.ipc.codec import WireError
from libmail.ipc.messages import DnsListAnswer, DnsListQuery
from libmail.service.connection import ConnectionLost
from libmail.service.pool import ServicePool, ServiceUnavailable

__all__ = ["DnsblogClient"]

_LINGER: Final = 5.0  # seconds for which an idle connection is kept


class DnsblogClient:
    """path: of the socket. timeout: postscreen_dnsbl_timeout, for each answer, seconds."""

    def __init__(self, path: str, timeout: float) -> None:
        self._pool = ServicePool(path, idle=_LINGER, timeout=timeout, wait=False)

    async def ask(self, address: str, domains: Sequence[str]) -> AsyncIterator[DnsListAnswer]:
        """One answer for each domain, as they come. Raises ServiceUnavailable."""
        query = DnsListQuery(address, tuple(domains))
        connection, first = await self._pool.begin(query, DnsListAnswer)
        try:
            yield first
            for _ in range(len(domains) - 1):
                yield await self._pool.answer(connection, DnsListAnswer)
        except (ConnectionLost, WireError) as error:
            self._pool.discard(connection)
            raise ServiceUnavailable(f"{self._pool.path}: {error or 'lost connection'}") from error
        except BaseException:
            self._pool.discard(connection)
            raise
        self._pool.release(connection)
