"""mta-sts: - TLS policies that domains publish (RFC 8461), from the service mta-sts(8).

The keys are next hops, the values entries of smtp_tls_policy_maps. The table has no name.
"""

from __future__ import annotations

from typing import Final

from libmail.ipc.messages import TableLookup, TableReply, TableStatus
from libmail.net.cache import ExpiringCache
from libmail.sts.policy import policy_domain
from libmail.tables.servers.service import TableService
from libmail.tables.table import TableConfigError, TableOptions, refuse_sensitive

__all__ = ["MtaStsTable", "open_named"]

_SERVICE: Final = "mta-sts"
_NAME: Final = "mta-sts:"
_CACHE_SIZE: Final = 5000
_CACHE_LIFE: Final = 2.0  # seconds: of the deliveries that come together


class MtaStsTable:
    """The policies of all domains."""

    spec = _NAME
    pattern = True

    def __init__(self, options: TableOptions) -> None:
        self._service = TableService(_NAME, _NAME, _SERVICE, options, wait=False)
        self._known: ExpiringCache[str, TableReply] = ExpiringCache(_CACHE_SIZE, _CACHE_LIFE)

    async def lookup(self, key: str) -> str | None:
        """The policy for a next hop, which may have brackets and a port. Raises TableRetry."""
        domain = policy_domain(key)
        if not domain:
            return None
        reply = self._known.get(domain)
        if reply is None:
            reply = await self._service.ask(TableLookup(_NAME, domain))
            self._known.put(domain, reply)
        return reply.value if reply.status == TableStatus.OK else None

    def close(self) -> None:
        """Close the connections."""
        self._service.close()


def open_named(kind: str, name: str, options: TableOptions) -> MtaStsTable:
    """Open the table. Raises TableConfigError."""
    if name:
        raise TableConfigError(f"{kind}:{name}: a table of this type has no name")
    refuse_sensitive(_NAME, options)
    return MtaStsTable(options)
