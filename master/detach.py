"""Becoming a daemon: away from the terminal and from the process that started us."""

import os
import sys

from daemon.daemon import detach_process_context, redirect_stream

__all__ = ["Announcement", "close_inherited", "detach"]


class Announcement:
    """A pipe over which the daemon tells the command that started it that it is up (`-w`)."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def wait_in_parent(self) -> bool:
        """Fork; in the parent, the exit status: 0 once the child is up.

        Returns in the child only.
        """
        if os.fork() == 0:
            os.close(self._read)
            return True
        os.close(self._write)
        up = os.read(self._read, 1)
        sys.stdout.flush()
        os._exit(0 if up else 1)

    def up(self) -> None:
        """Say so."""
        os.write(self._write, b"1")
        os.close(self._write)


def detach(*, keep_stdout: bool) -> None:
    """Go on in a process of a session of its own, which /dev/null stands in for a terminal."""
    detach_process_context()
    os.setsid()  # the process id is that of the session and group, by which all can be found
    redirect_stream(sys.stdin, None)
    if not keep_stdout:
        redirect_stream(sys.stdout, None)
    redirect_stream(sys.stderr, None)


def close_inherited() -> None:
    """Close descriptors that whoever started us left open, but for the standard ones."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one that listdir used
