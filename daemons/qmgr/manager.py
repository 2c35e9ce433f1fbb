"""The queue manager's active queue: messages in, deliveries out, the end of each message.

A message enters by `intake`, its recipients are given destinations by `assignment`, what is to be
delivered waits in the scheduler, and `deliveries` gives it to agents. Each of them says when a
message may be complete; then more of its recipients are read, or it ends here: removed or deferred,
after its reports have been sent.
"""

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from daemons.qmgr.agents import AgentTimes
from daemons.qmgr.assignment import Assigner, Resolver
from daemons.qmgr.clog import ClogWarnings
from daemons.qmgr.closing import Closing
from daemons.qmgr.deliveries import Deliveries
from daemons.qmgr.events import QueueActive
from daemons.qmgr.intake import Intake, IntakeRules
from daemons.qmgr.message import Message
from daemons.qmgr.removal import Removal
from daemons.qmgr.routing import RoutingRules
from daemons.qmgr.scans import Found
from daemons.qmgr.scheduler import Scheduler
from daemons.qmgr.store import Read, Store
from libmail.ipc.messages import EnvelopeFlag, QueueId, TraceFlag
from libmail.log import LOG
from libmail.queue.file import QueueFileCorrupt

__all__ = ["ManagerRules", "QueueManager"]

_EXPANDED: Final = EnvelopeFlag.EXPANDED.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerRules:
    """confirm_cleared: confirm_delay_cleared. feedback_debug:
    destination_concurrency_feedback_debug."""

    intake: IntakeRules
    confirm_cleared: bool
    feedback_debug: bool
    agent_times: AgentTimes


class QueueManager:
    """Owns the active queue. clock: of the epoch; spawn: runs a task that must not fail."""

    def __init__(
        self,
        *,
        rules: ManagerRules,
        routing: RoutingRules,
        scheduler: Scheduler,
        store: Store,
        resolver: Resolver,
        closing: Closing,
        clogs: ClogWarnings,
        spawn: Callable[[Coroutine[object, object, object]], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.active: dict[QueueId, Message] = {}
        self._rules = rules
        self._scheduler = scheduler
        self._store = store
        self._closing = closing
        self._spawn = spawn
        self._clock = clock
        self.intake: Final = Intake(
            rules=rules.intake,
            store=store,
            counts=scheduler.counts,
            active=self.active,
            begin=self._begin,
            clock=clock,
        )
        self._removal = Removal(store, spawn, self._leave)
        self._deliveries = Deliveries(
            scheduler=scheduler,
            retry=routing.retry_transport,
            defer=closing.services.defer,
            verify=closing.services.verify,
            agent_times=rules.agent_times,
            feedback_debug=rules.feedback_debug,
            clogs=clogs,
            files=store.files,
            active=self.active,
            check_done=self._check_done,
            spawn=spawn,
            clock=clock,
        )
        self._assigner = Assigner(
            routing=routing,
            scheduler=scheduler,
            deliveries=self._deliveries,
            store=store,
            resolver=resolver,
            check_done=self._check_done,
            spawn=spawn,
        )

    def begin(self) -> None:
        """No other process is at work on the queue: take over what was in its active queue.

        Without scans there is another one, whose active queue that is.
        """
        if self._rules.intake.scans:
            self._store.recover()
            self._store.spare.empty()
        self.intake.stopped = False
        self.intake.incoming.request()
        self.intake.feed()

    def _begin(self, read: Read, found: Found) -> None:
        message = read.message
        if found.expire:
            message.forced_expiry = True
            message.reported = self._store.deferred_before(message.queue_id)
        if found.flush:
            message.flush = True
        if self._rules.confirm_cleared and message.envelope.warn_time < 0:
            message.tflags |= TraceFlag.DELAY_CLEARED.value
        message.traced = bool(message.tflags) or bool(message.envelope.flags & _EXPANDED)
        self.active[message.queue_id] = message
        LOG.event(QueueActive(message.queue_id, message.envelope.sender, message.size, read.total))
        self._assigner.assign(message, read.recipients)

    # the end of a message

    def _check_done(self, message: Message) -> None:
        """Read more recipients, or end the message, if that is due."""
        if message.next_offset and not self.intake.stopped and self._refill(message):
            return  # this was looked at again behind the recipients that came
        if message.open or message.next_offset:
            return
        if self._closing.nothing_to_report(message):
            self._removal.add(message)
        else:
            self._scheduler.counts.held(message)
            self._spawn(self._close(message))

    def _refill(self, message: Message) -> bool:
        """Read recipients, if there is room. Returns whether there were any."""
        now = self._clock()
        room = self._scheduler.room(message, now)
        if message.in_core == 0 and message.open == 0:
            room = max(room, self._rules.intake.recipient_minimum)
        if room <= 0:
            return False
        try:
            recipients = self._store.read_more(message, room)
        except (OSError, QueueFileCorrupt) as err:
            LOG.warning(f"{message.queue_id}: read recipients: {err}")
            message.next_offset = message.unread = 0
            message.deferred = True
            return False
        message.refilled = now
        if not message.next_offset:
            self._scheduler.message_read(message)
        if recipients:
            self._assigner.assign(message, recipients)
        return bool(recipients)

    async def _close(self, message: Message) -> None:
        if await self._closing.close(message):
            self._removal.add(message)
        else:
            self._leave(message)

    def _leave(self, message: Message) -> None:
        self._store.files.drop(message.queue_id)
        del self.active[message.queue_id]
        self.intake.feed()

    # requests

    def flush(self, queue_id: QueueId) -> None:
        """Try one message now, "" for all, whatever is known of its destinations."""
        if not queue_id:
            self._scheduler.revive_all()
            self.intake.deferred.request(ignore_times=True, flush=True)
            self.intake.incoming.request(flush=True)
            self.intake.feed()
            return
        if len(self.active) < self._rules.intake.active_limit:
            self.intake.take(Found("deferred", queue_id, False, True))
        elif self._store.move(queue_id, "deferred", "incoming"):
            self.intake.incoming.request()

    def trigger(self, letter: str) -> None:
        """A request byte of qmgr(8), TRIGGERS: A and F come before D and I."""
        if letter == "A":
            self.intake.deferred.request(ignore_times=True)
        elif letter == "F":
            self._scheduler.revive_all()
            self.intake.deferred.request(flush=True)
            self.intake.incoming.request(flush=True)
        elif letter == "D":
            self._store.retry()
            self.intake.deferred.request()
        else:
            self.intake.incoming.request()
        self.intake.feed()

    async def stop(self, grace: float) -> None:
        """Begin no more deliveries; give those under way `grace` seconds to end."""
        self.intake.stopped = True
        await self._deliveries.stop(grace)
        self._store.files.close()
        await self._removal.end()
