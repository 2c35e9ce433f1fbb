"""Into the active queue: what cleanup(8) announces, and what scans of the directories find."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from daemons.qmgr.counts import Counts
from daemons.qmgr.message import Message
from daemons.qmgr.scans import Found, QueueScan
from daemons.qmgr.store import Read, StillDelivering, Store
from libmail.ipc.messages import QueueId
from libmail.log import LOG
from libmail.queue.file import FORCED_EXPIRY, QueueFileCorrupt

__all__ = ["Intake", "IntakeRules"]

_FILES_A_TURN: Final = 200  # looked at in one turn of the event loop
_MESSAGES_A_TURN: Final = 32  # taken in one turn


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRules:
    """active_limit, recipient_limit, recipient_minimum: qmgr_message_*. retry_delay:
    minimal_backoff_time, after which a message is looked at again that could not be read. scans:
    whether the directories are scanned, or messages only taken that are announced."""

    active_limit: int
    recipient_limit: int
    recipient_minimum: int
    retry_delay: float
    scans: bool = True


class Intake:
    """active: the messages of the active queue. begin: takes one that was read, and its origin.

    stopped: nothing is taken any more; so it is until somebody sets it to False.
    """

    def __init__(
        self,
        *,
        rules: IntakeRules,
        store: Store,
        counts: Counts,
        active: dict[QueueId, Message],
        begin: Callable[[Read, Found], None],
        clock: Callable[[], float],
    ) -> None:
        self.incoming: Final = QueueScan(
            store.directory, "incoming", timed=False, expire_mode=FORCED_EXPIRY, clock=clock
        )
        self.deferred: Final = QueueScan(
            store.directory, "deferred", timed=True, expire_mode=FORCED_EXPIRY, clock=clock
        )
        self.stopped = True
        self._rules = rules
        self._store = store
        self._counts = counts
        self._active = active
        self._begin = begin
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._feeding = False

    def feed(self) -> None:
        """Go on with the scans, while there is room, without holding up other work."""
        if self._feeding or self.stopped or not self._rules.scans:
            return
        if self.incoming.pending or self.deferred.pending:
            self._feeding = True
            self._loop.call_soon(self._feed)

    def _feed(self) -> None:
        self._feeding = False
        budget, taken = _FILES_A_TURN, 0
        limit = self._rules.active_limit
        while budget > 0 and taken < _MESSAGES_A_TURN and len(self._active) < limit:
            before = budget
            for scan in (self.incoming, self.deferred):  # one of each: both make headway
                found, budget = scan.next_found(budget)
                if found is not None and len(self._active) < limit:
                    self.take(found)
                    taken += 1
            if before == budget and not (self.incoming.pending or self.deferred.pending):
                return
        if len(self._active) < limit:
            self.feed()

    def new_mail(self, queue_id: QueueId) -> None:
        """cleanup(8) says that incoming has a new message."""
        if self.stopped or len(self._active) >= self._rules.active_limit:
            self.incoming.request()  # goes on when there is room
            return
        self.take(Found("incoming", queue_id, False, False, announced=True))

    def take(self, found: Found) -> None:
        """Move a message into the active queue and get it going."""
        queue_id, rules = found.queue_id, self._rules
        if queue_id in self._active:
            return
        path = self._store.activate(queue_id, found.queue_name, keep_log=found.expire)
        if not path:
            return
        limit = max(rules.recipient_minimum, rules.recipient_limit - self._counts.recipients)
        now = self._clock()
        try:
            read = self._store.read(queue_id, path, now, limit, announced=found.announced)
        except FileNotFoundError:
            return
        except QueueFileCorrupt as err:
            self._store.set_aside(queue_id, str(err))
            return
        except StillDelivering:
            LOG.info(f"{queue_id}: skipped, still being delivered")
            self._store.defer(queue_id, now + rules.retry_delay)
            return
        except OSError as err:
            LOG.warning(f"open active {queue_id}: {err.strerror}")
            self._store.defer(queue_id, now + rules.retry_delay)
            return
        self._begin(read, found)
