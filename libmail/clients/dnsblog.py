"""What DNS lists say of a client, asked of dnsblog(8).

Called by: postscreen. Asks: `private/dnsblog`.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from libmail.ipc.codec import WireError
from libmail.ipc.messages import DnsListAnswer, DnsListQuery
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServicePool, ServiceUnavailable

__all__ = ["DnsblogClient"]

_LINGER: Final = 5.0  # seconds that a connection is kept for the next question


class DnsblogClient:
    """path: of the socket. timeout: postscreen_dnsbl_timeout, for each answer, seconds."""

    def __init__(self, path: str, timeout: float) -> None:
        self._pool = ServicePool(path, idle=_LINGER, timeout=timeout, wait=False)

    async def ask(self, address: str, domains: Sequence[str]) -> AsyncIterator[DnsListAnswer]:
        """One answer for each domain, as they come. Raises ServiceUnavailable."""
        connection, first = await self._asked(DnsListQuery(address, tuple(domains)))
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

    async def _asked(self, query: DnsListQuery) -> tuple[Connection, DnsListAnswer]:
        """The connection on which a question was asked, and its first answer.

        One that was kept may have been closed meanwhile, by a service that makes room.
        """
        while True:
            connection, used = await self._pool.acquire()
            try:
                connection.send(query)
                return connection, await self._pool.answer(connection, DnsListAnswer)
            except (ConnectionLost, WireError) as error:
                self._pool.discard(connection)
                if not used:
                    reason = error or "lost connection"
                    raise ServiceUnavailable(f"{self._pool.path}: {reason}") from error
            except BaseException:
                self._pool.discard(connection)
                raise
