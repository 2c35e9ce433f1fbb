"""Sessions side by side that send so many messages altogether.

Each connection is a protocol of whoever sends; it says when a message was delivered, and when it
ends. A session that has no more messages to send ends; one that waits does not keep the others.
"""

import asyncio
import random
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from libmail.load.command_line import Options
from libmail.log import Fatal

__all__ = ["TRAFFIC_LETTERS", "Plan", "Sender", "Traffic", "read_plan"]

TRAFFIC_LETTERS: Final = "46cC:f:l:m:M:r:R:s:t:vw:T:"
_PAUSE: Final = 0.01  # seconds before another attempt to connect


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be sent, and where to.

    path: of a UNIX socket, or "". recipients: of each message. length: octets of the message's
    payload, None for the usual one. fixed, random: seconds between messages. attempts: to connect.
    window: octets, 0 for the system's.
    """

    path: str
    host: str
    service: str
    family: int
    host_name: str
    sender: str
    recipient: str
    recipients: int
    messages: int
    sessions: int
    length: int | None
    fixed: int
    random: int
    attempts: int
    window: int
    counting: bool
    verbose: bool


def read_plan(options: Options, where: str, default_service: str) -> Plan:
    """What the options say that all generators have. Raises Fatal."""
    name = options.text("-M", socket.gethostname())
    if "-w" in options and "-R" in options:
        raise Fatal("the options -w and -R exclude each other")
    path, host, service = _endpoint(where, default_service)
    family = socket.AF_UNSPEC
    if "-4" in options or "-6" in options:
        family = socket.AF_INET if "-4" in options else socket.AF_INET6
    usual = f"foo@{name}"
    return Plan(
        path=path,
        host=host,
        service=service,
        family=family,
        host_name=name,
        sender=options.text("-f", usual),
        recipient=options.text("-t", usual),
        recipients=options.number("-r", 1, 1),
        messages=options.number("-m", 1, 1),
        sessions=options.number("-s", 1, 1),
        length=options.number("-l", 0) if "-l" in options else None,
        fixed=options.number("-w", 0),
        random=options.number("-R", 0),
        attempts=options.number("-C", 1, 1),
        window=options.number("-T", 0),
        counting="-c" in options,
        verbose="-v" in options,
    )


def _endpoint(where: str, default_service: str) -> tuple[str, str, str]:
    """(path, host, service) of `unix:path` or `[inet:]host[:port]`."""
    if where.startswith("unix:"):
        return where.removeprefix("unix:"), "", ""
    where = where.removeprefix("inet:")
    if where.startswith("["):
        host, _, rest = where[1:].partition("]")
        return "", host, rest.removeprefix(":") or default_service
    host, _, service = where.partition(":")
    return "", host, service or default_service


class Sender(asyncio.Protocol):
    """A connection that sends. over: done when it has ended; its exception is what is wrong."""

    over: asyncio.Future[None]


class Traffic:
    """Runs the sessions. make: a connection that sends, with numbers from `next_message`."""

    def __init__(self, plan: Plan, make: Callable[["Traffic"], Sender]) -> None:
        self.plan = plan
        self._make = make
        self._left = plan.messages
        self._delivered = 0
        self._pause = plan.random or plan.fixed

    def next_message(self) -> int | None:
        """The number of a message that is to be sent now, from 0 on; None if there is no more."""
        if not self._left:
            return None
        self._left -= 1
        return self._left

    @property
    def more(self) -> bool:
        """Whether there are messages to send."""
        return self._left > 0

    def delivered(self) -> None:
        """A message has been taken by the server."""
        self._delivered += 1
        if self.plan.counting:
            sys.stdout.write(f"{self._delivered}\r")
            sys.stdout.flush()

    def pause(self) -> float:
        """Seconds to wait before the next message."""
        if not self._pause:
            return 0.0
        return random.uniform(0, self.plan.random) if self.plan.random else float(self.plan.fixed)

    async def run(self) -> None:
        """Send everything. Raises Fatal, OSError."""
        sessions = min(self.plan.sessions, self.plan.messages)
        addresses = [] if self.plan.path else await self._addresses()
        async with asyncio.TaskGroup() as group:
            for _ in range(sessions):
                group.create_task(self._session(addresses))
        if self.plan.counting:
            sys.stdout.write("\n")

    async def _session(self, addresses: list[tuple[int, tuple[object, ...]]]) -> None:
        while self.more:
            sock = await self._connected(addresses)
            loop = asyncio.get_running_loop()
            _, sender = await loop.create_connection(lambda: self._make(self), sock=sock)
            await sender.over
            if self.more:
                await asyncio.sleep(self.pause())

    async def _addresses(self) -> list[tuple[int, tuple[object, ...]]]:
        loop, plan = asyncio.get_running_loop(), self.plan
        try:
            found = await loop.getaddrinfo(
                plan.host, plan.service, family=plan.family, type=socket.SOCK_STREAM
            )
        except socket.gaierror as err:
            raise Fatal(f"{plan.host}: {err.strerror}") from None
        return [(family, address) for family, _, _, _, address in found]

    async def _connected(self, addresses: list[tuple[int, tuple[object, ...]]]) -> socket.socket:
        """A connection to the first address that takes it. Raises OSError."""
        for attempt in range(self.plan.attempts, 0, -1):
            with suppress(ConnectionRefusedError, ConnectionResetError):
                return await self._attempt(addresses)
            if attempt > 1:
                await asyncio.sleep(_PAUSE)
        raise Fatal("connect: Connection refused")

    async def _attempt(self, addresses: list[tuple[int, tuple[object, ...]]]) -> socket.socket:
        problem: OSError | None = None
        for family, address in self._places(addresses):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                if self.plan.window:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.plan.window)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.plan.window)
                await asyncio.get_running_loop().sock_connect(sock, address)
                return sock
            except OSError as err:
                sock.close()
                problem = err
        raise problem or Fatal(f"{self.plan.host}: no addresses")

    def _places(
        self, addresses: list[tuple[int, tuple[object, ...]]]
    ) -> Iterator[tuple[int, str | tuple[object, ...]]]:
        if self.plan.path:
            yield socket.AF_UNIX, self.plan.path
        yield from addresses
