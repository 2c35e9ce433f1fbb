"""When a service whose processes die has to wait before the next one is started.

A process that dies before it could serve anybody will die again: the service is throttled for
service_throttle_time. One that dies later is replaced on demand at once, because mail waits,
unless several in a row lived for a moment only. Who is killed with SIGKILL did nothing wrong: that
comes from an administrator, or from a system that is out of memory, which gets time to recover.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["CrashPolicy"]

_SHORT_LIFE: Final = 1.0  # seconds
_SHORT_LIVES: Final = 5
_RECOVERY: Final = 1.0  # seconds


@dataclass(slots=True)
class CrashPolicy:
    """The history of one service's crashes."""

    short_lives: int = 0

    def pause_after(
        self, *, served: bool, killed: bool, life: float, throttle_time: float
    ) -> float:
        """Told of a process that failed: seconds for which to start no other one.

        served: it got as far as accepting connections. killed: by SIGKILL. life: seconds that it
        lived.
        """
        if not served and not killed:
            return throttle_time
        self.short_lives = self.short_lives + 1 if life < _SHORT_LIFE else 0
        if self.short_lives < _SHORT_LIVES:
            return 0.0
        self.short_lives = 0
        return _RECOVERY if killed else throttle_time

    def went_well(self) -> None:
        """Told of a process that ended as it should."""
        self.short_lives = 0
