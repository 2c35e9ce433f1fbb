"""mta-sts(8): the TLS policies that domains publish (MTA-STS, RFC 8461), fetched and kept.

called by: smtp, lmtp, postmap (TableLookup, by a table `mta-sts:`), master (wake-up). asks: name
servers, and web servers of domains, by HTTPS. writes: the table mta_sts_cache_map. tells: nobody.
needs: the real file system (DNS, certificates); after its jail it opens nothing but these.

master runs it without a line in master.cf, where a table `mta-sts:` is used. What is decided about
a domain is in `policies.py`.
"""

import ssl
from dataclasses import dataclass, replace
from typing import Final

from daemons.mta_sts.policies import Policies
from libmail.dns.resolver import Resolver
from libmail.ipc.codec import WireError
from libmail.ipc.messages import TableLookup, TableReply, TableStatus
from libmail.log import Fatal
from libmail.lookup.peer import protocols_of
from libmail.net.https import HttpsClient
from libmail.service.connection import Connection, Trigger
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.sts.fetch import PolicyFetcher, parse_networks
from libmail.sts.policy import policy_domain
from libmail.tables.builtin.internal import InternalTable
from libmail.tables.registry import open_writable
from libmail.tables.table import TableError, TableFailed, TableOptions, WritableTable

__all__ = ["SERVICE", "serve"]

_TABLE: Final = "mta-sts:"


@dataclass(frozen=True, slots=True)
class StsParams:
    """See postconf(5)."""

    inet_protocols: tuple[str, ...]
    mail_name: str
    mta_sts_authorities: str
    mta_sts_cache_map: str
    mta_sts_fetch_limit: int
    mta_sts_fetch_timeout: float
    mta_sts_private_networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Prepared:
    params: StsParams
    fetcher: PolicyFetcher
    table: WritableTable


def _prepare(startup: Startup) -> _Prepared:
    """Read certificates, and open the cache; without one it is in memory. Raises Fatal."""
    params = startup.config.load(StsParams)
    options = replace(TableOptions.of(startup.config), fold=False, strict=True)
    if params.mta_sts_cache_map:
        table = open_writable(params.mta_sts_cache_map, options)
    else:
        table = InternalTable("internal:mta-sts", options)
    return _Prepared(params, _fetcher(params), table)


def _fetcher(params: StsParams) -> PolicyFetcher:
    try:
        networks = parse_networks(params.mta_sts_private_networks)
    except ValueError as error:
        raise Fatal(f"mta_sts_private_networks: {error}") from None
    try:
        client = HttpsClient(
            params.mail_name, params.mta_sts_fetch_timeout, params.mta_sts_authorities
        )
    except OSError as error:
        reason = "no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise Fatal(f"mta_sts_authorities: {params.mta_sts_authorities}: {reason}") from None
    return PolicyFetcher(Resolver(), client, protocols_of(params.inet_protocols), networks)


async def serve(policies: Policies, connection: Connection) -> None:
    """Exchanges on one connection."""
    while True:
        match await connection.receive():
            case TableLookup(table, key):
                connection.send(await _reply(policies, table, key))
            case Trigger():
                policies.refresh()
            case other:
                raise WireError(f"unexpected {type(other).__name__}")


async def _reply(policies: Policies, table: str, key: str) -> TableReply:
    if table != _TABLE:
        return TableReply(TableStatus.DENY, "there is no such table")
    domain = policy_domain(key)
    if not domain:
        return TableReply(TableStatus.NOKEY, "")
    try:
        entry = await policies.entry(domain)
    except TableError as error:
        reason = error.reason if isinstance(error, TableFailed) else str(error)
        return TableReply(TableStatus.RETRY, reason)
    return TableReply(TableStatus.NOKEY if entry is None else TableStatus.OK, entry or "")


async def _start(prepared: _Prepared, runtime: Runtime) -> Handlers:
    params = prepared.params
    policies = Policies(
        prepared.fetcher,
        prepared.table,
        limit=params.mta_sts_fetch_limit,
        patience=params.mta_sts_fetch_timeout,
    )

    async def session(connection: Connection) -> None:
        await serve(policies, connection)

    return Handlers(stream=exchanges(runtime, session, network=True))


SERVICE: Final = Service("mta-sts", _prepare, _start, permanent=True, network=True)
