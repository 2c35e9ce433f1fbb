"""Warnings that one destination takes up a good part of the active queue."""

from collections.abc import Iterator
from typing import Final

from daemons.qmgr.jobs import Destination
from libmail.log import LOG

_SHARE: Final = 5  # a destination clogs the queue with more than one in so many of its places
_NEARLY_ALL: Final = 0.9  # so much of the active queue leaves no other mail to suffer


class ClogWarnings:
    """Warns at most once every `interval` seconds (`qmgr_clog_warn_time`; 0: never) of each.

    limit: `qmgr_message_active_limit`. What is advised depends on what holds the mail up: its own
    concurrency limit, a full active queue, other destinations, or a host that does not answer.
    """

    def __init__(self, limit: int, interval: float) -> None:
        self._limit = limit
        self._interval = interval

    def check(self, destination: Destination, active: int, now: float) -> None:
        """Called when the destination got more work; active: messages in the active queue."""
        entries = destination.waiting + destination.busy
        if not self._interval or entries * _SHARE <= self._limit or now < destination.warn_at:
            return
        destination.warn_at = now + self._interval
        LOG.warning(
            f"mail for {destination.name} is using up {entries} of {active} active queue entries"
        )
        for text in self._advice(destination, entries / active if active else 1.0):
            LOG.warning(text)

    def _advice(self, destination: Destination, share: float) -> Iterator[str]:
        """share: of the active queue that is mail for the destination."""
        transport = destination.transport
        limit = transport.limits.window.limit
        if share < _NEARLY_ALL:
            yield "this may slow down other mail deliveries"
        if 0 < limit <= destination.busy + 1:
            parameter = f"{transport.name}_destination_concurrency_limit"
            yield f"you may need to increase the main.cf {parameter} from {limit}"
        elif destination.window.concurrency > self._limit * share:
            parameter = "qmgr_message_active_limit"
            yield f"you may need to increase the main.cf {parameter} from {self._limit}"
        elif len(transport.destinations) > 1:
            yield f"you may need a separate master.cf transport for {destination.name}"
        else:
            yield f"you may need to reduce {transport.name} connect and helo timeouts"
            yield "so that Postfix quickly skips unavailable hosts"
            parameters = "minimal_backoff_time and maximal_backoff_time"
            yield f"you may need to increase the main.cf {parameters}"
            yield "so that Postfix wastes less time on undeliverable mail"
            yield f"you may need to increase the master.cf {transport.name} process limit"
        yield "please avoid flushing the whole queue when you have"
        yield "lots of deferred mail, that is bad for performance"
        yield "to turn off these warnings specify: qmgr_clog_warn_time = 0"
