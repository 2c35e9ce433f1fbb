"""Asking verify(8) whether an address takes mail, and telling it what a probe has found.

Called by: smtpd (restrictions), delivery agents. Asks: `private/verify`.
"""

from libmail.ipc.messages import VerifyQuery, VerifyReply, VerifyUpdate
from libmail.lookup.verification import VerifyQuestion
from libmail.service.pool import ServiceClient

__all__ = ["VerifyClient"]


class VerifyClient:
    """All raise ServiceUnavailable."""

    def __init__(self, pool: ServiceClient) -> None:
        self._pool = pool

    async def ask(self, question: VerifyQuestion) -> VerifyReply:
        """What is known of an address. What is not, will be tried."""
        return await self._pool.call(VerifyQuery(question.key), VerifyReply)

    async def tell(self, address: str, status: int, text: str) -> None:
        """The outcome of a probe; status: AddressStatus."""
        await self._pool.call(VerifyUpdate(address, status, text), VerifyReply)
