"""The client of verify(8): the status of an address, and results of probes.

Called by: smtpd (restrictions), delivery agents (results). Asks: `private/verify`.
"""

from libmail.ipc.messages import VerifyQuery, VerifyReply, VerifyUpdate
from libmail.lookup.verification import VerifyQuestion
from libmail.service.pool import ServiceClient

__all__ = ["VerifyClient"]


class VerifyClient:
    """Asks verify(8). All methods raise ServiceUnavailable."""

    def __init__(self, pool: ServiceClient) -> None:
        self._pool = pool

    async def ask(self, question: VerifyQuestion) -> VerifyReply:
        """The status of an address. If it is not known, verify(8) starts a probe."""
        return await self._pool.call(VerifyQuery(question.key), VerifyReply)

    async def tell(self, address: str, status: int, text: str) -> None:
        """Report the result of a probe. status: AddressStatus."""
        await self._pool.call(VerifyUpdate(address, status, text), VerifyReply)
