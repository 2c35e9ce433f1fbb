"""The client of trivial-rewrite(8), with a cache.

Called by: smtpd, cleanup, qmgr, local, bounce. Asks: `private/rewrite`.

Answers are cached for a second. Requests for the same address at the same time share one exchange.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from libmail.ipc.batches import batches
from libmail.ipc.messages import (
    ResolvedMany,
    ResolveFlag,
    ResolveMany,
    ResolveReply,
    ResolveRequest,
    RewriteReply,
    RewriteRequest,
)
from libmail.net.cache import ExpiringCache
from libmail.service.pool import ServiceClient
from libmail.text.quoting import PLAIN_DOT_ATOM, quote_local

__all__ = ["RewriteClient"]

_FAIL: Final = int(ResolveFlag.FAIL)  # plain numbers, as it is once for each recipient
_ANY_SENDER: Final = int(ResolveFlag.ANY_SENDER)
_CACHE_SIZE: Final = 10_000
_AT_ONCE: Final = 500  # addresses in an exchange
_CACHE_LIFE: Final = 1.0  # a changed table is to be in force within 2 seconds
# What trivial-rewrite(8) leaves alone in every configuration: dot-atom@host.domain.
_COMPLETE: Final = re.compile(rf"{PLAIN_DOT_ATOM}@[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")

R = TypeVar("R")
Pair = tuple[str, str]


class RewriteClient:
    """`rewrite` and `resolve`, see trivial-rewrite(8). All raise ServiceUnavailable."""

    def __init__(
        self, pool: ServiceClient, *, size: int = _CACHE_SIZE, life: float = _CACHE_LIFE
    ) -> None:
        """pool: to `private/rewrite`. size: answers kept of each kind. life: seconds they serve."""
        self._pool = pool
        self._rewritten: ExpiringCache[Pair, str] = ExpiringCache(size, life)
        self._resolved: ExpiringCache[Pair, ResolveReply] = ExpiringCache(size, life)
        self._routes: ExpiringCache[str, ResolveReply] = ExpiringCache(size, life)  # of any sender
        self._rewriting: dict[Pair, list[asyncio.Future[str | None]]] = {}
        self._resolving: dict[Pair, list[asyncio.Future[ResolveReply | None]]] = {}

    async def rewrite(self, context: str, address: str) -> str:
        """The complete address in internal form; context: "local" or "remote".

        address: external form, as in a header or after RCPT TO.
        """
        if _COMPLETE.fullmatch(address):
            return address
        key = (context, address)
        known = self._rewritten.get(key)
        if known is not None:
            return known
        return await _shared(self._rewriting, key, self._ask_rewrite)

    async def _ask_rewrite(self, key: Pair) -> str:
        reply = await self._pool.call(RewriteRequest(*key), RewriteReply)
        self._rewritten.put(key, reply.address)
        return reply.address

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """Where mail from sender to address goes; both in internal form.

        An answer with the flag FAIL is not remembered.
        """
        known = self.known_route(sender, address)
        if known is not None:
            return known
        return await _shared(self._resolving, (sender, address), self._ask_resolve)

    async def resolve_probe(self, sender: str, address: str) -> ResolveReply:
        """As `resolve`, for a probe of verify(8); nothing is remembered."""
        return await self._pool.call(ResolveRequest(sender, address, probe=True), ResolveReply)

    async def resolve_completed(self, sender: str, address: str) -> ResolveReply:
        """As `resolve`, of an address that a client may have given without a full domain."""
        if not _COMPLETE.fullmatch(address):
            address = await self.rewrite("local", quote_local(address))
        return self.known_route(sender, address) or await self.resolve(sender, address)

    async def prefetch(self, sender: str, addresses: Iterable[str]) -> None:
        """Fill the cache of `resolve` for complete addresses; others are left out.

        An exchange for hundreds of addresses costs little more than one for a single address.
        """
        asked = {
            address: None
            for address in addresses
            if _COMPLETE.fullmatch(address) and self.known_route(sender, address) is None
        }
        for some in batches(tuple(asked), _AT_ONCE):
            reply = await self._pool.call(ResolveMany(sender, some), ResolvedMany)
            for address, answer in zip(some, reply.replies, strict=False):
                self._remember((sender, address), answer)

    def known_route(self, sender: str, address: str) -> ResolveReply | None:
        """The cached answer of `resolve`, None if there is none."""
        return self._routes.get(address) or self._resolved.get((sender, address))

    async def _ask_resolve(self, key: Pair) -> ResolveReply:
        reply = await self._pool.call(ResolveRequest(*key), ResolveReply)
        self._remember(key, reply)
        return reply

    def _remember(self, key: Pair, reply: ResolveReply) -> None:
        if reply.flags & _FAIL:
            return
        if reply.flags & _ANY_SENDER:
            self._routes.put(key[1], reply)
        else:
            self._resolved.put(key, reply)

    def clear(self) -> None:
        """Forget all answers."""
        self._rewritten.clear()
        self._resolved.clear()
        self._routes.clear()


async def _shared(
    waiting: dict[Pair, list["asyncio.Future[R | None]"]],
    key: Pair,
    ask: Callable[[Pair], Awaitable[R]],
) -> R:
    """Ask, or wait for the answer to the same question that somebody else has asked.

    waiting: who waits, by question. None wakes them when whoever asked has given up.
    """
    while (others := waiting.get(key)) is not None:
        future = asyncio.get_running_loop().create_future()
        others.append(future)
        told: R | None = await future
        if told is not None:
            return told
    others = waiting[key] = []
    answer: R | None = None
    try:
        answer = await ask(key)
    except Exception as err:
        for future in others:
            if not future.done():
                future.set_exception(err)
        raise
    finally:
        del waiting[key]
        for future in others:
            if not future.done():
                future.set_result(answer)
    return answer
