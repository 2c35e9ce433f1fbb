"""Which destinations must not get mail in the clear: without TLS, it has to wait."""

from typing import Final

from daemons.smtp.settings import SmtpParams
from libmail.tables.maps import Maps

__all__ = ["NO_TLS", "Secrecy"]

NO_TLS: Final = "TLS is required, but our TLS engine is unavailable"
_CLEAR: Final = frozenset({"none", "may", "dane"})  # security levels that fall back to no TLS


class Secrecy:
    """Decides by smtp_tls_security_level, smtp_enforce_tls and smtp_tls_policy_maps."""

    def __init__(self, params: SmtpParams, policy_maps: Maps) -> None:
        self._maps = policy_maps
        level = params.smtp_tls_security_level.lower()
        self._always = level not in _CLEAR if level else params.smtp_enforce_tls

    def __bool__(self) -> bool:
        """Whether there may be such a destination."""
        return self._always or bool(self._maps)

    async def demands_tls(self, nexthop: str) -> bool:
        """For one destination, as the transport or relayhost gives it. Raises TableRetry."""
        if not self._maps:
            return self._always
        for key in _keys(nexthop.lower()):
            found = await self._maps.find(key)
            if found is not None:
                level = found.replace(",", " ").split()[:1]
                return not level or level[0].lower() not in _CLEAR
        return self._always


def _keys(nexthop: str) -> list[str]:
    """The destination, and for a domain its parents with a leading dot."""
    keys = [nexthop]
    if not nexthop.startswith("["):
        position = nexthop.find(".", 1)
        while position > 0:
            keys.append(nexthop[position:])
            position = nexthop.find(".", position + 1)
    return keys
