"""Who guesses passwords is slowed down, and then turned away: smtpd_sasl_failure_limit.

anvil(8) counts logins that failed, for all processes and services: of a client's address (for IPv6
its /64, of which one client has all), and of the name that was tried. Nobody asks anvil but for a
client whose login has just failed, and one of whom this process knows that it was turned away: who
logs in with the right password pays nothing. And nobody who has it is kept out because somebody
else guesses at his name.
"""

import asyncio
import ipaddress
from dataclasses import dataclass
from typing import Final, NamedTuple

from daemons.smtpd.events import LimitExceeded
from libmail.clients.anvil import AnvilClient
from libmail.log import LOG, Level
from libmail.lookup.facts import Client
from libmail.smtp.reply import Reply
from libmail.tables.match import AddressList
from libmail.tables.table import TableRetry

__all__ = ["GuessParams", "Guesses", "Judgement"]

_EVENT: Final = "authfail"
_FREE: Final = 3  # failures without consequence: people mistype
_LONGEST: Final = 20.0  # seconds of a delay
_MOST_KNOWN: Final = 10_000  # clients that were turned away, in this process
_IPV6_PREFIX: Final = 64
_LIMIT: Final = "Login failure limit exceeded"


@dataclass(frozen=True, slots=True)
class GuessParams:
    """See postconf(5)."""

    myhostname: str
    smtpd_sasl_failure_limit: int


class Judgement(NamedTuple):
    """What follows a failed login. pause: seconds before the reply. reply: instead of it."""

    pause: float
    reply: Reply | None


_NOTHING: Final = Judgement(0.0, None)


class Guesses:
    """Failed logins of clients. shown: the client, for the log."""

    def __init__(
        self, params: GuessParams, exceptions: AddressList, service: str, anvil: AnvilClient
    ) -> None:
        """exceptions: clients that are not counted. service: of master.cf."""
        self._params = params
        self._exceptions = exceptions
        self._service = service
        self._anvil = anvil
        self._turned_away: dict[str, None] = {}

    async def refused(self, client: Client, shown: str) -> Reply | None:
        """The reply for a client that may not try to log in now."""
        if not self._turned_away or (ident := _ident(client.address)) not in self._turned_away:
            return None
        number = (await self._anvil.count(_EVENT, ident, only_report=True)).rate
        if number <= self._params.smtpd_sasl_failure_limit:
            del self._turned_away[ident]
            return None
        return self._reply(number, shown)

    async def failed(self, client: Client, login: str | None, shown: str) -> Judgement:
        """Count a failure. login: the name that was tried, None where that is not known."""
        limit = self._params.smtpd_sasl_failure_limit
        if not limit or await self._is_exception(client):
            return _NOTHING
        ident = _ident(client.address)
        names = [ident] if login is None else [ident, f"login:{login.lower()}"]
        counts = await asyncio.gather(*(self._anvil.count(_EVENT, name) for name in names))
        most = max(one.rate for one in counts)
        if counts[0].rate > limit and len(self._turned_away) < _MOST_KNOWN:
            self._turned_away[ident] = None
        return Judgement(_pause(most), self._reply(most, shown) if most > limit else None)

    async def _is_exception(self, client: Client) -> bool:
        try:
            return await self._exceptions.match(client.name, client.address)
        except TableRetry as error:
            LOG.warning(f"{self._exceptions.title}: {error}")
            return False

    def _reply(self, number: int, shown: str) -> Reply:
        LOG.event(LimitExceeded(_LIMIT, number, shown, self._service), Level.WARNING)
        return Reply(421, "4.7.0", f"{self._params.myhostname} Error: too many failed logins")


def _pause(failures: int) -> float:
    """Seconds: 1, 2, 4, ... from the fourth failure on."""
    return min(2.0 ** min(failures - _FREE - 1, 30), _LONGEST) if failures > _FREE else 0.0


def _ident(address: str) -> str:
    """What is counted in place of a client's address."""
    if ":" not in address:
        return address
    try:
        network = ipaddress.ip_network(f"{address.partition('%')[0]}/{_IPV6_PREFIX}", strict=False)
    except ValueError:
        return address
    return str(network)
