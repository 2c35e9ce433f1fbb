"""Asking a token server: for access tokens (RFC 6749 §6), and for consent (RFC 8628)."""

from __future__ import annotations

from typing import Final

from libmail.net.http import HttpError, Response, Url
from libmail.net.https import HttpsClient
from libmail.oauth.account import Account, AccountError
from libmail.oauth.answers import Device, Tokens, Trouble, Why, parse_device, parse_tokens

__all__ = ["TokenEndpoint"]

_PATIENCE: Final = 20.0  # seconds for a request
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"


class TokenEndpoint:
    """The token server of an account. Made before the jail: it reads certificates.

    Methods raise Trouble.
    """

    def __init__(self, account: Account, agent: str) -> None:
        """agent: our name. Raises AccountError."""
        self._account = account
        try:
            self._client = HttpsClient(agent, _PATIENCE, account.authorities)
        except OSError as error:
            where = account.authorities or "authorities of the system"
            raise AccountError(f"{account.name}: {where}: {error.strerror}") from None

    async def refresh(self, token: str) -> Tokens:
        """New tokens for a refresh token."""
        account = self._account
        scope = {"scope": account.scope} if account.scope else {}
        fields = {"grant_type": "refresh_token", "refresh_token": token, **scope}
        response = await self._post(account.token, {**fields, **account.identity()})
        return parse_tokens(response, (token, account.client_secret))

    async def device(self) -> Device:
        """Codes, with which somebody can agree elsewhere."""
        account = self._account
        if account.device is None:
            raise Trouble(Why.REFUSED, "the account has no device_endpoint")
        fields = {"client_id": account.client_id, "scope": account.scope}
        return parse_device(await self._post(account.device, fields), (account.client_secret,))

    async def agreed(self, device: Device) -> Tokens:
        """The tokens, once somebody has agreed; until then Trouble of kind PENDING or SLOWER."""
        account = self._account
        fields = {"grant_type": _DEVICE_GRANT, "device_code": device.code, **account.identity()}
        response = await self._post(account.token, fields)
        return parse_tokens(response, (device.code, account.client_secret))

    async def _post(self, url: Url, fields: dict[str, str]) -> Response:
        try:
            return await self._client.post(url, fields)
        except HttpError as error:
            raise Trouble(Why.BROKEN, str(error)) from None
