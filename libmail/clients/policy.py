"""The client of policy servers (SMTPD_POLICY_README).

Called by: smtpd's restrictions (check_policy_service), through the lookup context. Asks: external
servers, over `inet:host:port` or `unix:path` (relative to the queue directory).

Connections are kept and shared by all sessions of the process; each carries one request at a time.
A request that fails is repeated on a new connection, up to `try_limit` times; then the answer is
`default_action`, which is temporary unless the administrator says otherwise.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeAlias, cast

from libmail.log import LOG
from libmail.lookup.policies import PolicyQuestion, PolicySettings
from libmail.net.endpoint import EndpointOpener
from libmail.smtp.policy import PolicyAnswer, PolicyError, encode_request

__all__ = ["Connect", "PolicyConnection", "PolicyServer", "PolicyServers"]

_MOST_KEPT: Final = 100
_WATCH: Final = 1.0  # seconds
Connect: TypeAlias = Callable[[Callable[[], "PolicyConnection"]], Awaitable["PolicyConnection"]]
"""Connects the protocol that the argument makes. Raises OSError."""


class PolicyConnection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time
        self._transport: asyncio.Transport | None = None
        self._answer: PolicyAnswer | None = None
        self._waiting: asyncio.Future[str] | None = None
        self.born = self.since = self.now()
        self.requests = 0

    @property
    def usable(self) -> bool:
        """Whether a request can be sent. Unrequested input closes the connection."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        answer, waiting = self._answer, self._waiting
        if answer is None or waiting is None or waiting.done():
            self.close()
            return
        try:
            action = answer.receive_data(data)
        except PolicyError as error:
            waiting.set_exception(error)
            self.close()
            return
        if action is not None:
            self._answer = None
            waiting.set_result(action)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_exception(ConnectionResetError(0, "Connection lost"))

    def expire(self) -> None:
        """There was no answer in time."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(TimeoutError())

    async def ask(self, request: bytes) -> str:
        """The action for a request. Raises OSError, PolicyError."""
        if self._transport is None:
            raise ConnectionResetError(0, "Connection lost")
        self.requests += 1
        self._answer = PolicyAnswer()
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        finally:
            self._waiting = None
            self.since = self.now()

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


class PolicyServer:
    """One server with its settings."""

    def __init__(self, settings: PolicySettings, connect: Connect) -> None:
        self.settings = settings
        self._connect = connect
        self._idle: deque[PolicyConnection] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        # When the answer is overdue. It is looked for now and then: a timer for each request costs
        # as much as the request.
        self._due: dict[PolicyConnection, float] = {}
        self._watcher: asyncio.TimerHandle | None = None

    async def ask(self, attributes: Iterable[tuple[str, str]]) -> str:
        """The action; `default_action` if there is no answer, which is logged."""
        settings = self.settings
        request = encode_request(attributes)
        tries = 0
        while True:
            connection = self._take_idle()
            kept = connection is not None
            try:
                if connection is None:
                    async with asyncio.timeout(settings.timeout):
                        connection = await self._connect(PolicyConnection)
                action = await self._answer(connection, request)
            except (OSError, TimeoutError, PolicyError) as error:
                if connection is not None:
                    connection.close()
                if kept and isinstance(error, OSError) and not isinstance(error, TimeoutError):
                    continue  # an idle connection was closed, which is no failure of the server
                self._warn(error)
            except BaseException:
                if connection is not None:
                    connection.close()  # a late answer would be taken for that of the next request
                raise
            else:
                self._keep(connection)
                return action
            tries += 1
            if tries >= settings.try_limit:
                return settings.default_action
            await asyncio.sleep(settings.retry_delay)

    async def _answer(self, connection: PolicyConnection, request: bytes) -> str:
        """Raises OSError, TimeoutError, PolicyError."""
        loop = asyncio.get_running_loop()
        self._due[connection] = loop.time() + self.settings.timeout
        if self._watcher is None:
            self._watcher = loop.call_later(self._interval, self._watch)
        try:
            return await connection.ask(request)
        finally:
            del self._due[connection]

    @property
    def _interval(self) -> float:
        return min(_WATCH, self.settings.timeout / 10)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [one for one, when in self._due.items() if when <= now]:
            connection.expire()
        self._watcher = loop.call_later(self._interval, self._watch) if self._due else None

    def _warn(self, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            reason = "Connection timed out"
        elif isinstance(error, OSError):
            reason = error.strerror or str(error)
        else:
            reason = str(error)
        LOG.warning(f"problem talking to server {self.settings.endpoint}: {reason}")

    # kept connections

    def _take_idle(self) -> PolicyConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and not self._worn(connection):
                return connection
            connection.close()
        return None

    def _worn(self, connection: PolicyConnection) -> bool:
        settings, now = self.settings, connection.now()
        return (
            now - connection.born >= settings.max_ttl
            or now - connection.since >= settings.max_idle
            or 0 < settings.request_limit <= connection.requests
        )

    def _keep(self, connection: PolicyConnection) -> None:
        if self._worn(connection) or len(self._idle) >= _MOST_KEPT:
            connection.close()
            return
        self._idle.append(connection)
        if self._sweeper is None:
            self._schedule()

    def _schedule(self) -> None:
        delay = max(1.0, min(self.settings.max_idle, self.settings.max_ttl))
        self._sweeper = asyncio.get_running_loop().call_later(delay, self._sweep)

    def _sweep(self) -> None:
        kept, self._idle = self._idle, deque()
        for connection in kept:
            if connection.usable and not self._worn(connection):
                self._idle.append(connection)
            else:
                connection.close()
        self._sweeper = None
        if self._idle:
            self._schedule()

    def close(self) -> None:
        """Give up the kept connections."""
        while self._idle:
            self._idle.pop().close()
        for timer in (self._sweeper, self._watcher):
            if timer is not None:
                timer.cancel()


class PolicyServers:
    """All servers that restrictions name. openers: made before the jail."""

    def __init__(self, openers: Mapping[PolicySettings, EndpointOpener]) -> None:
        self._servers = {
            settings: PolicyServer(settings, opener.connect) for settings, opener in openers.items()
        }

    async def ask(self, question: PolicyQuestion) -> str:
        """The action of a server, or its `default_action`."""
        return await self._servers[question.settings].ask(question.attributes)
