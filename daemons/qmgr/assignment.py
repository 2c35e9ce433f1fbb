"""Where the recipients of a message go: the answer of trivial-rewrite(8) for each, then groups of
recipients with one destination, for the scheduler."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from daemons.qmgr.deliveries import Deliveries
from daemons.qmgr.jobs import Transport
from daemons.qmgr.message import Message
from daemons.qmgr.reports import log_status
from daemons.qmgr.routing import RESOLVER_FAILURE, Discard, RoutingRules, needs_resolver, route
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
        clock: Callable[[], float],
    ) -> None:
        self._routing = routing
        self._scheduler = scheduler
        self._deliveries = deliveries
        self._store = store
        self._resolver = resolver
        self._check_done = check_done
        self._spawn = spawn
        self._clock = clock

    def assign(self, message: Message, recipients: Sequence[Recipient]) -> None:
        """Find the routes, at once if they are known."""
        message.refilled = self._clock()
        if message.reported:
            message.deferred = True
            recipients = [one for one in recipients if one.offset not in message.reported]
        if not recipients:
            self._check_done(message)
            return
        if message.envelope.redirect:
            recipients = self._redirect(message, recipients)
        self._scheduler.counts.held(message)  # the message does not end while this goes on
        sender = message.envelope.sender
        replies: list[ResolveReply | None]
        if message.probe:
            self._spawn(self._resolve(message, recipients, [None] * len(recipients)))
            return
        if needs_resolver(message):
            known_route = self._resolver.known_route
            replies = [known_route(sender, recipient.address) for recipient in recipients]
            if None in replies:
                self._spawn(self._resolve(message, recipients, replies))
                return
        else:
            replies = [None] * len(recipients)
        self._assigned(message, recipients, replies)

    def _redirect(self, message: Message, recipients: Sequence[Recipient]) -> Sequence[Recipient]:
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
        recipients: Sequence[Recipient],
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
        recipients: Sequence[Recipient],
        replies: Sequence[ResolveReply | None],
    ) -> None:
        """Hand the recipients to the scheduler, grouped by destination, and get it going."""
        groups: dict[tuple[str, str, str], tuple[Nexthop, list[Recipient]]] = {}
        discarded: list[Recipient] = []
        rules = self._routing
        for recipient, reply in zip(recipients, replies, strict=True):
            found = route(rules, message, recipient, reply)
            if isinstance(found, Discard):
                discarded.append(found.recipient)
                continue
            if recipient.notify & _SUCCESS:
                message.traced = True
            key = (found.transport, found.destination, found.nexthop.lower())
            group = groups.get(key)
            if group is None:
                groups[key] = (found.nexthop, [found.recipient])
            else:
                group[1].append(found.recipient)
        transports: dict[str, Transport] = {}
        ordered = sorted(groups.items()) if len(groups) > 1 else groups.items()
        for (name, destination, _), (nexthop, members) in ordered:
            if len(members) > 1:
                members.sort(key=_by_domain)
            transport = self._deliveries.enqueue(message, name, destination, nexthop, members)
            if transport is not None:
                transports[transport.name] = transport
        if discarded:
            self._discard(message, discarded)
        self._scheduler.added(message, transports.values())
        self._scheduler.counts.released(message)
        for transport in transports.values():
            self._deliveries.wake(transport)
        self._check_done(message)

    def _discard(self, message: Message, recipients: Sequence[Recipient]) -> None:
        text = "undeliverable postmaster notification discarded"
        if message.probe:
            self._deliveries.answer_here(message, recipients, f"2.0.0 {text}")
        else:
            for recipient in recipients:
                log_status(message, recipient, "2.0.0", "sent", text)
        self._mark_done(message, recipients)


def _by_domain(recipient: Recipient) -> tuple[str, str]:
    """The order in which a transaction has its recipients."""
    address = recipient.address.lower()
    return address.rpartition("@")[2], address
