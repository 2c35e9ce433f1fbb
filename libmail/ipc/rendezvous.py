"""Where a service is reached whose type in master.cf is fifo.

A FIFO takes requests of a letter from those who may write to it; it has no answers and does not
tell who writes. Our services speak more than that, so master(8) has them listen on a socket beside
it as well, and clients that find a FIFO go there.
"""

from __future__ import annotations

import os
import stat

__all__ = ["beside_fifo", "instead_of"]


def beside_fifo(path: str) -> str:
    """The socket of the service whose FIFO has this path."""
    return f"{path}.stream"


def instead_of(path: str) -> str:
    """The socket to connect to where the connection to `path` was refused; "" if there is none."""
    try:
        is_fifo = stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return ""
    return beside_fifo(path) if is_fifo else ""
