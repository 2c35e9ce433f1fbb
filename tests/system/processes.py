"""What /proc says of the processes of one mail system: its session, its use of CPU and memory.

A mail system is the session that its master began with setsid(): that is how its processes
are found, also after their parents died. Nothing here looks for names.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

TICK: Final = os.sysconf("SC_CLK_TCK")
PATIENCE: Final = 120.0
"""Seconds to wait for what must come. A quiet machine needs a fraction of one, a loaded one as
long as it takes: that is never what a test is about."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat; times in seconds, `reaped` those of children that ended."""

    pid: int
    parent: int
    session: int
    state: str
    threads: int
    user: float
    system: float
    reaped_user: float
    reaped_system: float

    @property
    def alive(self) -> bool:
        """Not a zombie. One whose other threads still end has its files and locks until then."""
        return self.state not in "ZX" or self.threads > 1

    def title(self) -> str:
        """The command line, or "" when the process has ended."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            return ""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU time of a whole mail system, in seconds."""

    user: float
    system: float

    def __sub__(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.user - other.user, self.system - other.system)


def read_process(pid: int) -> Process | None:
    """/proc/PID/stat, proc(5); None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    words = text[text.rindex(")") + 2 :].split()
    times = [int(word) / TICK for word in words[11:15]]
    return Process(pid, int(words[1]), int(words[3]), words[0], int(words[17]), *times)


def session_members(session: int) -> list[Process]:
    """The living processes of a session (zombies are not alive)."""
    found = (read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [p for p in found if p and p.session == session and p.alive]


def is_gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    process = read_process(pid)
    return process is None or not process.alive


def wait_until(
    condition: Callable[[], T],
    explain: Callable[[], object] = lambda: "",
    limit: float = PATIENCE,
) -> T:
    """Waits for something that becomes true, and returns it.

    Raises TimeoutError with the explanation.
    """
    deadline = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain. {explain()}")
        time.sleep(0.01)
    return found


def cpu_time(session: int) -> CpuTime:
    """CPU time of the session: of those alive, and of those that ended and were waited for."""
    members = session_members(session)
    return CpuTime(
        sum(p.user + p.reaped_user for p in members),
        sum(p.system + p.reaped_system for p in members),
    )


def proportional_memory(pids: list[int]) -> int:
    """Memory in bytes: PSS, where a page that n processes share counts 1/n in each."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total * 1024


def kill_session(session: int) -> None:
    """kill -9 of every member, until none is left. Raises TimeoutError."""

    def none_is_left() -> bool:
        members = session_members(session)
        for process in members:
            kill(process.pid)
        return not members

    wait_until(none_is_left, lambda: [process.title() for process in session_members(session)])


def kill(pid: int) -> None:
    """kill -9; a process that has ended meanwhile is no error."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def is_listening(port: int) -> bool:
    """Whether something listens on the TCP port of an IPv4 address; does not connect."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = (line.split() for line in lines)
    return any(words[1].endswith(f":{port:04X}") and words[3] == "0A" for words in ends)
