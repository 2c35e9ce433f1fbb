"""One measured round: run a load, wait for the last `removed` line, read the meters.

Rates are end to end: from before the first connection to the log line that says the last
message has left the queue. CPU time is that of the mail system alone: of all processes of
its session and of those that ended there; load generators and sinks are in others.

ext4 does not use the inodes of files again that were deleted in the last minutes, and looks past
them whenever it makes a file: rounds get slower, in system time, the more mail has just left the
queue. Both sides pay for it, but only rows from the same run may be compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from tests.system.harness import MailSystem
from tests.system.processes import cpu_time, proportional_memory

REMOVED: Final = b": removed\n"
PATIENCE: Final = 180.0  # seconds without any message leaving the queue

Traffic: TypeAlias = Callable[[MailSystem], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What one round, or the median of some, gave.

    rate: deliveries a second. user, system: CPU milliseconds a delivery. memory: bytes of PSS.
    """

    rate: float
    user: float
    system: float
    memory: float
    note: str = ""

    @property
    def cpu(self) -> float:
        return self.user + self.system


def median(results: Sequence[Result]) -> Result:
    """The median of each figure."""
    return Result(
        statistics.median(r.rate for r in results),
        statistics.median(r.user for r in results),
        statistics.median(r.system for r in results),
        statistics.median(r.memory for r in results),
        results[-1].note,
    )


class RemovedCount:
    """Counts the messages that left the queue since it was made, from the log as it grows."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.offset = log.stat().st_size
        self.rest = b""
        self.count = 0

    def update(self) -> int:
        with self.log.open("rb") as stream:
            stream.seek(self.offset)
            text = stream.read()
        self.offset += len(text)
        lines, newline, self.rest = (self.rest + text).rpartition(b"\n")
        self.count += (lines + newline).count(REMOVED)
        return self.count

    def wait(self, wanted: int) -> None:
        """Raises TimeoutError when nothing leaves the queue any more."""
        last, since = -1, time.monotonic()
        while (count := self.update()) < wanted:
            if count != last:
                last, since = count, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise TimeoutError(f"only {count} of {wanted} messages left the queue")
            time.sleep(0.005)


def measure(system: MailSystem, traffic: Traffic, messages: int, deliveries: int) -> Result:
    """Runs traffic, which brings in `messages` that make `deliveries` altogether."""
    removed = RemovedCount(system.log)
    before, start = cpu_time(system.session), time.monotonic()
    traffic(system)
    removed.wait(messages)
    seconds = time.monotonic() - start
    used = cpu_time(system.session) - before
    memory = proportional_memory(system.pids())
    system.wait_for_queue_empty()
    return Result(
        deliveries / seconds,
        used.user / deliveries * 1000,
        used.system / deliveries * 1000,
        memory,
    )
