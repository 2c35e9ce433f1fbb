"""The end of a message for now: reports are sent, then it is removed or deferred.

The order of the steps is that of docs/queue.md: a report is sent before the recipients that it
tells of are forgotten, and what could not be sent keeps the message in the queue.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from daemons.qmgr.backoff import Backoff
from daemons.qmgr.events import QueueExpired
from daemons.qmgr.message import Message
from daemons.qmgr.reports import flush_report
from daemons.qmgr.store import Store
from libmail.log import LOG
from libmail.service.pool import ServiceClient


@dataclass(frozen=True, slots=True)
class ReportServices:
    """The services that send reports; verify: is told of probes that no agent has seen."""

    bounce: ServiceClient
    defer: ServiceClient
    trace: ServiceClient
    verify: ServiceClient


class Closing:
    """clock: of the epoch."""

    def __init__(
        self,
        store: Store,
        services: ReportServices,
        backoff: Backoff,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.services = services
        self._store = store
        self._backoff = backoff
        self._clock = clock

    def nothing_to_report(self, message: Message) -> bool:
        """Whether the file can be removed right away. A probe is tried once, whatever happens."""
        return message.probe or not (
            message.deferred or message.traced or self._store.has_log("bounce", message.queue_id)
        )

    async def close(self, message: Message) -> bool:
        """Send the reports. Returns whether the file is to be removed; else it is deferred."""
        store, services, queue_id = self._store, self.services, message.queue_id
        if store.has_log("bounce", queue_id) and not await flush_report(
            services.bounce, message, "active", "bounce"
        ):
            message.deferred = True
        if (
            message.traced
            and store.has_log("trace", queue_id)
            and not await flush_report(services.trace, message, "active", "trace")
        ):
            message.deferred = True
        if not message.deferred or await self._expire(message):
            return True
        await self._warn(message)
        store.defer(queue_id, self._backoff.next_try(message.arrival, self._clock()))
        return False

    async def _expire(self, message: Message) -> bool:
        """Return a message to its sender that has been tried for long enough."""
        sender = message.envelope.sender
        forced = message.forced_expiry or self._store.expiry_forced(message.queue_id)
        if not forced and not self._backoff.expired(sender, message.arrival, self._clock()):
            return False
        LOG.event(QueueExpired(message.queue_id, sender, "force-expired" if forced else "expired"))
        return await flush_report(self.services.defer, message, "active", "bounce")

    async def _warn(self, message: Message) -> None:
        if 0 < message.envelope.warn_time <= self._clock() and await flush_report(
            self.services.defer, message, "active", "warn"
        ):
            self._store.mark_warned(message)
