"""The client of Dovecot's auth service: one connection of the process for any number of requests.

Called by: smtpd. Asks: Dovecot's auth service, over a UNIX socket (`private/auth`, relative to the
queue directory, or absolute) or `inet:host:port`.

The connection is made when the mechanisms are needed for the first time, and kept. When Dovecot
restarts, pending requests end as temporary failures, and the next one makes a new connection.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, cast

from libmail.log import LOG
from libmail.sasl.dovecot import Answer, DovecotCore, DovecotError, Ready
from libmail.sasl.mechanism import Mechanism
from libmail.sasl.server import AuthContext, Challenge, Failure, Step

__all__ = ["Connect", "DovecotExchange", "DovecotServer"]

_LOST: Final = Failure("Connection lost to authentication server", temporary=True)
_LATE: Final = Failure("no answer from authentication server in time", temporary=True)
_TIMEOUT: Final = 10.0  # seconds to connect, and for the greeting
Connect: TypeAlias = Callable[[Callable[[], "DovecotConnection"]], Awaitable["DovecotConnection"]]
"""Connects the protocol that the argument makes. Raises OSError."""


class DovecotConnection(asyncio.Protocol):
    """One connection; `ready` is done when requests may begin, with an error if it never is."""

    def __init__(self) -> None:
        self._core = DovecotCore()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Step]] = {}
        self.ready: asyncio.Future[tuple[Mechanism, ...]]
        self.ready = asyncio.get_running_loop().create_future()

    @property
    def usable(self) -> bool:
        """Whether requests may begin."""
        return self._transport is not None and self.ready.done() and not self.ready.exception()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._core.greeting(os.getpid()))

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._core.receive_data(data)
        try:
            while (event := self._core.next_event()) is not None:
                self._take(event)
        except DovecotError as error:
            LOG.warning(f"SASL: authentication server: {error}")
            self.close()

    def _take(self, event: Ready | Answer) -> None:
        if isinstance(event, Ready):
            self.ready.set_result(event.mechanisms)
            return
        waiting = self._waiting.pop(event.request, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(event.step)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        if not self.ready.done():
            self.ready.set_exception(ConnectionResetError(0, "lost connection"))
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            if not one.done():
                one.set_result(_LOST)

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # requests

    def auth(self, mechanism: str, initial: bytes | None, context: AuthContext) -> int:
        """Begin a request; returns its number."""
        request, data = self._core.auth(mechanism, initial, context)
        self._write(data)
        return request

    def cont(self, request: int, response: bytes) -> None:
        """Go on with a request."""
        self._write(self._core.cont(request, response))

    def cancel(self, request: int) -> None:
        """Give up a request."""
        self._waiting.pop(request, None)
        self._write(self._core.cancel(request))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def step(self, request: int, timeout: float) -> Step:
        """The answer to what was sent last for a request."""
        if self._transport is None:
            return _LOST
        waiting: asyncio.Future[Step] = asyncio.get_running_loop().create_future()
        self._waiting[request] = waiting
        try:
            async with asyncio.timeout(timeout):
                return await waiting
        except TimeoutError:
            self.cancel(request)
            return _LATE


class DovecotExchange:
    """One attempt to log in."""

    def __init__(self, connection: DovecotConnection, request: int, timeout: float) -> None:
        self._connection = connection
        self._request = request
        self._timeout = timeout

    async def step(self, response: bytes) -> Step:
        """The client's response to a challenge."""
        self._connection.cont(self._request, response)
        return await self.answer()

    async def answer(self) -> Step:
        """Wait for the server."""
        return await self._connection.step(self._request, self._timeout)

    def cancel(self) -> None:
        """The client has given up."""
        self._connection.cancel(self._request)


class _NeverBegun:
    """An exchange that could not begin."""

    async def step(self, response: bytes) -> Step:
        """Never asked for: the exchange has ended with a failure."""
        raise AssertionError(response)

    def cancel(self) -> None:
        """Nothing to give up."""


class DovecotServer:
    """The authentication server at one address."""

    def __init__(self, path: str, connect: Connect, *, timeout: float = 300.0) -> None:
        """path: smtpd_sasl_path, for the log. timeout: seconds for each answer."""
        self._path = path
        self._connect = connect
        self._timeout = timeout
        self._connection: DovecotConnection | None = None
        self._connecting: asyncio.Task[DovecotConnection | None] | None = None

    def close(self) -> None:
        """Give up the connection."""
        if self._connection is not None:
            self._connection.close()

    async def mechanisms(self) -> tuple[Mechanism, ...]:
        """What the server offers now."""
        connection = await self._connected()
        return () if connection is None else connection.ready.result()

    async def begin(
        self, mechanism: str, initial: bytes | None, context: AuthContext
    ) -> tuple[DovecotExchange | _NeverBegun, Challenge | Step]:
        """Begin an exchange."""
        connection = await self._connected()
        if connection is None:
            return _NeverBegun(), _LOST
        exchange = DovecotExchange(
            connection, connection.auth(mechanism, initial, context), self._timeout
        )
        return exchange, await exchange.answer()

    async def _connected(self) -> DovecotConnection | None:
        """The connection, made anew if it is lost; None, with a warning, if that fails."""
        if self._connection is not None and self._connection.usable:
            return self._connection
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open())
        task = self._connecting
        try:
            self._connection = await asyncio.shield(task)
        finally:
            if task.done() and self._connecting is task:
                self._connecting = None
        return self._connection

    async def _open(self) -> DovecotConnection | None:
        connection: DovecotConnection | None = None
        try:
            async with asyncio.timeout(_TIMEOUT):
                connection = await self._connect(DovecotConnection)
                await connection.ready
        except (OSError, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            reason = "Connection timed out" if late else error.strerror
            LOG.warning(f"SASL: Connect to Dovecot auth socket '{self._path}' failed: {reason}")
            if connection is not None:
                connection.close()
            return None
        return connection
