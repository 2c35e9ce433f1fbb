"""Lookups in DNS lists: connections from one address share a lookup that is under way.

Only so many are under way at a time. Where lists are slow and clients many, those that come later
wait, rather than that dnsblog(8) had one more process for each few hundred of them.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from daemons.postscreen.dnsbl import Score, Sites
from libmail.clients.dnsblog import DnsblogClient
from libmail.log import LOG
from libmail.service.pool import ServiceUnavailable
from libmail.service.skeleton import Runtime

__all__ = ["PendingScore", "Scores"]

_MOST: Final = 200  # clients whose lists are looked up at a time


class PendingScore:
    """The score of a client while DNS lists are looked up.

    score: by the answers so far. complete: all answers have come. waiting: to be called then.
    """

    __slots__ = ("complete", "score", "waiting")

    def __init__(self) -> None:
        self.complete = False
        self.score = Score()
        self.waiting: set[Callable[[], None]] = set()


class Scores:
    """Looks up the scores of clients."""

    def __init__(self, client: DnsblogClient, sites: Sites, runtime: Runtime) -> None:
        self._client = client
        self._sites = sites
        self._runtime = runtime
        self._asked: dict[str, PendingScore] = {}
        self._turns = asyncio.Semaphore(_MOST)

    def ask(self, address: str, tell: Callable[[], None]) -> PendingScore:
        """Look up a client. tell: called when all answers have come."""
        pending = self._asked.get(address)
        if pending is None:
            pending = self._asked[address] = PendingScore()
            self._runtime.spawn(self._answered(address, pending))
        pending.waiting.add(tell)
        return pending

    async def _answered(self, address: str, pending: PendingScore) -> None:
        async with self._turns:
            if pending.waiting:  # else they have gone, or were judged without
                await self._look_up(address, pending)
        del self._asked[address]
        pending.complete = True
        for tell in pending.waiting:
            tell()

    async def _look_up(self, address: str, pending: PendingScore) -> None:
        try:
            async for answer in self._client.ask(address, tuple(self._sites)):
                sites = self._sites.get(answer.domain, ())
                pending.score.add(sites, answer.addresses, answer.ttl)
        except ServiceUnavailable as error:
            pending.score.add((), (), 0)  # a failed lookup is valid for no time
            LOG.seldom("DNS lists are not asked", f": {error}")
