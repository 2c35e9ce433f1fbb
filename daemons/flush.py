"""flush(8): knows which messages were deferred for a site, and has them delivered on request.

called by: defer (FlushAdd), smtpd and postqueue (FlushSite), master (wake-up). asks:
authorized_flush_users. writes: flush/. tells: qmgr (QueueFlush). needs: mail_owner, the queue.

Only sites that `fast_flush_domains` lists have records. A request for one goes to qmgr for each
message that waits for it, and for no other mail; qmgr then tries these although their destination
was found dead or their transport is in `defer_transports`. A wake-up tidies all records.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from libmail.clients.flush import FlushClientParams, flush_domains, is_site
from libmail.ipc.codec import WireError
from libmail.ipc.messages import FlushAdd, FlushReply, FlushSite, QueueFlush, QueueId
from libmail.log import LOG
from libmail.lookup.authorization import AuthorizedUsers
from libmail.queue.directory import QueueDirectory
from libmail.queue.ids import is_queue_id
from libmail.queue.sites import SiteRecords
from libmail.service.connection import Connection, Trigger
from libmail.service.exchanges import exchanges
from libmail.service.pool import ServiceClient, ServicePool, ServiceUnavailable
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.tables.match import DomainList
from libmail.tables.table import TableRetry

__all__ = ["SERVICE", "FlushParams", "Flusher", "Prepared"]

_DOWN: Final = "Cannot flush mail queue - mail system is down"


@dataclass(frozen=True, slots=True)
class FlushParams:
    """Parameters of flush(8), besides those of its clients. Times in seconds."""

    authorized_flush_users: str
    fast_flush_purge_time: float
    fast_flush_refresh_time: float
    hash_queue_depth: int
    hash_queue_names: tuple[str, ...]
    ipc_timeout: float
    queue_service_name: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is read and opened before the jail."""

    params: FlushParams
    users: AuthorizedUsers
    domains: DomainList


def _prepare(startup: Startup) -> Prepared:
    params = startup.config.load(FlushParams)
    users = AuthorizedUsers(
        "authorized_flush_users", params.authorized_flush_users, "flush the mail queue"
    )
    return Prepared(params, users, flush_domains(startup.config.load(FlushClientParams)))


class Flusher:
    """Answers requests. trusted: the users that are the mail system; qmgr: to ask for delivery."""

    def __init__(
        self,
        prepared: Prepared,
        trusted: frozenset[int],
        qmgr: ServiceClient,
        network: frozenset[int] = frozenset(),
    ) -> None:
        """trusted: users that are the mail system. network: those who ask for clients (ETRN)."""
        params = prepared.params
        self._params = params
        self._users = prepared.users
        self._domains = prepared.domains
        self._trusted = trusted
        self._network = network
        self._qmgr = qmgr
        self._records = SiteRecords(
            QueueDirectory(frozenset(params.hash_queue_names), params.hash_queue_depth)
        )

    async def serve(self, connection: Connection) -> None:
        """Exchanges on one connection. A user may only ask for the delivery of a site's mail."""
        while True:
            request = await connection.receive()
            uid = connection.credentials.uid
            if isinstance(request, FlushSite):
                connection.send(FlushReply(await self.send_site(request.site, uid)))
            elif uid not in self._trusted:
                raise WireError(f"unexpected {type(request).__name__} from user id {uid}")
            elif isinstance(request, FlushAdd):
                connection.send(FlushReply(self.add(request.site, request.queue_id)))
            elif isinstance(request, Trigger):
                await self.tidy(time.time())
            else:
                raise WireError(f"unexpected {type(request).__name__}")

    def add(self, site: str, queue_id: QueueId) -> str:
        """Remember a message of a site. Returns "" or what is wrong."""
        if not is_site(site) or not is_queue_id(queue_id):
            return f"bad record: {site[:80]!r} {queue_id[:80]!r}"
        try:
            self._records.add(site, queue_id)
        except OSError as err:
            LOG.warning(f"{queue_id}: write {self._records.path(site)}: {err.strerror}")
            return err.strerror or "write error"
        return ""

    async def send_site(self, site: str, uid: int) -> str:
        """Have the mail of a site delivered for a user of this number. Returns "" or why not."""
        if not is_site(site):
            return f'Cannot flush mail queue - invalid destination: "{site}"'
        refusal = "" if uid in self._network else await self._users.refusal(uid)
        if refusal:
            return refusal
        try:
            if not await self._domains.match(site):
                return f'Flush service is not configured for destination "{site}"'
            queue_ids = deque(self._records.take(site))
        except TableRetry as err:
            LOG.warning(f"fast_flush_domains: {err}")
            return "Cannot flush mail queue - temporary lookup failure"
        except OSError as err:
            LOG.warning(f"read {self._records.path(site)}: {err.strerror}")
            return f"Cannot flush mail queue - {err.strerror}"
        return await self._deliver(site, queue_ids)

    async def _deliver(self, site: str, queue_ids: deque[QueueId]) -> str:
        try:
            while queue_ids:
                await self._qmgr.call(QueueFlush(queue_ids[0]), FlushReply)
                queue_ids.popleft()
        except ServiceUnavailable as err:
            LOG.warning(f"flush {site}: {err}")
            for queue_id in queue_ids:
                self.add(site, queue_id)
            return _DOWN
        return ""

    async def tidy(self, now: float) -> None:
        """Look through the records that were not asked for in a long time."""
        params = self._params
        for path in self._records.paths():
            try:
                self._records.tidy(
                    path,
                    now,
                    refresh=params.fast_flush_refresh_time,
                    purge=params.fast_flush_purge_time,
                )
            except OSError as err:
                LOG.warning(f"tidy {path}: {err.strerror}")
            await asyncio.sleep(0)


async def _start(prepared: Prepared, runtime: Runtime) -> Handlers:
    params = prepared.params
    qmgr = ServicePool(
        f"public/{params.queue_service_name}", timeout=params.ipc_timeout, wait=False
    )
    flusher = Flusher(prepared, runtime.trusted, qmgr, runtime.network)
    return Handlers(stream=exchanges(runtime, flusher.serve, network=True, anyone=True))


SERVICE: Final = Service("flush", _prepare, _start)
