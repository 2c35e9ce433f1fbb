"""Warnings that one destination takes up most of the active queue."""

from daemons.qmgr.scheduler import Destination
from libmail.log import LOG


class ClogWarnings:
    """Warns at most once every `interval` seconds (`qmgr_clog_warn_time`; 0: never) of each.

    limit: `qmgr_message_active_limit`. A destination clogs the queue when it has more than four
    fifths of a queue that is filled to more than three quarters.
    """

    def __init__(self, limit: int, interval: float) -> None:
        self._threshold = limit * 3 // 4
        self._interval = interval

    def check(self, destination: Destination, active: int, now: float) -> None:
        """Called when the destination got more work; active: messages in the active queue."""
        if active <= self._threshold or not self._interval:
            return
        entries = destination.waiting + destination.busy
        if entries * 5 <= active * 4 or now < destination.warn_at:
            return
        destination.warn_at = now + self._interval
        transport = destination.transport.name
        LOG.warning(
            f"mail for {destination.name} is using up {entries} of {active} active queue entries"
        )
        LOG.warning("this may slow down other mail deliveries")
        limit = destination.transport.limits.window.limit
        LOG.warning(
            f"you may need to increase the main.cf {transport}_destination_concurrency_limit"
            f" from {limit}"
        )
        LOG.warning("you may need to increase the main.cf qmgr_message_active_limit")
        LOG.warning("to turn off these warnings specify: qmgr_clog_warn_time = 0")
