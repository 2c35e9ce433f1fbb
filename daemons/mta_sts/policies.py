"""What is known of the policies of domains, and when they are asked again.

A policy of a domain is fetched once at a time, however many deliveries wait for it, of all domains
some at a time, and not again for five minutes what could not be fetched (RFC 8461 §3.3).

A policy is in force until its max_age is over, whatever the domain's servers say or do meanwhile:
an attacker who can keep us from fetching must not be able to make us forget. It is replaced when
the record in DNS has another id, and fetched again long before its end: in the background when mail
goes to the domain, and hourly for those domains to which mail went within a month. Where there is
no policy, and none can be had, mail goes as it would without MTA-STS. Where the cache cannot be
read nobody knows whether there is one, and mail waits.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

from daemons.mta_sts.events import NoPolicy, PolicyNews
from daemons.mta_sts.once import Once
from libmail.dns.answers import DnsError
from libmail.log import LOG
from libmail.net.cache import ExpiringCache
from libmail.sts.answer import entry_of, entry_without
from libmail.sts.fetch import FetchFailed
from libmail.sts.kept import KeptPolicy
from libmail.sts.policy import Policy
from libmail.tables.expiry import LAST_CLEANUP, clean_up
from libmail.tables.table import TableError, TableUnsupported, WritableTable

__all__ = ["Fetcher", "Policies"]

_CHECK: Final = 60.0  # seconds for which nobody asks DNS again for the id of a policy
_LEAST: Final = 5.0  # seconds for which a policy is used, however short its life is
_PAUSE: Final = 300.0  # seconds between attempts to fetch a policy with the same id
_MOST_KNOWN: Final = 20_000  # domains whose policy, or that there is none, is in memory
_MOST_KEPT: Final = 200_000  # policies in the cache; further ones are in memory only
_USED: Final = 86_400.0  # seconds; the time of use is written no more often
_UNUSED: Final = 30 * 86_400.0  # seconds after which a policy is not fetched for its own sake
_AT_ONCE: Final = 4  # domains that the hourly round asks at a time


class Fetcher(Protocol):
    """Asks domains: `libmail.sts.fetch.PolicyFetcher`."""

    async def announced(self, domain: str) -> str:
        """The id of the policy, "" for none. Raises DnsError."""

    async def fetch(self, domain: str) -> Policy:
        """The policy. Raises FetchFailed."""


class _Found(NamedTuple):
    """What the client is told: the entry, None for none; or error, why nobody knows.

    life: seconds for which it is right.
    """

    entry: str | None
    error: TableError | None = None
    life: float = _CHECK


class _Failure(NamedTuple):
    """Why the policy with this id could not be fetched."""

    id: str
    error: FetchFailed


class Policies:
    """The policies of all domains. Made in the event loop."""

    def __init__(
        self,
        fetcher: Fetcher,
        table: WritableTable,
        *,
        limit: int,
        patience: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """limit: fetches at a time. patience: seconds that one waits for its turn. clock: of the
        epoch."""
        self._fetcher = fetcher
        self._table = table
        self._turns = asyncio.Semaphore(limit)
        self._patience = patience
        self._clock = clock
        self._known: ExpiringCache[str, _Found] = ExpiringCache(_MOST_KNOWN, _CHECK, clock)
        self._failures: ExpiringCache[str, _Failure] = ExpiringCache(_MOST_KNOWN, _PAUSE, clock)
        self._searches: Once[_Found] = Once()
        self._fetches: Once[KeptPolicy | FetchFailed] = Once()
        self._rounds: Once[None] = Once()
        self._entries = 0  # in the table, about

    async def entry(self, domain: str) -> str | None:
        """What the client is told of a domain: an entry of smtp_tls_policy_maps, None for nothing.

        Raises TableError.
        """
        found = self._known.get(domain)
        if found is None:
            found = await self._searches.result(domain, partial(self._search, domain))
        if found.error is not None:
            raise found.error
        return found.entry

    def refresh(self) -> None:
        """Drop policies that are over, and fetch again those that have become old."""
        self._rounds.begin("", self._go_round)

    # one domain

    async def _search(self, domain: str) -> _Found:
        try:
            kept = KeptPolicy.parse(await self._table.lookup(domain))
        except TableError as error:
            LOG.seldom(f"cache {self._table.spec}", f": {error}")
            return _Found(None, error)
        if kept is not None and kept.over(self._clock()):
            kept = None
        found = await self._decided(domain, await self._announced(domain), kept)
        self._known.put(domain, found, found.life)
        return found

    async def _announced(self, domain: str) -> str:
        """The id of the policy, "" for none; an error proves nothing, and is as good as none."""
        try:
            return await self._fetcher.announced(domain)
        except DnsError as error:
            LOG.debug(f"{domain}: {error.text}")
            return ""

    async def _decided(self, domain: str, announced: str, kept: KeptPolicy | None) -> _Found:
        """kept: the policy in force."""
        failure, fetch = (
            self._failure(domain, announced),
            partial(self._fetch, domain, announced, kept),
        )
        may_ask = announced and failure is None
        if may_ask and (kept is None or kept.id != announced):
            fetched = await self._fetches.result(domain, fetch)
            if isinstance(fetched, KeptPolicy):
                kept = fetched
            else:
                failure = fetched
        elif may_ask and kept is not None and kept.ageing(self._clock()):
            self._fetches.begin(domain, fetch)
        elif kept is not None and kept.unused(self._clock()) >= _USED:
            await self._keep(domain, kept.used_at(self._clock()))
        if kept is None:
            return _Found(None if failure is None else entry_without(domain, failure.kind))
        return _Found(entry_of(domain, kept.policy), life=max(kept.left(self._clock()), _LEAST))

    def _failure(self, domain: str, announced: str) -> FetchFailed | None:
        """Why the policy could not be fetched a moment ago, if that was tried."""
        last = self._failures.get(domain)
        return last.error if last is not None and last.id == announced else None

    # fetching

    async def _fetch(
        self, domain: str, announced: str, old: KeptPolicy | None, *, use: bool = True
    ) -> KeptPolicy | FetchFailed:
        """Fetch a policy and keep it. old: that in force. use: mail goes to the domain now."""
        try:
            policy = await self._fetched(domain)
        except FetchFailed as error:
            self._failures.put(domain, _Failure(announced, error))
            LOG.event(NoPolicy(domain, str(error), old is not None))
            return error
        now = int(self._clock())
        used = now if use or old is None else old.used
        LOG.event(PolicyNews(domain, policy.mode.value, len(policy.mx), policy.max_age))
        kept = KeptPolicy(announced, now, used, policy)
        await self._keep(domain, kept, new=old is None)
        return kept

    async def _fetched(self, domain: str) -> Policy:
        """Raises FetchFailed, also where many others are being asked."""
        try:
            async with asyncio.timeout(self._patience):
                await self._turns.acquire()
        except TimeoutError:
            raise FetchFailed("sts-policy-fetch-error", "too many fetches at once") from None
        try:
            return await self._fetcher.fetch(domain)
        finally:
            self._turns.release()

    async def _keep(self, domain: str, kept: KeptPolicy, *, new: bool = False) -> None:
        """Write it into the cache. What cannot be written is in force all the same, for now."""
        if new and self._entries >= _MOST_KEPT:
            LOG.seldom(f"cache {self._table.spec}", ": too many policies")
            return
        self._entries += new
        try:
            await self._table.update(domain, kept.value())
        except TableError as error:
            LOG.seldom(f"cache {self._table.spec}", f": {error}")

    # all of them

    async def _go_round(self) -> None:
        try:
            cleanup = await clean_up(self._table, self._stale, self._clock())
            due = [domain async for domain, value in self._table.listing()
                   if domain != LAST_CLEANUP and self._due(value)]  # fmt: skip
        except TableUnsupported:
            return  # who has the table looks after it
        except TableError as error:
            LOG.warning(f"cache {self._table.spec} cleanup: {error}")
            return
        self._entries = cleanup.retained
        if cleanup.dropped:
            LOG.event(cleanup)
        await self._renew(due)

    def _stale(self, _: str, value: str) -> bool:
        kept = KeptPolicy.parse(value)
        return kept is None or kept.over(self._clock())

    def _due(self, value: str) -> bool:
        kept, now = KeptPolicy.parse(value), self._clock()
        return kept is not None and kept.ageing(now) and kept.unused(now) < _UNUSED

    async def _renew(self, domains: Sequence[str]) -> None:
        left = iter(domains)

        async def some() -> None:
            for domain in left:
                await self._renew_one(domain)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(some())

    async def _renew_one(self, domain: str) -> None:
        announced = await self._announced(domain)
        if not announced or self._failure(domain, announced) is not None:
            return
        try:
            old = KeptPolicy.parse(await self._table.lookup(domain))
        except TableError:
            return  # the next round will tell
        if old is not None and old.ageing(self._clock()):
            fetch = partial(self._fetch, domain, announced, old, use=False)
            await self._fetches.result(domain, fetch)
