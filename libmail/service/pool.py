"""The client's side of an internal service: a pool of connections to one UNIX socket.

Every problem with a service is `ServiceUnavailable`, a temporary condition. `call` is an exchange
of one request and one reply, `begin` the first part of a longer one.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar

from libmail.ipc.codec import WireError
from libmail.net.unix_stream import connect_unix
from libmail.service.connection import AnswerLate, Connection, ConnectionLost

__all__ = ["ServiceClient", "ServicePool", "ServiceUnavailable"]

_RETRY_DELAY: Final = 1.0
_SWEEP: Final = 1.0
_CONNECT_ERRORS: Final = (ConnectionRefusedError, FileNotFoundError, BlockingIOError)

M = TypeVar("M")


class ServiceUnavailable(Exception):
    """A service did not answer, or not in time: a temporary condition. The text says which."""


class ServiceClient(Protocol):
    """Sends requests to a service and returns its replies: a `ServicePool`, or a fake in tests."""

    async def call(self, request: object, reply: type[M]) -> M:
        """Send a request and await its reply. Raises ServiceUnavailable."""


class ServicePool:
    """Connections to the service at `path`, kept for `idle` seconds after their last use.

    idle: `ipc_idle`; life: `ipc_ttl`, after which a connection is not used again; timeout:
    `ipc_timeout`, for connecting and for an answer; all in seconds. wait: wait up to `timeout` for
    a service that is not up; False: fail at once, for services that callers can do without.
    """

    def __init__(
        self,
        path: str,
        *,
        idle: float = 5.0,
        life: float = 1000.0,
        timeout: float = 3600.0,
        wait: bool = True,
    ) -> None:
        self.path = path
        self._wait = wait
        self._idle_limit = idle
        self._life = life
        self._timeout = timeout
        self._idle: list[tuple[Connection, float, float]] = []  # with birth, idle since
        self._birth: dict[Connection, float] = {}
        self._due: dict[Connection, float] = {}  # when the awaited answer times out
        # Timeouts are checked for periodically: a timer for each would cost more than the rest of
        # most exchanges.
        self._interval = max(0.01, min(_SWEEP, idle or _SWEEP, timeout / 10))
        self._sweeper: asyncio.TimerHandle | None = None

    async def connect(self) -> Connection:
        """A fresh connection; may wait for a service that is not up. Raises ServiceUnavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while True:
            try:
                connection = Connection(self.path)
                connect_unix(self.path, connection)
            except _CONNECT_ERRORS as err:
                if not self._wait or loop.time() + _RETRY_DELAY > deadline:
                    raise ServiceUnavailable(f"connect to {self.path}: {err.strerror}") from err
                await asyncio.sleep(_RETRY_DELAY)
            except OSError as err:
                raise ServiceUnavailable(f"connect to {self.path}: {err.strerror}") from err
            else:
                self._birth[connection] = time.monotonic()
                return connection

    def take_idle(self) -> Connection | None:
        """A connection that was used before; the caller has to `release` or `discard` it."""
        while self._idle:
            connection, birth, _ = self._idle.pop()
            if connection.usable:
                self._birth[connection] = birth
                return connection
            connection.close()
        return None

    async def acquire(self) -> tuple[Connection, bool]:
        """A connection for one exchange, and whether it was used before."""
        connection = self.take_idle()
        if connection is not None:
            return connection, True
        return await self.connect(), False

    def release(self, connection: Connection) -> None:
        """Give back a connection after a complete exchange."""
        birth = self._birth.pop(connection)
        now = time.monotonic()
        if not connection.usable or now - birth > self._life or self._idle_limit <= 0:
            connection.close()
            return
        self._idle.append((connection, birth, now))
        if self._sweeper is None:
            self._schedule()

    def discard(self, connection: Connection) -> None:
        """Give back a connection on which an exchange was not completed."""
        self._birth.pop(connection, None)
        connection.abort()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self._interval, self._sweep)

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in [c for c, when in self._due.items() if when <= now]:
            connection.expire()
        limit = now - self._idle_limit
        for connection, _, since in self._idle:
            if since <= limit:
                connection.close()
        self._idle = [entry for entry in self._idle if entry[2] > limit]
        self._sweeper = None
        if self._idle or self._due:
            self._schedule()

    def close(self) -> None:
        """Close the idle connections."""
        for connection, _, _ in self._idle:
            connection.close()
        self._idle.clear()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for one exchange, put back if the block ends without exception.

        Raises ServiceUnavailable for a lost connection or a broken protocol inside the block.
        """
        connection, _ = await self.acquire()
        try:
            yield connection
        except (ConnectionLost, WireError) as err:
            self.discard(connection)
            raise ServiceUnavailable(f"{self.path}: {err or 'lost connection'}") from err
        except BaseException:
            self.discard(connection)
            raise
        self.release(connection)

    async def answer(
        self, connection: Connection, kind: type[M], timeout: float | None = None
    ) -> M:
        """The message that the service owes on this connection, which is in use.

        timeout: other than the pool's, seconds. Raises ConnectionLost, AnswerLate, WireError.
        """
        self._due[connection] = time.monotonic() + (timeout or self._timeout)
        if self._sweeper is None:
            self._schedule()
        try:
            return await connection.receive_as(kind)
        finally:
            del self._due[connection]

    async def call(self, request: object, reply: type[M]) -> M:
        """Send a request and await its reply. Raises ServiceUnavailable. See `begin`."""
        connection, answer = await self.begin(request, reply)
        self.release(connection)
        return answer

    async def begin(
        self, request: object, reply: type[M], timeout: float | None = None
    ) -> tuple[Connection, M]:
        """Send a request and await its reply. Returns the connection, too, for what follows.

        The caller has to `release` or `discard` the connection. An idle connection that turns out
        to be closed is replaced by another: the service may have retired between two exchanges. So
        a request may be seen twice, by two processes. timeout: other than the pool's, seconds.
        Raises ServiceUnavailable.
        """
        while True:
            connection, used = await self.acquire()
            try:
                connection.send(request)
                return connection, await self.answer(connection, reply, timeout)
            except AnswerLate as err:
                self.discard(connection)
                raise ServiceUnavailable(f"{self.path}: no answer in time") from err
            except ConnectionLost as err:
                self.discard(connection)
                if used:
                    continue
                raise ServiceUnavailable(f"{self.path}: lost connection") from err
            except WireError as err:
                self.discard(connection)
                raise ServiceUnavailable(f"{self.path}: {err}") from err
            except BaseException:
                self.discard(connection)
                raise

    async def notify(self, message: object) -> None:
        """Send a message that has no answer. Raises ServiceUnavailable."""
        connection, used = await self.acquire()
        try:
            connection.send(message)
        except ConnectionLost:
            self.discard(connection)
            if not used:
                raise ServiceUnavailable(f"{self.path}: lost connection") from None
            await self.notify(message)
            return
        self.release(connection)
