"""Access tokens for logging in, from oauth2(8).

Called by: smtp, lmtp. Asks: `private/oauth2`.
"""

from typing import Final

from libmail.ipc.messages import TokenReply, TokenRequest
from libmail.service.pool import ServicePool, ServiceUnavailable

__all__ = ["NoToken", "TokenClient"]

_SOCKET: Final = "private/oauth2"
_PATIENCE: Final = 45.0  # seconds; longer than oauth2(8) waits for a token server


class NoToken(Exception):
    """There is no access token now. The text says why, and is printable."""


class TokenClient:
    """The client of oauth2(8) in a process."""

    def __init__(self) -> None:
        self._pool = ServicePool(_SOCKET, timeout=_PATIENCE, wait=False)

    async def token(self, account: str, rejected: str = "") -> str:
        """An access token. rejected: one that a server has refused. Raises NoToken."""
        try:
            reply = await self._pool.call(TokenRequest(account, rejected), TokenReply)
        except ServiceUnavailable as error:
            raise NoToken(str(error)) from None
        if not reply.token:
            raise NoToken(reply.reason)
        return reply.token
