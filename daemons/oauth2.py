"""oauth2(8): access tokens for logging in to servers, got with refresh tokens (RFC 6749 §6).

called by: smtp, lmtp (TokenRequest), master (wake-up). asks: token servers, by HTTPS. writes:
refresh tokens, `data_directory/oauth2`. tells: nobody. needs: the real file system (DNS), not root.

master runs it without a line in master.cf, where oauth2_directory has accounts. One process asks
for all others: there is one request at a time for an account, however many deliveries wait for it,
and none while it is known that none will help. An access token is kept in memory, and renewed
before its time is over, by a clock that nobody sets. A refresh token is looked at again before each
use: `postfix oauth2` may have written another one.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from libmail.ipc.codec import WireError
from libmail.ipc.messages import TokenReply, TokenRequest
from libmail.log import LOG, Level
from libmail.oauth.account import AccountError, account_names, read_account
from libmail.oauth.answers import Tokens, Trouble, Why
from libmail.oauth.endpoint import TokenEndpoint
from libmail.oauth.store import Busy, TokenStore
from libmail.service.connection import Connection, Trigger
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE", "Keeper", "OAuthParams"]

_SHORTEST: Final = 5.0  # seconds between requests after a failure; doubled each time,
_LONGEST: Final = 600.0  # up to this, unless the server wants more
_HOPELESS: Final = 600.0  # after an answer that will hardly change by itself
_BETWEEN: Final = 10.0  # seconds between requests that succeed
_FRESH: Final = 60.0  # seconds in which a token that a server refuses is not blamed for it
_EARLY: Final = 300.0  # seconds before its end in which a token is renewed while it is used,
_LATE: Final = 30.0  # and in which it is not used any more; less of short lives
_UNUSED: Final = 86_400.0  # seconds after which a refresh token is used, lest the server forgets it
_MOST_NAME: Final = 128
_BUSY_TRIES: Final = 40  # while another process asks for the same account,
_BUSY_PAUSE: Final = 0.5  # seconds between them


@dataclass(frozen=True, slots=True)
class OAuthParams:
    """See postconf(5)."""

    data_directory: str
    mail_name: str
    oauth2_directory: str


class TokenNews(NamedTuple):
    """A token server was asked. life: seconds; 0 for a failure. reason: of a failure."""

    account: str
    life: float
    reason: str

    def text(self) -> str:
        """`account: new access token for 3600 seconds`, `account: no access token: reason`."""
        if self.reason:
            return f"{self.account}: no access token: {self.reason}"
        return f"{self.account}: new access token for {self.life:.0f} seconds"


class Keeper:
    """The tokens of one account. clock: seconds that only go up, while the machine sleeps, too."""

    def __init__(
        self,
        account: str,
        ask: Callable[[str], Awaitable[Tokens]],
        store: TokenStore,
        clock: Callable[[], float],
    ) -> None:
        """ask: gets tokens for a refresh token. Raises Trouble."""
        self._account = account
        self._ask = ask
        self._store = store
        self._clock = clock
        self._access = ""
        self._since = clock()  # when the access token was asked for
        self._use_until = self._renew_at = 0.0
        self._refresh = ""  # the refresh token that was used last, or should be kept
        self._unkept = False  # it could not be written
        self._next = 0.0  # no request before
        self._failures = 0
        self._reason = ""  # why there is none
        self._renewing: asyncio.Task[None] | None = None

    async def token(self, rejected: str) -> TokenReply:
        """An access token, or why there is none. rejected: one that a server has refused, or ""."""
        now = self._clock()
        if rejected and rejected == self._access:
            if now - self._since < _FRESH:
                return TokenReply("", "the server refuses an access token that is new")
            self._access = ""
        if now >= self._renew_at or not self._access:
            self._begin(now)
        if self._renewing is not None and not (self._access and now < self._use_until):
            await asyncio.shield(self._renewing)
        if self._access and self._clock() < self._use_until:
            return TokenReply(self._access, "")
        return TokenReply("", self._reason or "no access token")

    def wake(self) -> None:
        """Use a refresh token that has not been used for long."""
        now = self._clock()
        if now - self._since >= _UNUSED:
            self._begin(now)

    def _begin(self, now: float) -> None:
        """Have the token renewed, unless that is under way or of no use now."""
        if self._renewing is None and (now >= self._next or self._replaced()):
            self._renewing = asyncio.get_running_loop().create_task(self._renew(now))

    def _replaced(self) -> bool:
        """Whether somebody has agreed again since."""
        try:
            return not self._unkept and self._store.read(self._account) != self._refresh
        except OSError:
            return False

    async def _renew(self, now: float) -> None:
        try:
            for _ in range(_BUSY_TRIES):
                if await self._exchange(now):
                    return
                await asyncio.sleep(_BUSY_PAUSE)
            self._failed(Trouble(Why.BROKEN, "another process asks for it now"))
        except Trouble as trouble:
            self._failed(trouble)
        except OSError as error:
            self._failed(Trouble(Why.BROKEN, f"refresh token: {error.strerror}"))
        finally:
            self._renewing = None

    async def _exchange(self, now: float) -> bool:
        """Ask the server, unless another process does so now. Raises Trouble, OSError."""
        try:
            with self._store.locked(self._account):
                self._took(now, await self._ask(self._current()))
        except Busy:
            return False
        return True

    def _current(self) -> str:
        """The refresh token to use. Raises Trouble, OSError."""
        if not self._unkept:
            self._refresh = self._store.read(self._account)
        if not self._refresh:
            raise Trouble(Why.CONSENT, "there is no refresh token")
        return self._refresh

    def _took(self, now: float, tokens: Tokens) -> None:
        self._access, self._since, self._failures, self._reason = tokens.access, now, 0, ""
        self._use_until = now + tokens.life - min(_LATE, tokens.life / 4)
        self._renew_at = now + tokens.life - min(_EARLY, tokens.life / 2)
        self._next = now + _BETWEEN
        if self._unkept or tokens.refresh not in ("", self._refresh):
            self._refresh = tokens.refresh or self._refresh
            self._keep()
        LOG.event(TokenNews(self._account, tokens.life, ""))

    def _keep(self) -> None:
        """What cannot be written is used all the same, and written with the next one."""
        try:
            self._store.write(self._account, self._refresh)
            self._unkept = False
        except OSError as error:
            self._unkept = True
            LOG.warning(f"{self._account}: cannot keep the new refresh token: {error.strerror}")

    def _failed(self, trouble: Trouble) -> None:
        self._failures += 1
        pause = min(_SHORTEST * 2.0 ** min(self._failures - 1, 10), _LONGEST)
        if trouble.why in (Why.CONSENT, Why.REFUSED):
            pause = max(pause, _HOPELESS)
        self._next = self._clock() + max(pause, trouble.pause)
        self._reason = str(trouble)
        if trouble.why is Why.CONSENT:
            self._reason = (
                f"the owner has to agree again, by postfix oauth2 {self._account} ({trouble})"
            )
        LOG.event(TokenNews(self._account, 0.0, self._reason), Level.WARNING)


class _Prepared(NamedTuple):
    """endpoints: by account. unusable: accounts that cannot be used, and why."""

    endpoints: dict[str, TokenEndpoint]
    unusable: dict[str, str]
    store: TokenStore


def _prepare(startup: Startup) -> _Prepared:
    """Read the accounts, which root alone may be able to."""
    params = startup.config.load(OAuthParams)
    endpoints, unusable = dict[str, TokenEndpoint](), dict[str, str]()
    for name in _names(params):
        try:
            account = read_account(params.oauth2_directory, name)
            endpoints[name] = TokenEndpoint(account, params.mail_name)
        except AccountError as error:
            LOG.warning(str(error))
            unusable[name] = str(error)
    return _Prepared(endpoints, unusable, TokenStore(params.data_directory))


def _names(params: OAuthParams) -> list[str]:
    try:
        return account_names(params.oauth2_directory)
    except AccountError as error:
        LOG.warning(str(error))
        return []


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def _start(prepared: _Prepared, runtime: Runtime) -> Handlers:
    os.umask(0o077)
    keepers = {
        name: Keeper(name, endpoint.refresh, prepared.store, _clock)
        for name, endpoint in prepared.endpoints.items()
    }

    async def answer(request: TokenRequest) -> TokenReply:
        if len(request.account) > _MOST_NAME:
            raise WireError("account name too long")
        keeper = keepers.get(request.account)
        if keeper is None:
            why = prepared.unusable.get(request.account, "there is no such account")
            return TokenReply("", why)
        return await keeper.token(request.rejected)

    async def serve(connection: Connection) -> None:
        while True:
            match await connection.receive():
                case TokenRequest() as request:
                    connection.send(await answer(request))
                case Trigger():
                    for keeper in keepers.values():
                        keeper.wake()
                case other:
                    raise WireError(f"unexpected {type(other).__name__}")

    return Handlers(stream=exchanges(runtime, serve, network=True))


SERVICE: Final = Service("oauth2", _prepare, _start, permanent=True)
