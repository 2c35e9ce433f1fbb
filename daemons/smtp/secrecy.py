"""What level of TLS a destination is to have, and which must not get mail in the clear: without
TLS, it has to wait."""

from typing import Final

from daemons.smtp.settings import SmtpParams
from libmail.tables.maps import Maps

__all__ = ["NO_TLS", "Secrecy", "is_mandatory", "tls_status"]

NO_TLS: Final = "TLS is required, but our TLS engine is unavailable"
_CLEAR: Final = frozenset({"none", "may", "dane"})  # security levels that fall back to no TLS


def is_mandatory(level: str) -> bool:
    """Whether mail must not go out in the clear."""
    return level not in _CLEAR


def tls_status(level: str, actual: str | None) -> str:
    """As a delivery's log line has it: the level that was wanted, and the one that it came to.

    actual: None while that is not known, as the server has not been heard.
    """
    if actual is None:
        return f"{level}?"
    return level if actual == level else f"{level}:{actual}"


class Secrecy:
    """Decides by smtp_tls_security_level, smtp_enforce_tls and smtp_tls_policy_maps."""

    def __init__(self, params: SmtpParams, policy_maps: Maps) -> None:
        self._maps = policy_maps
        level = params.smtp_tls_security_level.lower()
        self._usual = level or ("encrypt" if params.smtp_enforce_tls else "none")

    def __bool__(self) -> bool:
        """Whether there may be a destination that must not get mail in the clear."""
        return is_mandatory(self._usual) or bool(self._maps)

    async def level(self, nexthop: str) -> str:
        """For one destination, as the transport or relayhost gives it. Raises TableRetry."""
        if not self._maps:
            return self._usual
        for key in _keys(nexthop.lower()):
            found = await self._maps.find(key)
            if found is not None:
                words = found.replace(",", " ").split()
                return words[0].lower() if words else "encrypt"
        return self._usual


def _keys(nexthop: str) -> list[str]:
    """The destination, and for a domain its parents with a leading dot."""
    keys = [nexthop]
    if not nexthop.startswith("["):
        position = nexthop.find(".", 1)
        while position > 0:
            keys.append(nexthop[position:])
            position = nexthop.find(".", position + 1)
    return keys
