"""What the census puts in front of master(8): each of its processes leaves figures at its end.

They are "PROGRAM CALLS" in a file named by the process: calls of Python functions and of built-in
ones in the main thread, from the fork to the end, as cProfile counts them, or 0.
"""

from __future__ import annotations

import cProfile
import os
from pathlib import Path
from typing import NoReturn

import setproctitle

__all__ = ["leave_figures"]


def leave_figures(folder: Path, *, calls: bool) -> None:
    """For all processes that this one forks from now on. folder: everybody may write there."""
    profiles: list[cProfile.Profile] = []
    leave = os._exit

    def begin() -> None:
        profiles.append(cProfile.Profile())
        profiles[-1].enable()

    def end(status: int) -> NoReturn:
        count = 0
        for profile in profiles[-1:]:
            profile.disable()
            count = sum(entry.callcount for entry in profile.getstats())
        program = setproctitle.getproctitle().partition(" ")[0]
        (folder / str(os.getpid())).write_text(f"{program} {count}\n")
        leave(status)

    if calls:
        os.register_at_fork(after_in_child=begin)
    os._exit = end
