"""The end of the system: processes are asked to end, then made to; those of postlogd(8) last.

So what the others say while they end is still logged.
"""

import signal
from collections.abc import Callable, Mapping
from typing import Final

from libmail.log import LOG
from master.events import Terminating
from master.services import Service
from master.timers import Timers

__all__ = ["Shutdown"]

_STOP_LIMIT: Final = 7.0  # seconds for processes to end; the skeleton gives sessions 5
_LOG_LIMIT: Final = 2.0  # seconds for postlogd, after all others


class Shutdown:
    """begun: no process is started any more. finished: none is left, or time is over."""

    def __init__(
        self,
        *,
        services: Mapping[tuple[str, str], Service],
        parents: Mapping[int, Service],
        timers: Timers,
        refresh: Callable[[Service], None],
        is_log: Callable[[Service], bool],
        log_directly: Callable[[], None],
    ) -> None:
        """parents: the service of each process. refresh: has a service wait for clients or not.

        is_log: whether a service is that of postlogd. log_directly: does without it.
        """
        self.begun = False
        self.finished = False
        self._services = services
        self._parents = parents
        self._timers = timers
        self._refresh = refresh
        self._is_log = is_log
        self._log_directly = log_directly
        self._log_ends = False

    def begin(self, number: int) -> None:
        """Ask all processes to end, those of postlogd last, and end when they have."""
        if self.begun:
            return
        LOG.event(Terminating(number))
        self.begun = True
        for service in self._services.values():
            service.cancel_wakeup()
            self._refresh(service)
        self._signal(signal.SIGTERM)
        self._timers.after(_STOP_LIMIT, self._kill)

    def abort(self, number: int) -> None:
        """End them at once."""
        self.begin(number)
        self._kill()

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for service in self._services.values():
            if not self._is_log(service):
                for child in service.children.values():
                    child.kill(number)

    def check(self) -> None:
        """Go from one step of the end to the next."""
        left = {pid for pid, service in self._parents.items() if not self._is_log(service)}
        if left:
            return
        if not self._parents:
            self.finished = True
        elif not self._log_ends:
            self._log_ends = True
            self._log_directly()
            for service in self._parents.values():
                for child in service.children.values():
                    child.kill(signal.SIGTERM)
            self._timers.after(_LOG_LIMIT, self._finish)

    def _finish(self) -> None:
        self.finished = True
