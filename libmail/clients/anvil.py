"""Reports events of clients to anvil(8), which counts them.

Called by: smtpd. Asks: `private/anvil`. If anvil does not answer, no limit applies: a counter that
is down must not stop mail, nor one that hangs: it is left alone for a while then.

A process asks anvil about a client once, when it connects or with its first message; the answer
lends it events that it may allow without asking (`Account.take`), see daemons.anvil for the theory.
It reports what it has allowed after a second, or when the client's last session here ends, and at
once what anvil asks back. All goes over one connection, where answers come in any order; what is
lent is put to the account before anything else that has come behind it is looked at.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, cast

from libmail.ipc.codec import Unframer, WireError
from libmail.ipc.messages import (
    CODEC,
    ClientCounts,
    ClientEvent,
    ClientRecall,
    ClientUse,
    EventNumber,
    EventUse,
    Leaving,
)
from libmail.log import LOG
from libmail.net.unix_stream import connect_unix

__all__ = ["Account", "AnvilClient"]

_NOTHING: Final = ClientCounts(0, 0, 0)
_PATIENCE: Final = 10.0  # seconds to wait for an answer, during which the client waits, too
_REST: Final = 60.0  # seconds in which it is not asked again after it gave none
_QUEUE_FULL: Final = 0.1  # seconds until it is tried again
_REPORT: Final = 1.0  # seconds after which anvil hears of what was allowed

_Counted: TypeAlias = "asyncio.Future[ClientCounts]"


class _Budget:
    """Events of one kind. left: those that may be allowed until the time `until`. used: not
    reported yet. limit: in a time unit, over all processes."""

    __slots__ = ("left", "limit", "until", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = 0
        self.used = 0
        self.until = 0.0


class Account:
    """What a client may do in this process; its sessions share it. Each has to `leave`."""

    __slots__ = ("_anvil", "_budgets", "_present", "ident", "sessions")

    def __init__(self, anvil: "AnvilClient", ident: str, limits: Mapping[str, int]) -> None:
        """limits: by kind of event; other kinds are not limited."""
        self._anvil = anvil
        self._budgets = {event: _Budget(limit) for event, limit in limits.items()}
        self._present = 0
        self.ident = ident
        self.sessions = 0

    def take(self, event: str) -> bool:
        """Count an event that may be allowed without asking; False: anvil has to be asked."""
        budget = self._budgets[event]
        if not budget.left or time.monotonic() >= budget.until:
            return False
        budget.left -= 1
        budget.used += 1
        if budget.used == 1:
            self._anvil.report_soon(self)
        return True

    def has(self, event: str) -> bool:
        """Whether `take` would be True."""
        budget = self._budgets[event]
        return budget.left > 0 and time.monotonic() < budget.until

    async def connect(self) -> ClientCounts:
        """Count a connection, which lasts until `leave` with `connected`."""
        self._present += 1
        return await self.ask("connect")

    async def ask(self, event: str, *, only_report: bool = False) -> ClientCounts:
        """Count an event, or only ask, at anvil. Zeros while it does not answer."""
        return await self._anvil.ask(self, event, only_report=only_report)

    def leave(self, *, connected: bool) -> None:
        """A session is over. connected: its connection was counted."""
        self.sessions -= 1
        self._present -= connected
        last = not self.sessions
        report = self.report(returning=last)
        if report.uses or connected:
            self._anvil.send(report)
        if last:
            self._anvil.forget(self)

    # what is between this process and anvil

    def question(self, number: int, event: str, *, only_report: bool) -> bytes:
        """The messages that ask: what was used goes before, so that it is counted."""
        now = time.monotonic()
        budgets = self._budgets.items()
        over = any(budget.left and now >= budget.until for _, budget in budgets)
        report = self.report(returning=over)
        before = CODEC.encode(report) if report.uses else b""
        wanted = tuple(
            [EventNumber(kind, budget.limit) for kind, budget in budgets if not budget.left]
        )
        asked = ClientEvent(number, event, self.ident, self._present, only_report, wanted)
        return before + CODEC.encode(asked)

    def report(self, *, returning: bool = False, only: str = "") -> ClientUse:
        """What was used since the last report. returning: nothing is kept. only: of this kind."""
        uses = []
        for event, budget in self._budgets.items():
            if only and event != only:
                continue
            returned = budget.left if returning else 0
            if budget.used or returned:
                uses.append(EventUse(event, budget.used, returned))
                budget.left -= returned
                budget.used = 0
        return ClientUse(self.ident, self._present, tuple(uses))

    def lend(self, counts: ClientCounts) -> None:
        """Take what anvil lends."""
        for event, number in counts.lent:
            budget = self._budgets.get(event)
            if budget is not None:
                budget.left += number
                budget.until = counts.until

    def void(self) -> None:
        """Nothing is lent any more, and nobody to report to."""
        for budget in self._budgets.values():
            budget.left = budget.used = 0


class _Link(asyncio.Protocol):
    """One connection to anvil. recalled: is asked for the answer to ClientRecall. lost: is told
    that nothing is lent any more."""

    def __init__(
        self, recalled: Callable[[ClientRecall], ClientUse], lost: Callable[["_Link"], None]
    ) -> None:
        self._recalled = recalled
        self._lost = lost
        self._unframer = Unframer(CODEC)
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, tuple[_Counted, Account | None]] = {}
        self._leaving = False

    @property
    def usable(self) -> bool:
        """Whether events can be sent."""
        return self._transport is not None and not self._leaving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._unframer.receive_data(data)
        try:
            for message in self._unframer:
                self._take(message)
        except WireError as error:
            LOG.warning(f"anvil: {error}")
            self.close()

    def _take(self, message: object) -> None:
        if isinstance(message, ClientCounts):
            future, account = self._waiting.pop(message.number, (None, None))
            if account is not None and not self._leaving:
                account.lend(message)
            if future is not None and not future.done():
                future.set_result(message)
        elif isinstance(message, ClientRecall):
            self.send(CODEC.encode(self._recalled(message)))
        elif isinstance(message, Leaving):
            self._lost(self)  # what was used is reported to who counted it
            self._leaving = True
        else:
            raise WireError(f"unexpected {type(message).__name__}")
        if self._leaving and not self._waiting and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        if not self._leaving:
            self._lost(self)
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_result(_NOTHING)

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def send(self, data: bytes) -> None:
        """Send messages that have no answer."""
        if self._transport is not None:
            self._transport.write(data)

    def ask(self, number: int, data: bytes, account: Account | None) -> _Counted:
        """Send a question; its answer, zeros if the connection is lost.

        account: to which goes what the answer lends.
        """
        answer: _Counted = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer, account
        self.send(data)
        return answer


class AnvilClient:
    """The client of anvil(8) in a process. path: of its socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._link: _Link | None = None
        self._silent_until = 0.0  # of the loop's clock
        self._number = 0
        self._accounts: dict[str, Account] = {}
        self._used: dict[Account, None] = {}  # those that have something to report
        self._reporter: asyncio.TimerHandle | None = None

    def account(self, ident: str, limits: Mapping[str, int]) -> Account:
        """The account of a client, for one more of its sessions."""
        account = self._accounts.get(ident)
        if account is None:
            account = self._accounts[ident] = Account(self, ident, limits)
        account.sessions += 1
        return account

    async def count(self, event: str, ident: str, *, only_report: bool = False) -> ClientCounts:
        """Report an event of what has no account. Zeros while anvil does not answer."""
        link = await self._usable()
        if link is None:
            return _NOTHING
        number = self._next()
        question = ClientEvent(number, event, ident, only_report=only_report)
        return await self._answer(link, link.ask(number, CODEC.encode(question), None))

    # for accounts

    async def ask(self, account: Account, event: str, *, only_report: bool) -> ClientCounts:
        """Ask about an event of a client. Zeros while anvil does not answer."""
        link = await self._usable()
        if link is None:
            return _NOTHING
        number = self._next()
        self._used.pop(account, None)
        question = account.question(number, event, only_report=only_report)
        return await self._answer(link, link.ask(number, question, account))

    def report_soon(self, account: Account) -> None:
        """An account has something to report."""
        self._used[account] = None
        if self._reporter is None:
            self._reporter = asyncio.get_running_loop().call_later(_REPORT, self._report)

    def _report(self) -> None:
        self._reporter = None
        used, self._used = self._used, {}
        reports = [account.report() for account in used]
        if self._link is not None:
            self._link.send(b"".join([CODEC.encode(one) for one in reports if one.uses]))

    def send(self, report: ClientUse) -> None:
        """Send a report."""
        if self._link is not None:
            self._link.send(CODEC.encode(report))

    def forget(self, account: Account) -> None:
        """The last session of a client is over."""
        self._accounts.pop(account.ident, None)
        self._used.pop(account, None)

    # the connection

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _usable(self) -> _Link | None:
        """The connection, a new one if need be; None while anvil cannot be asked."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._silent_until:
            return None
        deadline = loop.time() + _PATIENCE
        while self._link is None or not self._link.usable:
            link = _Link(self._recalled, self._lost)
            try:
                connect_unix(self._path, link)
                self._link = link
            except OSError as error:
                if not isinstance(error, BlockingIOError) or loop.time() > deadline:
                    LOG.seldom(f"connect to {self._path}", f": {error.strerror}")
                    return None
                await asyncio.sleep(_QUEUE_FULL)
        return self._link

    async def _answer(self, link: _Link, answer: _Counted) -> ClientCounts:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE):
                return await answer
        except TimeoutError:
            LOG.seldom(f"{self._path}: no answer in time")
            link.close()
            self._silent_until = loop.time() + _REST
            return _NOTHING

    def _recalled(self, recall: ClientRecall) -> ClientUse:
        account = self._accounts.get(recall.ident)
        if account is None:
            return ClientUse(recall.ident, 0)  # it was given back meanwhile
        return account.report(returning=True, only=recall.event)

    def _lost(self, link: _Link) -> None:
        """What a connection has lent is void; who leaves hears of what was used."""
        if link is not self._link:
            return
        for account in self._accounts.values():
            report = account.report()
            if report.uses:
                link.send(CODEC.encode(report))
            account.void()
        self._used.clear()
        self._link = None

    def close(self) -> None:
        """Give up the connection: anvil forgets the clients that are connected."""
        if self._link is not None:
            self._link.close()
