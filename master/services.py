"""A service while the system runs: its sockets, its processes, and whether it may have more."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from libmail.log import LOG
from master.capacity import NO_LIMIT
from master.children import Child
from master.endpoints import Listener, Network
from master.plan import Plan
from master.stress import Stress, crowd_warnings, is_public
from master.throttle import CrashPolicy
from master.timers import Timer

__all__ = ["Service"]


@dataclass(slots=True, eq=False)
class Service:
    """State of one service. It changes only through the supervisor.

    network: what inet sockets were opened for. children: by process id, old generations included.
    watched: whether the loop waits for clients. in_use: whether a process was ever started.
    throttle: the end of the time in which no process may be started. stress: whether others hurry.
    cores: of this machine, for processes that are busy.
    """

    plan: Plan
    network: Network
    listeners: list[Listener]
    children: dict[int, Child] = field(default_factory=dict)
    crashes: CrashPolicy = field(default_factory=CrashPolicy)
    watched: bool = False
    in_use: bool = False
    wakeup: Timer | None = None
    throttle: Timer | None = None
    stress: Stress = field(default_factory=Stress)
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    def current(self, generation: int) -> Iterator[Child]:
        """The processes that count: those started since the last reload."""
        return (child for child in self.children.values() if child.generation == generation)

    def capacity_for_one_more(self, generation: int) -> int:
        """The clients that a further process may serve; 0: none is wanted or allowed now."""
        current = list(self.current(generation))
        if self.throttle is not None or any(child.suffices for child in current):
            return 0
        if len(current) >= self.cores and any(child.available for child in current):
            return 0
        return self.plan.limit.next_capacity(child.held for child in current)

    def is_crowded(self, generation: int) -> bool:
        """Whether clients of the network have to wait, as all places are taken."""
        limit, current = self.plan.limit, list(self.current(generation))
        if not current or limit.places < 2 or limit.places == NO_LIMIT or not self.public:
            return False
        if self.throttle is not None or any(child.available for child in current):
            return False
        return not limit.next_capacity(child.held for child in current)

    @property
    def public(self) -> bool:
        """Whether others than this host can reach it."""
        if self.plan.entry.type != "inet":
            return False
        sockets = [one for one in self.listeners if isinstance(one, socket.socket)]
        return is_public([one.getsockname()[0] for one in sockets])

    def crowd_warnings(self) -> Iterator[str]:
        """What is logged when it has no place left."""
        ports = [one.getsockname()[1] for one in self.listeners if isinstance(one, socket.socket)]
        return crowd_warnings(self.plan.entry.name, ports[0], self.plan.limit.places)

    def pause_after(self, child: Child, status: int) -> float:
        """Told that a process has ended: seconds for which to start no other one. Logs a crash."""
        code = os.waitstatus_to_exitcode(status)
        if child.told_to_end and code <= 0:
            return 0.0
        if code != 0:
            how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
            LOG.warning(f"process {self.plan.path} pid {child.pid} {how}")
        elif child.served:
            self.crashes.went_well()
            return 0.0
        return self.crashes.pause_after(
            served=child.served or code == 0,
            killed=code == -signal.SIGKILL,
            life=time.monotonic() - child.started,
            throttle_time=self.plan.throttle_time,
        )

    def end_throttle(self) -> None:
        """Processes may be started again."""
        if self.throttle is not None:
            self.throttle.cancelled = True
            self.throttle = None

    def cancel_wakeup(self) -> None:
        """Forget the timer."""
        if self.wakeup is not None:
            self.wakeup.cancelled = True
            self.wakeup = None

    def close(self) -> None:
        """Listen no more; the processes are left alone."""
        self.cancel_wakeup()
        for listener in self.listeners:
            listener.close()
        self.listeners = []
