"""anvil(8): counts the connections and requests of clients.

called by: smtpd (ClientEvent). asks: nobody. writes: nothing. tells: nobody. needs: nothing but its
socket.

One process counts for all others, so the numbers are exact however many processes serve a service.
A client is a text, "service:address". Connections are counted while they last; a process that ends
without saying so takes its connections with it, for they belong to its connection to us. Rates are
numbers of events in the current time unit, which begins with the first event. Logins that fail are
counted apart, in a unit of their own, for addresses and for logins. Nothing is kept of a
client whose unit is over and who is not connected.

The maxima are logged every `anvil_status_update_time` seconds and at the end, with the time at
which they occurred, and begin anew.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from libmail.ipc.codec import WireError
from libmail.ipc.messages import ClientCounts, ClientEvent
from libmail.log import LOG
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE", "AnvilParams", "Counts"]

_EVENTS: Final = ("connect", "message", "recipient", "newtls", "auth")
_FAILURE: Final = "authfail"
_TITLES: Final = {
    "connect": "connection rate",
    "message": "message rate",
    "recipient": "recipient rate",
    "newtls": "newtls rate",
    "auth": "auth rate",
}
_ORDER: Final = (
    "connection rate", "connection count", "message rate", "recipient rate", "newtls rate",
    "auth rate",
)  # fmt: skip
_MAX_IDENT: Final = 256
_MOST_FAILURES: Final = 100_000  # clients and logins with failures that are kept


@dataclass(frozen=True, slots=True)
class AnvilParams:
    """Times in seconds."""

    anvil_rate_time_unit: float
    anvil_status_update_time: float
    smtpd_sasl_failure_time: float


@dataclass(slots=True)
class _Client:
    """Of one client: connections now, events since `start`."""

    start: float
    connections: int = 0
    rates: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Maximum:
    """The highest value of a kind: whose, and when it was reached (of the epoch)."""

    value: int
    ident: str
    when: float


class Statistics(NamedTuple):
    """The highest of some number since the last such line. what: number and whose it was."""

    what: str

    def text(self) -> str:
        """`statistics: max connection rate 3/60s for (smtp:1.2.3.4) at Nov  3 12:00:00`."""
        return f"statistics: {self.what}"


class Counts:
    """What is counted. clock: seconds that only go up; wall: of the epoch."""

    def __init__(
        self,
        unit: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        most: int = sys.maxsize,
    ) -> None:
        """most: clients of whom something is kept; what others do is their first event."""
        self._unit = unit
        self._most = most
        self._clock = clock
        self._wall = wall
        self._clients: dict[str, _Client] = {}
        self._maxima: dict[str, _Maximum] = {}
        self._largest: _Maximum | None = None
        self._swept = clock()

    def count(self, event: str, ident: str) -> ClientCounts:
        """An event has occurred: the client's connections, and events of this kind in the unit."""
        client = self._current(ident)
        if client is None:
            return ClientCounts(0, 1)
        rate = client.rates[event] = client.rates.get(event, 0) + 1
        if event == "connect":
            client.connections += 1
            self._note("connection count", client.connections, ident)
        if event in _TITLES:
            self._note(_TITLES[event], rate, ident)
        return ClientCounts(client.connections, rate)

    def report(self, event: str, ident: str) -> ClientCounts:
        """The same numbers, without an event."""
        client = self._clients.get(ident)
        if client is None:
            return ClientCounts(0, 0)
        late = self._clock() - client.start >= self._unit
        return ClientCounts(client.connections, 0 if late else client.rates.get(event, 0))

    def disconnect(self, ident: str, connections: int = 1) -> None:
        """Connections of a client are over."""
        client = self._clients.get(ident)
        if client is not None:
            client.connections = max(0, client.connections - connections)

    def _current(self, ident: str) -> _Client | None:
        now = self._clock()
        if now - self._swept >= self._unit:
            self._sweep(now)
        client = self._clients.get(ident)
        if client is None:
            if len(self._clients) >= self._most:
                return None
            client = self._clients[ident] = _Client(now)
            if self._largest is None or len(self._clients) > self._largest.value:
                self._largest = _Maximum(len(self._clients), "", self._wall())
        elif now - client.start >= self._unit:
            client.start, client.rates = now, {}
        return client

    def _sweep(self, now: float) -> None:
        """Forget clients of whom nothing is known any more."""
        self._swept = now
        for ident, client in list(self._clients.items()):
            if not client.connections and now - client.start >= self._unit:
                del self._clients[ident]

    def _note(self, title: str, value: int, ident: str) -> None:
        known = self._maxima.get(title)
        if known is None or value > known.value:
            self._maxima[title] = _Maximum(value, ident, self._wall())

    def statistics(self) -> list[str]:
        """Lines for the log, about the time since they were asked for last."""
        lines = []
        for title in _ORDER:
            found = self._maxima.get(title)
            if found is not None:
                unit = "" if title == "connection count" else f"/{self._unit:.0f}s"
                lines.append(
                    f"max {title} {found.value}{unit} for ({found.ident}) at {_stamp(found.when)}"
                )
        if self._largest is not None:
            lines.append(f"max cache size {self._largest.value} at {_stamp(self._largest.when)}")
        self._maxima, self._largest = {}, None
        return lines


def _stamp(when: float) -> str:
    """As in the head of a log line, "Nov  3 12:00:00", in local time."""
    local = time.localtime(when)
    return f"{time.strftime('%b', local)} {local.tm_mday:2d} {time.strftime('%H:%M:%S', local)}"


def _prepare(startup: Startup) -> AnvilParams:
    return startup.config.load(AnvilParams)


async def _start(params: AnvilParams, runtime: Runtime) -> Handlers:
    counts = Counts(params.anvil_rate_time_unit)
    failures = Counts(params.smtpd_sasl_failure_time, most=_MOST_FAILURES)

    def log() -> None:
        for line in counts.statistics():
            LOG.event(Statistics(line))

    async def log_often() -> None:
        while True:
            await asyncio.sleep(params.anvil_status_update_time)
            log()

    runtime.spawn(log_often())

    async def session(connection: Connection) -> None:
        held: Counter[str] = Counter()
        try:
            while True:
                request = await connection.receive_as(ClientEvent)
                _check(request)
                kind = failures if request.event == _FAILURE else counts
                answer = _answer(kind, held, request)
                if answer is not None:
                    connection.send(answer)
        finally:
            for ident, connections in held.items():
                counts.disconnect(ident, connections)

    async def drain() -> None:
        log()

    return Handlers(stream=exchanges(runtime, session, network=True), drain=drain)


def _check(request: ClientEvent) -> None:
    if len(request.ident) > _MAX_IDENT:
        raise WireError("client name too long")
    if request.event not in (*_EVENTS, _FAILURE, "disconnect"):
        raise WireError(f"unknown event: {request.event[:40]!r}")


def _answer(counts: Counts, held: Counter[str], request: ClientEvent) -> ClientCounts | None:
    """held: connections of clients that were told over this connection."""
    event, ident = request.event, request.ident
    if event == "disconnect":
        if held[ident] > 0:
            held[ident] -= 1
            counts.disconnect(ident)
            if not held[ident]:
                del held[ident]
        return None
    if request.only_report:
        return counts.report(event, ident)
    if event == "connect":
        held[ident] += 1
    return counts.count(event, ident)


SERVICE: Final = Service("anvil", _prepare, _start, shared=True)
