"""anvil(8): counts the connections and requests of clients.

called by: smtpd (ClientEvent, ClientUse). asks: smtpd, for what was lent (ClientRecall). writes:
nothing. tells: nobody. needs: nothing but its socket.

**Theory.** One process counts for all others, so the numbers are exact however many processes serve
a service. A question for each event would be exact, too, but a message would wait for two answers.
So anvil lends: the answer to a process's question about a client says how many messages,
recipients, TLS sessions and logins of this client it may allow until the time unit is over, without
asking again. What it allows it reports within a second. That is escrow, as in databases: a limit
is a sum that is divided among those who spend it, and whoever has a part needs nobody's consent.

- *Nobody allows too much*: what is counted and what is lent are never more than the limit.
- *Nobody refuses what is not too much*: when nothing is left to lend, anvil asks back what others
  have and did not use, and answers only then. A refusal is the answer to a question, so its number
  is exact as well. Far from the limit no process ever waits for another.
- *Half is lent, not all*, and less to one of many (`counts._Rate.share`): a process asks some
  log2(limit) times in a unit, and the last events before the limit are counted here, not lent.
- *Who is gone has used what it has reported*: a process that crashes takes with it at most what it
  allowed in its last second. Who is there but does not answer has used all, and is cut off.

Connections are counted while they last: each report of a process says how many of the client it
has, so that a new anvil learns of them, and a process that ends takes its own along. Logins that
fail are counted apart, in a unit of their own, for addresses and for logins. A client is a text,
"service:address"; its time unit begins with its first event. Nothing is kept of a client whose unit
is over and who is not connected, and a process without clients stays for a unit.

The maxima are logged every `anvil_status_update_time` seconds and at the end, with the time at
which they occurred, and begin anew. Events that were lent are known after a second.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from daemons.anvil.counts import KINDS, Counts, Process
from daemons.anvil.failures import FAILURE, Failures
from daemons.anvil.maxima import Statistics
from libmail.ipc.codec import WireError
from libmail.ipc.messages import ClientCounts, ClientEvent, ClientRecall, ClientUse
from libmail.log import LOG
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE", "Anvil", "AnvilParams"]

_MAX_IDENT: Final = 256


@dataclass(frozen=True, slots=True)
class AnvilParams:
    """Times in seconds."""

    anvil_rate_time_unit: float
    anvil_status_update_time: float
    smtpd_sasl_failure_time: float


class Anvil:
    """Serves the processes that report events."""

    def __init__(self, counts: Counts, failures: Failures) -> None:
        self._counts = counts
        self._failures = failures

    async def serve(self, connection: Connection) -> None:
        """One process, to its end. Raises ConnectionLost, WireError."""

        def send(message: object) -> None:
            with suppress(ConnectionLost):  # its session hears of that
                connection.send(message)

        def recall(ident: str, event: str) -> None:
            send(ClientRecall(ident, event))

        process = Process(recall, connection.expire)
        try:
            while True:
                match await connection.receive():
                    case ClientEvent() as question:
                        _check(question)
                        if question.event == FAILURE:
                            send(self._failure(question))
                        else:
                            self._counts.ask(process, question, send)
                    case ClientUse() as report:
                        self._counts.take_back(process, report)
                    case other:
                        raise WireError(f"unexpected {type(other).__name__}")
        finally:
            self._counts.forget(process)

    def _failure(self, question: ClientEvent) -> ClientCounts:
        ident, failures = question.ident, self._failures
        number = failures.number(ident) if question.only_report else failures.count(ident)
        return ClientCounts(question.number, 0, number)

    def log(self) -> None:
        """Log the maxima."""
        for line in self._counts.maxima.lines():
            LOG.event(Statistics(line))


def _check(question: ClientEvent) -> None:
    """Raises WireError."""
    if len(question.ident) > _MAX_IDENT:
        raise WireError("client name too long")
    for event in (question.event, *(limit.event for limit in question.limits)):
        if event not in KINDS and (event != FAILURE or question.limits):
            raise WireError(f"unknown event: {event[:40]!r}")


def _prepare(startup: Startup) -> AnvilParams:
    return startup.config.load(AnvilParams)


async def _start(params: AnvilParams, runtime: Runtime) -> Handlers:
    counts = Counts(params.anvil_rate_time_unit, asyncio.get_running_loop().call_later)
    anvil = Anvil(counts, Failures(params.smtpd_sasl_failure_time))

    async def log_often() -> None:
        while True:
            await asyncio.sleep(params.anvil_status_update_time)
            anvil.log()

    runtime.spawn(log_often())
    runtime.stay(max(params.anvil_rate_time_unit, params.smtpd_sasl_failure_time))

    async def drain() -> None:
        anvil.log()

    return Handlers(stream=exchanges(runtime, anvil.serve, network=True), drain=drain)


SERVICE: Final = Service("anvil", _prepare, _start, shared=True)
