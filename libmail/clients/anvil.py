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
from collections.abc import Mapping
from typing import Final, TypeAlias

from libmail.ipc.messages import (
    CODEC,
    ClientCounts,
    ClientEvent,
    ClientRecall,
    ClientUse,
    EventNumber,
    EventUse,
)
from libmail.log import LOG
from libmail.service.link import Link, open_link

__all__ = ["Account", "AnvilClient"]

_NOTHING: Final = ClientCounts(0, 0, 0)
_PATIENCE: Final = 10.0  # seconds to wait for an answer, during which the client waits, too
_REST: Final = 60.0  # seconds in which it is not asked again after it gave none
_REPORT: Final = 1.0  # seconds after which anvil hears of what was allowed

_Link: TypeAlias = Link[ClientCounts]


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


class AnvilClient:
    """The client of anvil(8) in a process. path: of its socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._link: _Link | None = None
        self._opening = asyncio.Lock()
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
        return await self._exchange(link, number, CODEC.encode(question), None)

    # for accounts

    async def ask(self, account: Account, event: str, *, only_report: bool) -> ClientCounts:
        """Ask about an event of a client. Zeros while anvil does not answer."""
        link = await self._usable()
        if link is None:
            return _NOTHING
        number = self._next()
        self._used.pop(account, None)
        question = account.question(number, event, only_report=only_report)
        return await self._exchange(link, number, question, account)

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
        if asyncio.get_running_loop().time() < self._silent_until:
            return None
        if self._link is not None and self._link.usable:
            return self._link
        async with self._opening:
            if self._link is None or not self._link.usable:
                link = Link("anvil", ClientCounts, self._other, self._lost)
                try:
                    await open_link(self._path, link, _PATIENCE)
                except OSError as error:
                    LOG.seldom(f"connect to {self._path}", f": {error.strerror}")
                    return None
                self._link = link
            return self._link

    async def _exchange(
        self, link: _Link, number: int, data: bytes, account: Account | None
    ) -> ClientCounts:
        """Ask; zeros if the connection is lost. account: to which goes what the answer lends."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[ClientCounts] = loop.create_future()

        def take(counts: ClientCounts | None) -> None:
            if account is not None and counts is not None and not link.leaving:
                account.lend(counts)
            if not answer.done():
                answer.set_result(counts or _NOTHING)

        link.ask(number, data, take)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await answer
        except TimeoutError:
            LOG.seldom(f"{self._path}: no answer in time")
            link.close()
            self._silent_until = loop.time() + _REST
            return _NOTHING

    def _other(self, message: object) -> bool:
        if not isinstance(message, ClientRecall):
            return False
        self.send(self._recalled(message))
        return True

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
