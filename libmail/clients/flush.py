"""The client of flush(8), and fast_flush_domains, the sites for which it keeps records.

Called by: smtpd, bounce (as defer). Asks: `public/flush`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from libmail.dns.hostname import valid_hostliteral, valid_hostname
from libmail.ipc.messages import FlushAdd, FlushReply, FlushSite, QueueId
from libmail.log import LOG
from libmail.service.pool import ServiceClient, ServicePool, ServiceUnavailable
from libmail.tables.match import DomainList
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["FlushClient", "FlushClientParams", "flush_domains", "is_site"]

_PATIENCE: Final = 10.0  # seconds to wait for a record, during which deliveries wait, too


@dataclass(frozen=True, slots=True)
class FlushClientParams:
    """The parameters of programs that use flush(8)."""

    fast_flush_domains: tuple[str, ...]
    flush_service_name: str
    ipc_timeout: float
    parent_domain_matches_subdomains: tuple[str, ...]
    smtputf8_enable: bool


def flush_domains(params: FlushClientParams) -> DomainList:
    """`fast_flush_domains`, opened; before the jail."""
    return DomainList(
        "fast_flush_domains",
        params.fast_flush_domains,
        TableOptions(log=LOG, utf8=params.smtputf8_enable),
        parent="fast_flush_domains" in params.parent_domain_matches_subdomains,
    )


def is_site(text: str) -> bool:
    """Whether the text is a host name or an address literal, as ETRN takes it (RFC 1985 §5.1)."""
    return valid_hostname(text) or valid_hostliteral(text)


class FlushClient:
    """Asks flush(8). domains: from `flush_domains`."""

    def __init__(self, params: FlushClientParams, domains: DomainList) -> None:
        path = f"public/{params.flush_service_name}"
        self._domains = domains
        self._sites: ServiceClient = ServicePool(path, timeout=params.ipc_timeout, wait=False)
        self._records: ServiceClient = ServicePool(
            path, timeout=min(_PATIENCE, params.ipc_timeout), wait=False
        )

    async def knows(self, site: str) -> bool:
        """Whether `fast_flush_domains` lists the site. Raises TableRetry."""
        return await self._domains.match(site)

    async def deferred(self, queue_id: QueueId, addresses: Iterable[str]) -> None:
        """Record a message as deferred for these recipients. A failure is logged, and harmless."""
        if not self._domains:
            return
        sites = {address.rpartition("@")[2].lower() for address in addresses if "@" in address}
        for site in sites:
            try:
                if is_site(site) and await self.knows(site):
                    await self._records.call(FlushAdd(site, queue_id), FlushReply)
            except (TableRetry, ServiceUnavailable) as err:
                LOG.warning(f"{queue_id}: not recorded as deferred for {site}: {err}")

    async def send_site(self, site: str) -> str:
        """Start delivery of the mail for a site. Returns "", or why not. Raises
        ServiceUnavailable."""
        return (await self._sites.call(FlushSite(site), FlushReply)).reason
