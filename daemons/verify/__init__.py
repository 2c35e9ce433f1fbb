"""verify(8): whether addresses take mail, from a cache or by trying (ADDRESS_VERIFICATION_README).

called by: smtpd (VerifyQuery), delivery agents and qmgr (VerifyUpdate). asks: nobody. writes: the
table address_verify_map. tells: cleanup (a probe: a message that is routed, but never delivered).
needs: mail_owner.

Only results are in the table (`entry`); its entries are those of Postfix, whose caches can be taken
over. What is being tried is in memory (`verifier`), for a limited time and up to a limit, so that
no client can fill queue or cache with questions. A good result is used until it expires, and
tried again in the background before; a failed attempt does not replace it.

Who asks about an address that is being tried waits for the outcome, as long as he says, and has it
as soon as the delivery agent has told it; Postfix's clients ask again every few seconds. The table
is written behind, many results at a time (`results`): neither questions nor agents wait for that.
"""

from dataclasses import dataclass, replace
from typing import Final

from daemons.verify.verifier import Verifier, VerifyParams
from libmail.clients.cleanup import CleanupClient
from libmail.service.exchanges import exchanges
from libmail.service.pool import ServicePool
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.tables.builtin.internal import InternalTable
from libmail.tables.registry import open_writable
from libmail.tables.table import TableOptions, WritableTable

__all__ = ["SERVICE"]


@dataclass(frozen=True, slots=True)
class _Prepared:
    params: VerifyParams
    table: WritableTable


def _prepare(startup: Startup) -> _Prepared:
    """Read the parameters and open the cache; without one it is in memory."""
    params = startup.config.load(VerifyParams)
    options = replace(TableOptions.of(startup.config), fold=False, strict=True)
    if not params.address_verify_map:
        return _Prepared(params, InternalTable("internal:verify", options))
    return _Prepared(params, open_writable(params.address_verify_map, options))


async def _start(prepared: _Prepared, runtime: Runtime) -> Handlers:
    params = prepared.params
    pool = ServicePool(f"public/{params.cleanup_service_name}", timeout=params.ipc_timeout)
    verifier = Verifier(params, prepared.table, CleanupClient(pool, timeout=params.ipc_timeout))
    runtime.spawn(verifier.tidy_for_ever())
    return Handlers(
        stream=exchanges(runtime, verifier.serve, network=True), drain=verifier.results.written
    )


SERVICE: Final = Service("verify", _prepare, _start, permanent=True)
