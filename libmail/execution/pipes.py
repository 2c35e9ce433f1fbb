"""The ends of the pipes to a command that are ours: its standard input, and what it prints."""

import asyncio
import os
from collections.abc import Iterator
from typing import Final

__all__ = ["Collector", "Feeder"]

_OUTPUT_LIMIT: Final = 4096
_READ: Final = 65536


class Feeder:
    """Writes the message into a pipe, as fast as the command reads it."""

    def __init__(self, fd: int, pieces: Iterator[bytes]) -> None:
        self._fd = fd
        self._pieces = pieces
        self._rest = memoryview(b"")
        self._loop = asyncio.get_running_loop()
        self._waiting = False
        os.set_blocking(fd, False)

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to write, or nobody to read it."""
        return self._fd < 0

    def run(self) -> None:
        """Write until the pipe is full or all is written; goes on by itself."""
        try:
            while True:
                while not self._rest:
                    self._rest = memoryview(next(self._pieces))
                self._rest = self._rest[os.write(self._fd, self._rest) :]
        except BlockingIOError:
            if not self._waiting:
                self._waiting = True
                self._loop.add_writer(self._fd, self.run)
        except (StopIteration, BrokenPipeError):
            self.close()  # a command need not read everything: its exit status counts

    def close(self) -> None:
        """Close the pipe; can be called again."""
        if self._fd < 0:
            return
        if self._waiting:
            self._loop.remove_writer(self._fd)
        os.close(self._fd)
        self._fd = -1


class Collector:
    """Reads what the command prints; keeps the first octets of it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._kept = bytearray()
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self.drain)

    @property
    def text(self) -> str:
        """What it printed."""
        return self._kept.decode("utf-8", "surrogateescape")

    def drain(self) -> None:
        """Read what is there."""
        try:
            while self._fd >= 0:
                data = os.read(self._fd, _READ)
                if not data:
                    self.close()
                self._kept += data[: _OUTPUT_LIMIT - len(self._kept)]
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close the pipe; can be called again."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
