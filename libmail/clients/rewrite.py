"""Questions to trivial-rewrite(8), with a cache in front.

Called by: smtpd, cleanup, qmgr, local, bounce. Asks: `private/rewrite`.

An address costs an exchange once in a while, not once a message; the same question asked by many
at a time is one exchange.
"""

import asyncio
import re
from collections.abc import Coroutine, Iterable
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
        self._rewriting: dict[Pair, asyncio.Task[str]] = {}
        self._resolving: dict[Pair, asyncio.Task[ResolveReply]] = {}

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
        return await _shared(self._rewriting, key, self._ask_rewrite(key))

    async def _ask_rewrite(self, key: Pair) -> str:
        reply = await self._pool.call(RewriteRequest(*key), RewriteReply)
        self._rewritten.put(key, reply.address)
        return reply.address

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """Where mail from sender to address goes; both in internal form.

        An answer with the flag FAIL is not remembered.
        """
        key = (sender, address)
        known = self._resolved.get(key)
        if known is not None:
            return known
        return await _shared(self._resolving, key, self._ask_resolve(key))

    async def resolve_probe(self, sender: str, address: str) -> ResolveReply:
        """As `resolve`, for a probe of verify(8); nothing is remembered."""
        return await self._pool.call(ResolveRequest(sender, address, probe=True), ResolveReply)

    async def resolve_completed(self, sender: str, address: str) -> ResolveReply:
        """As `resolve`, of an address that a client may have given without a full domain."""
        complete = await self.rewrite("local", quote_local(address))
        return await self.resolve(sender, complete)

    async def prefetch(self, sender: str, addresses: Iterable[str]) -> None:
        """Have the answers of `resolve` for complete addresses; others are left out.

        An exchange for hundreds costs little more than one for a single address.
        """
        asked = {
            address: None
            for address in addresses
            if _COMPLETE.fullmatch(address) and self._resolved.get((sender, address)) is None
        }
        for some in batches(tuple(asked), _AT_ONCE):
            reply = await self._pool.call(ResolveMany(sender, some), ResolvedMany)
            for address, answer in zip(some, reply.replies, strict=False):
                if not answer.flags & ResolveFlag.FAIL:
                    self._resolved.put((sender, address), answer)

    def known_route(self, sender: str, address: str) -> ResolveReply | None:
        """What `resolve` would answer at once, without asking; None if it would have to ask."""
        return self._resolved.get((sender, address))

    async def _ask_resolve(self, key: Pair) -> ResolveReply:
        reply = await self._pool.call(ResolveRequest(*key), ResolveReply)
        if not reply.flags & ResolveFlag.FAIL:
            self._resolved.put(key, reply)
        return reply

    def clear(self) -> None:
        """Forget all answers."""
        self._rewritten.clear()
        self._resolved.clear()


async def _shared(
    running: dict[Pair, "asyncio.Task[R]"], key: Pair, question: Coroutine[object, object, R]
) -> R:
    """Await `question`, or the one of the same key that is on its way."""
    task = running.get(key)
    if task is not None:
        question.close()
        return await asyncio.shield(task)
    task = asyncio.get_running_loop().create_task(question)
    running[key] = task

    def done(finished: "asyncio.Task[R]") -> None:
        del running[key]
        if not finished.cancelled():
            finished.exception()  # whoever asked may have been cancelled

    task.add_done_callback(done)
    # The exchange is not cancelled with one of those who wait for it.
    return await asyncio.shield(task)
