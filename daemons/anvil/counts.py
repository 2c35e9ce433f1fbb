"""The numbers of each client, and what of them is lent to which process.

A rate is the number of events that are known of, and what processes may still allow by themselves.
Their sum never exceeds the limit of whoever is lent something, so nobody allows what is too much.
An event for which nothing is left is refused only once nothing is lent any more: what others have
is asked back before (`_Rate.waiting`), so nobody refuses what is not. Reports say what was done
since the one before, never what the state is: so they may cross with what is lent meanwhile.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeAlias

from daemons.anvil.maxima import Maxima
from libmail.ipc.codec import WireError
from libmail.ipc.messages import ClientCounts, ClientEvent, ClientUse, EventNumber, EventUse

__all__ = ["KINDS", "Counts", "Process"]

KINDS: Final = frozenset({"connect", "message", "recipient", "newtls", "auth"})
_MOST_LEASES: Final = 100_000  # of a process
_PATIENCE: Final = 5.0  # seconds for the answer to a recall

Answer: TypeAlias = Callable[[ClientCounts], None]
Later: TypeAlias = Callable[[float, Callable[[], None]], object]
"""Calls something after so many seconds."""


class _Rate:
    """Events of one kind, of one client in one unit.

    count: those that are known of. lent: by process, what it has left as far as is known. waiting:
    questions that are asked again when nothing is lent. sharers: the most processes that had some.
    """

    __slots__ = ("count", "ident", "lent", "sharers", "waiting")

    def __init__(self, ident: str) -> None:
        self.ident = ident
        self.count = 0
        self.lent: dict[Process, int] = {}
        self.waiting: deque[Callable[[], None]] = deque()
        self.sharers = 0

    @property
    def taken(self) -> int:
        """Events that there were, or may be without our being asked."""
        return self.count + sum(self.lent.values())

    def share(self, process: "Process", limit: int) -> int:
        """How much to lend: half of what is left to one process alone, less where there are many.

        So a process asks about log2(limit) times in a unit, and the last events are not scattered
        over all of them.
        """
        free = limit - self.taken
        if free <= 0 or self.waiting:
            return 0
        self.sharers = max(self.sharers, len(self.lent) + (process not in self.lent))
        return (free + 1) // 2 if self.sharers == 1 else free // (2 * self.sharers)

    def settle(self) -> None:
        """Something was given back; if nothing is lent now, those that wait for it go on."""
        while self.waiting and not self.lent:
            self.waiting.popleft()()


class _Client:
    """Of one client: connections now, events until `end`."""

    __slots__ = ("connections", "end", "rates")

    def __init__(self, end: float) -> None:
        self.end = end
        self.connections = 0
        self.rates: dict[str, _Rate] = {}


class Process:
    """One that reports events.

    present: connections of clients to it. leases: where something is lent to it, by client and
    kind. recalled: what it was asked to give back, with a mark of that request. recall: asks it.
    drop: ends its connection. gone: it is not there any more.
    """

    __slots__ = ("drop", "gone", "leases", "present", "recall", "recalled")

    def __init__(self, recall: Callable[[str, str], None], drop: Callable[[], None]) -> None:
        self.recall = recall
        self.drop = drop
        self.present: dict[str, int] = {}
        self.leases: dict[tuple[str, str], _Rate] = {}
        self.recalled: dict[_Rate, object] = {}
        self.gone = False


class Counts:
    """What is counted. clock: seconds that only go up; wall: of the epoch."""

    def __init__(
        self,
        unit: float,
        later: Later,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.maxima = Maxima(unit, wall)
        self._unit = unit
        self._later = later
        self._clock = clock
        self._clients: dict[str, _Client] = {}
        self._swept = clock()

    # questions

    def ask(self, process: Process, question: ClientEvent, answer: Answer) -> None:
        """An event has occurred, or is asked about; the answer may have to wait for others."""
        if process.gone:
            return
        ident, event = question.ident, question.event
        client = self._current(ident)
        self._set_present(process, ident, client, question.present)
        rate = self._rate(client, ident, event)
        limit = dict(question.limits).get(event, 0)
        if limit and rate.lent and rate.taken + (not question.only_report) > limit:
            rate.waiting.append(partial(self.ask, process, question, answer))
            self._recall(rate, event)
            return
        if not question.only_report:
            self._count(rate, event, 1)
            if event == "connect":
                self.maxima.note_connections(client.connections, ident)
        lent = tuple(self._lend(process, client, ident, question.limits))
        answer(ClientCounts(question.number, client.connections, rate.count, client.end, lent))

    def _count(self, rate: _Rate, event: str, number: int) -> None:
        rate.count += number
        self.maxima.note_rate(event, rate.count, rate.ident)

    def _lend(
        self, process: Process, client: _Client, ident: str, limits: Iterable[EventNumber]
    ) -> Iterable[EventNumber]:
        for event, limit in limits:
            rate = self._rate(client, ident, event)
            number = rate.share(process, limit)
            if not number or len(process.leases) >= _MOST_LEASES:
                continue
            old = process.leases.get((ident, event))
            if old is not None and old is not rate:
                self._end_lease(process, (ident, event))
            process.leases[ident, event] = rate
            rate.lent[process] = rate.lent.get(process, 0) + number
            yield EventNumber(event, number)

    def _recall(self, rate: _Rate, event: str) -> None:
        """Ask for all that is lent. Who does not answer is taken to have used it, and dropped."""
        for process in rate.lent:
            if rate not in process.recalled:
                mark = process.recalled[rate] = object()
                process.recall(rate.ident, event)
                self._later(_PATIENCE, partial(self._overdue, process, rate, mark))

    def _overdue(self, process: Process, rate: _Rate, mark: object) -> None:
        if process.recalled.get(rate) is mark:
            self.forget(process, used=True)
            process.drop()

    # reports

    def take_back(self, process: Process, report: ClientUse) -> None:
        """What has become of what was lent; connections are over. Raises WireError."""
        ident = report.ident
        client = self._clients.get(ident)
        if client is None and report.present:
            client = self._current(ident)
        if client is not None:
            self._set_present(process, ident, client, report.present)
        for use in report.uses:
            self._take_one(process, ident, use)

    def _take_one(self, process: Process, ident: str, use: EventUse) -> None:
        event, used, returned = use
        rate = process.leases.get((ident, event))
        left = (0 if rate is None else rate.lent[process]) - used - returned
        if used < 0 or returned < 0 or left < 0:
            raise WireError("more was given back than was lent")
        if rate is None:
            return
        if used:
            self._count(rate, event, used)
        if left:
            rate.lent[process] = left
        else:
            self._end_lease(process, (ident, event))

    def _end_lease(self, process: Process, key: tuple[str, str]) -> None:
        rate = process.leases.pop(key)
        del rate.lent[process]
        process.recalled.pop(rate, None)
        rate.settle()

    def forget(self, process: Process, *, used: bool = False) -> None:
        """A process is gone. used: take what was lent to it as used."""
        process.gone = True
        for ident in list(process.present):
            self._set_present(process, ident, self._clients[ident], 0)
        for key, rate in list(process.leases.items()):
            if used:
                self._count(rate, key[1], rate.lent[process])
            self._end_lease(process, key)

    # clients

    def _set_present(self, process: Process, ident: str, client: _Client, number: int) -> None:
        if number < 0:
            raise WireError(f"{number} connections")
        client.connections += number - process.present.pop(ident, 0)
        if number:
            process.present[ident] = number

    def _rate(self, client: _Client, ident: str, event: str) -> _Rate:
        rate = client.rates.get(event)
        if rate is None:
            rate = client.rates[event] = _Rate(ident)
        return rate

    def _current(self, ident: str) -> _Client:
        """A client, in a unit that is not over."""
        now = self._clock()
        if now - self._swept >= self._unit:
            self._sweep(now)
        client = self._clients.get(ident)
        if client is None:
            client = self._clients[ident] = _Client(now + self._unit)
            self.maxima.note_clients(len(self._clients))
        elif now >= client.end:
            client.end, client.rates = now + self._unit, {}
        return client

    def _sweep(self, now: float) -> None:
        """Forget clients of whom nothing is known any more."""
        self._swept = now
        for ident, client in list(self._clients.items()):
            if not client.connections and now >= client.end:
                del self._clients[ident]
