"""Where the recipients of a message go: the answer of trivial-rewrite(8) for each, then groups of
recipients with one destination, for the scheduler."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from daemons.qmgr.deliveries import Deliveries
from daemons.qmgr.jobs import Transport
from daemons.qmgr.message import Message
from daemons.qmgr.reports import log_status
from daemons.qmgr.routing import (
    RESOLVER_FAILURE,
    Discard,
    Route,
    RoutingRules,
    needs_resolver,
    route,
)
from daemons.qmgr.scheduler import Scheduler
from daemons.qmgr.store import Store
from libmail.ipc.messages import DsnNotify, Nexthop, Recipient, ResolveReply
from libmail.ipc.messages import Transport as TransportName
from libmail.log import LOG
from libmail.queue.file import QueueFileCorrupt
from libmail.service.pool import ServiceUnavailable

__all__ = ["Assigner", "Resolver"]

_SUCCESS: Final = DsnNotify.SUCCESS.value  # a plain number: the operators of IntFlag are slow


class Resolver(Protocol):
    """See `libmail.clients.rewrite.RewriteClient`."""

    def known_route(self, sender: str, address: str) -> ResolveReply | None:
        """The answer, if it is known."""

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """The answer. Raises ServiceUnavailable."""

    async def resolve_probe(self, sender: str, address: str) -> ResolveReply:
        """The answer for a probe of verify(8). Raises ServiceUnavailable."""

    async def prefetch(self, sender: str, addresses: Iterable[str]) -> None:
        """Have the answers for many, if that can be. Raises ServiceUnavailable."""


class Assigner:
    """check_done: told when a message may be complete. spawn: runs a task that must not fail."""

    def __init__(
        self,
        *,
        routing: RoutingRules,
        scheduler: Scheduler,
        deliveries: Deliveries,
        store: Store,
        resolver: Resolver,
        check_done: Callable[[Message], None],
        spawn: Callable[[Coroutine[object, object, object]], object],
    ) -> None:
        self._routing = routing
        self._scheduler = scheduler
        self._deliveries = deliveries
        self._store = store
        self._resolver = resolver
        self._check_done = check_done
        self._spawn = spawn

    def assign(self, message: Message, recipients: list[Recipient]) -> None:
        """Find the routes, at once if they are known."""
        if message.reported:
            message.deferred = True
            recipients = [one for one in recipients if one.offset not in message.reported]
        if not recipients:
            self._check_done(message)
            return
        if message.envelope.redirect:
            recipients = self._redirect(message, recipients)
        replies = self._known_routes(message, recipients)
        if None in replies and needs_resolver(message):
            self._scheduler.counts.held(message)  # the message does not end while this goes on
            self._spawn(self._resolve(message, recipients, replies))
        else:
            self._assigned(message, recipients, replies)

    def _known_routes(
        self, message: Message, recipients: list[Recipient]
    ) -> list[ResolveReply | None]:
        """Of each recipient, None where it is not known, or where nobody needs to know."""
        if message.probe or not needs_resolver(message):
            return [None] * len(recipients)
        sender, known_route = message.envelope.sender, self._resolver.known_route
        return [known_route(sender, recipient.address) for recipient in recipients]

    def _redirect(self, message: Message, recipients: list[Recipient]) -> list[Recipient]:
        """A REDIRECT action: one recipient gets the message, in place of all."""
        keep = 0 if message.redirected else 1
        message.redirected = True
        self._mark_done(message, recipients[keep:])
        address = message.envelope.redirect
        return [recipient._replace(address=address) for recipient in recipients[:keep]]

    def _mark_done(self, message: Message, recipients: Sequence[Recipient]) -> None:
        if not recipients:
            return
        try:
            self._store.mark_done(message, recipients)
        except (OSError, QueueFileCorrupt) as err:
            LOG.warning(f"{message.queue_id}: update queue file: {err}")
            message.deferred = True

    async def _resolve(
        self,
        message: Message,
        recipients: list[Recipient],
        replies: list[ResolveReply | None],
    ) -> None:
        sender = message.envelope.sender
        probe = message.probe
        if len(recipients) > 1 and not probe:
            with suppress(ServiceUnavailable):  # then each is asked for
                unknown = zip(recipients, replies, strict=True)
                await self._resolver.prefetch(
                    sender, [recipient.address for recipient, reply in unknown if reply is None]
                )
        for at, recipient in enumerate(recipients):
            if replies[at] is None:
                replies[at] = await self._ask(sender, recipient.address, probe=probe)
        self._scheduler.counts.released(message)
        self._assigned(message, recipients, replies)

    async def _ask(self, sender: str, address: str, *, probe: bool) -> ResolveReply:
        resolver = self._resolver
        try:
            return await (resolver.resolve_probe if probe else resolver.resolve)(sender, address)
        except ServiceUnavailable as err:
            LOG.warning(f"resolve {address}: {err}")
            transport = TransportName(self._routing.retry_transport)
            return ResolveReply(0, transport, Nexthop(RESOLVER_FAILURE), address)

    def _assigned(
        self,
        message: Message,
        recipients: list[Recipient],
        replies: list[ResolveReply | None],
    ) -> None:
        """Hand the recipients to the scheduler, grouped by destination, and get it going."""
        routes: list[Route] = []
        discarded: list[Recipient] = []
        for recipient, reply in zip(recipients, replies, strict=True):
            found = route(self._routing, message, recipient, reply)
            if isinstance(found, Discard):
                discarded.append(found.recipient)
                continue
            routes.append(found)
            if recipient.notify & _SUCCESS:
                message.traced = True
        transports: dict[Transport, None] = {}  # in order
        for one, members in _grouped(routes):
            transport = self._deliveries.enqueue(message, one, members)
            if transport is not None:
                transports[transport] = None
        if discarded:
            self._discard(message, discarded)
        self._scheduler.added(message, transports)
        if not message.open or message.next_offset:  # now: it may be over when an agent is asked
            self._check_done(message)
        for transport in transports:
            self._deliveries.wake(transport)

    def _discard(self, message: Message, recipients: Sequence[Recipient]) -> None:
        text = "undeliverable postmaster notification discarded"
        if message.probe:
            self._deliveries.answer_here(message, recipients, f"2.0.0 {text}")
        else:
            for recipient in recipients:
                log_status(message, recipient, "2.0.0", "sent", text)
        self._mark_done(message, recipients)


def _grouped(routes: list[Route]) -> Iterable[tuple[Route, list[Recipient]]]:
    """The recipients with one destination together, as a transaction has them, in a fixed order."""
    if len(routes) == 1:
        return [(routes[0], [routes[0].recipient])]
    groups: dict[tuple[str, str, str], tuple[Route, list[Recipient]]] = {}
    for one in routes:
        key = (one.transport, one.destination, one.nexthop.lower())
        groups.setdefault(key, (one, []))[1].append(one.recipient)
    for _, members in groups.values():
        members.sort(key=_by_domain)
    return [groups[key] for key in sorted(groups)]


def _by_domain(recipient: Recipient) -> tuple[str, str]:
    """The order in which a transaction has its recipients."""
    address = recipient.address.lower()
    return address.rpartition("@")[2], address
