"""The Cyrus library as authentication server of smtpd: what may block is done in threads.

Called by: smtpd. Asks: what smtpd.conf of the library names: saslauthd, sasldb, SQL, ...

A thread that waits for saslauthd holds up one login. When all threads wait, further logins do so,
too, and end as temporary failures in time.
"""

from collections.abc import Callable, Sequence
from typing import Final

from libmail.log import LOG
from libmail.sasl.cyrus import CyrusError, Library, Login, Outcome
from libmail.sasl.mechanism import Mechanism
from libmail.sasl.server import AuthContext, Failure, Step
from libmail.tables.table import TableRetry
from libmail.tables.worker import Worker
from libmail.text.printable import printable

__all__ = ["CyrusServer"]

_THREADS: Final = 16  # logins at a time
_WAITING: Final = 200  # that wait for one of them
_TIMEOUT: Final = 60.0  # seconds for a step
_LATE: Final = Failure("no answer from authentication server in time", temporary=True)


class CyrusServer:
    """The server over the library. timeout: seconds for a step."""

    def __init__(self, library: Library, *, timeout: float = _TIMEOUT) -> None:
        self._library = library
        self._mechanisms: tuple[Mechanism, ...] = ()
        self._worker: Worker[None] = Worker(
            "SASL", lambda: None, threads=_THREADS, waiting=_WAITING, timeout=timeout
        )

    async def mechanisms(self) -> Sequence[Mechanism]:
        """What the library offers; nothing, with a warning, if it cannot be asked."""
        if not self._mechanisms:
            try:
                self._mechanisms = await self._worker.run(lambda _: self._library.mechanisms())
            except (CyrusError, TableRetry) as error:
                LOG.warning(str(error))
        return self._mechanisms

    async def begin(
        self, mechanism: str, initial: bytes | None, context: AuthContext
    ) -> tuple["_Exchange", Step]:
        """Begin an exchange."""
        login = Login(self._library, context)
        exchange = _Exchange(self, login)
        return exchange, await self.call(lambda: login.begin(mechanism, initial))

    async def call(self, work: Callable[[], Outcome]) -> Step:
        """A step, in a thread."""
        try:
            step, lines = await self._worker.run(lambda _: work())
        except TableRetry:
            return _LATE
        for line in lines:
            LOG.warning(printable(line))
        return step


class _Exchange:
    """One attempt to log in."""

    def __init__(self, server: CyrusServer, login: Login) -> None:
        self._server = server
        self._login = login

    async def step(self, response: bytes) -> Step:
        return await self._server.call(lambda: self._login.step(response))

    def cancel(self) -> None:
        """The library forgets it when nobody has it any more."""
