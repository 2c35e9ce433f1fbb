"""What the census puts in front of master(8): each of its processes leaves figures at its end.

They are "PROGRAM CALLS" in a file named by the process: calls of Python functions and of built-in
ones in all threads, from the fork to the end, as cProfile counts them, or 0.
"""

from __future__ import annotations

import cProfile
import os
import threading
from pathlib import Path
from typing import NoReturn

import setproctitle

__all__ = ["leave_figures"]


def leave_figures(folder: Path, *, calls: bool) -> None:
    """For all processes that this one forks from now on. folder: everybody may write there."""
    profiles: list[cProfile.Profile] = []
    kept: list[list[cProfile.Profile]] = []  # of the process that forked: they may not end yet
    leave = os._exit
    run_thread = threading.Thread.run

    def begin() -> None:
        profiles.append(cProfile.Profile())
        profiles[-1].enable()

    def begin_process() -> None:
        kept.append(profiles[:])
        profiles.clear()
        begin()

    def run(thread: threading.Thread) -> None:
        begin()
        run_thread(thread)

    def end(status: int) -> NoReturn:
        for profile in profiles[:1]:
            profile.disable()
        count = sum(entry.callcount for profile in profiles for entry in profile.getstats())
        program = setproctitle.getproctitle().partition(" ")[0]
        (folder / str(os.getpid())).write_text(f"{program} {count}\n")
        leave(status)

    if calls:
        os.register_at_fork(after_in_child=begin_process)
        threading.Thread.run = run  # type: ignore[assignment, method-assign]
    os._exit = end
