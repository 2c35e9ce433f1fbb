"""qmgr(8): the queue manager, the one process that decides when mail is delivered.

Called by: cleanup (NewMail), showq and flush (QueueFlush), master and postkick(1) (trigger bytes).
Asks: trivial-rewrite where each recipient goes; the delivery agents on `private/<transport>` to
deliver. Writes: moves files between incoming, active, deferred and corrupt, and removes them.
Tells: bounce, defer and trace to send their reports. Needs: the queue directories, `private/`; no
network.

The queue belongs to one qmgr, that of `queue_service_name`. master.cf may have others, for the mail
of cleanup services with `-o queue_service_name=...`: they deliver what is announced to them, and
leave all else, also what they defer, to the first.
"""

import asyncio
import fcntl
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from daemons.qmgr.agents import AgentTimes
from daemons.qmgr.backoff import Backoff
from daemons.qmgr.clog import ClogWarnings
from daemons.qmgr.closing import Closing, ReportServices
from daemons.qmgr.intake import IntakeRules
from daemons.qmgr.manager import ManagerRules, QueueManager
from daemons.qmgr.params import LimitsCache, QmgrParams
from daemons.qmgr.requests import RequestConnection, RequestHandlers
from daemons.qmgr.routing import RoutingRules
from daemons.qmgr.scheduler import Scheduler
from daemons.qmgr.store import Store
from libmail.clients.rewrite import RewriteClient
from libmail.config import ServiceEntry, read_master_cf
from libmail.log import LOG
from libmail.lookup.authorization import AuthorizedUsers
from libmail.queue.directory import QueueDirectory
from libmail.queue.spare import SpareFiles
from libmail.service.pool import ServicePool
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.service.user_limits import FIRST_MESSAGE, UserConnections
from libmail.tables.table import TableOptions

__all__ = ["SERVICE", "backoff_of"]

_PROGRAMS: Final = ("qmgr", "oqmgr")
_RETRY: Final = "retry"  # the service that defers; its name is no parameter
_LOCK_RETRY: Final = 0.05
_STOP_GRACE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known before the jail. owner: whether the queue belongs to this service."""

    params: QmgrParams
    owner: bool
    limits: LimitsCache
    flushers: AuthorizedUsers


def prepare(startup: Startup) -> Prepared:
    """Read the parameters, those of every possible transport too, so that a bad one is fatal."""
    limits = LimitsCache(startup.config)
    entries = read_master_cf(startup.config.directory)
    for entry in entries:
        if entry.type == "unix":
            limits[entry.name]
    params = startup.config.load(QmgrParams)
    flushers = AuthorizedUsers(
        "authorized_flush_users",
        params.authorized_flush_users,
        "flush the mail queue",
        TableOptions.of(startup.config),
    )
    owner = startup.service == _owner(entries, params.queue_service_name)
    return Prepared(params, owner, limits, flushers)


def _owner(entries: Sequence[ServiceEntry], announced: str) -> str:
    """The service that owns the queue: the one that is told of new mail, else the first."""
    names = [entry.name for entry in entries if entry.command in _PROGRAMS]
    return announced if announced in names or not names else names[0]


def backoff_of(params: QmgrParams) -> Backoff:
    """When to try again, and for how long: reports for no longer than other mail."""
    lifetime, bounce_lifetime = params.maximal_queue_lifetime, params.bounce_queue_lifetime
    if bounce_lifetime > lifetime:
        LOG.warning(
            "bounce_queue_lifetime is larger than maximal_queue_lifetime"
            " - adjusting bounce_queue_lifetime"
        )
    return Backoff(
        minimal=params.minimal_backoff_time,
        maximal=params.maximal_backoff_time,
        lifetime=lifetime,
        bounce_lifetime=min(bounce_lifetime, lifetime),
    )


def _rules(params: QmgrParams, *, owner: bool) -> ManagerRules:
    return ManagerRules(
        intake=IntakeRules(
            active_limit=params.qmgr_message_active_limit,
            recipient_limit=params.qmgr_message_recipient_limit,
            recipient_minimum=params.qmgr_message_recipient_minimum,
            retry_delay=params.minimal_backoff_time,
            scans=owner,
        ),
        confirm_cleared=params.confirm_delay_cleared,
        feedback_debug=params.destination_concurrency_feedback_debug,
        agent_times=AgentTimes(
            idle=params.ipc_idle,
            life=params.ipc_ttl,
            greeting=params.qmgr_daemon_timeout,
            answer=params.daemon_timeout,
        ),
    )


def _manager(prepared: Prepared, runtime: Runtime) -> QueueManager:
    params, limits = prepared.params, prepared.limits
    directory = QueueDirectory(frozenset(params.hash_queue_names), params.hash_queue_depth)

    def pool(name: str) -> ServicePool:
        return ServicePool(
            f"private/{name}", idle=params.ipc_idle, life=params.ipc_ttl, timeout=params.ipc_timeout
        )

    store = Store(directory, SpareFiles(params.queue_file_reuse_limit))
    services = ReportServices(
        bounce=pool(params.bounce_service_name),
        defer=pool(params.defer_service_name),
        trace=pool(params.trace_service_name),
        verify=pool(params.address_verify_service_name),
    )
    return QueueManager(
        rules=_rules(params, owner=prepared.owner),
        routing=RoutingRules(
            error_transport=params.error_service_name,
            retry_transport=_RETRY,
            default_filter_nexthop=params.default_filter_nexthop,
            defer_transports=frozenset(params.defer_transports),
            double_bounce_sender=params.double_bounce_sender,
            recipient_delimiter=params.recipient_delimiter,
            limits=limits.__getitem__,
        ),
        scheduler=Scheduler(
            limits.__getitem__,
            dead_time=params.minimal_backoff_time,
            retry_time=params.transport_retry_time,
            dead_limit=params.qmgr_message_recipient_limit,
        ),
        store=store,
        resolver=RewriteClient(pool(params.rewrite_service_name)),
        closing=Closing(store, services, backoff_of(params)),
        clogs=ClogWarnings(
            params.qmgr_message_active_limit,
            params.qmgr_clog_warn_time if params.helpful_warnings else 0,
        ),
        spawn=runtime.spawn,
    )


async def _own_queue() -> None:
    """Wait until no other queue manager is at work: the one before this may still be ending."""
    folder = os.open("active", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(_LOCK_RETRY)
        else:
            return  # the lock lasts as long as the process, and so does the descriptor


async def start(prepared: Prepared, runtime: Runtime) -> Handlers:
    """Serve until the generation ends."""
    manager = _manager(prepared, runtime)
    clients: set[RequestConnection] = set()
    loop = asyncio.get_running_loop()

    users = UserConnections("qmgr")

    def ended(client: RequestConnection) -> None:
        if client in clients and not client.trusted:
            users.leave(client.uid)
        clients.discard(client)
        runtime.session_ended()

    handlers = RequestHandlers(
        manager.intake.new_mail,
        manager.flush,
        manager.trigger,
        ended,
        prepared.flushers.refusal,
        spawn=runtime.spawn,
    )

    def stream(sock: socket.SocketType) -> asyncio.Protocol:
        client = RequestConnection(sock, handlers)
        if client.trusted:
            clients.add(client)
        elif client.uid not in runtime.network and users.admit(client.uid):
            clients.add(client)
            loop.call_later(FIRST_MESSAGE, client.expire)
        else:
            client.refused = True
        return client

    async def run() -> None:
        if prepared.owner:
            await _own_queue()
        manager.begin()
        # What the process before this was told as it ended, it may not have read.
        asyncio.get_running_loop().call_later(_STOP_GRACE + 1, manager.trigger, "I")
        while True:
            manager.trigger("D")
            await asyncio.sleep(prepared.params.queue_run_delay)

    async def retire() -> None:
        await runtime.retiring.wait()
        for client in list(clients):  # they connect to the next generation
            client.close()

    async def drain() -> None:
        await manager.stop(_STOP_GRACE)

    runtime.spawn(run())
    runtime.spawn(retire())
    LOG.debug("started")
    return Handlers(stream=stream, drain=drain)


SERVICE: Final = Service("qmgr", prepare, start, permanent=True)
