"""The client of verify(8): whether addresses take mail.

Called by: smtpd (restrictions). Asks: `private/verify`. All sessions of a process ask over one
connection, where an answer may take as long as a probe does. An answer is used for a second: mail
for one address comes in crowds, and what an administrator removes from the cache is gone soon.

Delivery agents and qmgr tell verify(8) of outcomes by themselves, with VerifyUpdate.
"""

import asyncio
from typing import Final, TypeAlias

from libmail.ipc.messages import CODEC, AddressStatus, VerifyQuery, VerifyReply
from libmail.lookup.verification import VerifyQuestion
from libmail.net.cache import ExpiringCache
from libmail.service.link import Link, open_link
from libmail.service.pool import ServiceUnavailable

__all__ = ["VerifyClient"]

_TODO: Final = int(AddressStatus.TODO)
_KEPT: Final = 10_000
_LIFE: Final = 1.0  # seconds

_Link: TypeAlias = Link[VerifyReply]


class VerifyClient:
    """Asks verify(8). path: of its socket. timeout: `ipc_timeout`, seconds for an answer that is
    there."""

    def __init__(self, path: str, *, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._link: _Link | None = None
        self._opening = asyncio.Lock()
        self._number = 0
        self._known: ExpiringCache[str, VerifyReply] = ExpiringCache(_KEPT, _LIFE)

    async def ask(self, question: VerifyQuestion) -> VerifyReply:
        """The status of an address. If it is not known, verify(8) starts a probe.

        Raises ServiceUnavailable.
        """
        known = self._known.get(question.key)
        if known is not None:
            return known
        link = self._link
        reply = None
        if link is not None and link.usable:
            reply = await self._exchange(link, question)
        if reply is None:  # or the process has retired, and there is another one
            reply = await self._exchange(await self._open(), question)
        if reply is None:
            raise ServiceUnavailable(f"{self._path}: lost connection")
        if reply.status != _TODO:
            self._known.put(question.key, reply)
        return reply

    async def _exchange(self, link: _Link, question: VerifyQuestion) -> VerifyReply | None:
        """The answer, None if the connection is lost. Raises ServiceUnavailable."""
        answer: asyncio.Future[VerifyReply | None] = asyncio.get_running_loop().create_future()

        def take(reply: VerifyReply | None) -> None:
            if not answer.done():
                answer.set_result(reply)

        self._number += 1
        query = VerifyQuery(question.key, self._number, question.wait)
        link.ask(self._number, CODEC.encode(query), take)
        try:
            async with asyncio.timeout(question.wait + self._timeout):
                return await answer
        except TimeoutError:
            link.close()
            raise ServiceUnavailable(f"{self._path}: no answer in time") from None

    async def _open(self) -> _Link:
        async with self._opening:
            if self._link is None or not self._link.usable:
                link = Link("verify", VerifyReply, lambda _: False, lambda _: None)
                try:
                    await open_link(self._path, link, self._timeout)
                except OSError as error:
                    raise ServiceUnavailable(
                        f"connect to {self._path}: {error.strerror}"
                    ) from error
                self._link = link
            return self._link

    def close(self) -> None:
        """Give up the connection."""
        if self._link is not None:
            self._link.close()
