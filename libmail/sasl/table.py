"""An authentication server of our own: logins and password hashes in a lookup table.

For sites that have neither Dovecot nor Cyrus: `smtpd_sasl_type = table`, `smtpd_sasl_path =
type:name`. The table maps a login to what libmail.sasl.passwords understands. Mechanisms: PLAIN
(RFC 4616), LOGIN, and SCRAM-SHA-256 for those whose entry is one of SCRAM, within TLS also bound
to the channel (SCRAM-SHA-256-PLUS).

Hashing takes long on purpose: it is done in threads, so many at a time as there are, while others
wait; whoever guesses passwords delays other logins, and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import islice
from typing import Final, TypeAlias

from libmail.sasl.mechanism import Mechanism
from libmail.sasl.passwords import PasswordChecker
from libmail.sasl.scram import ScramError, ScramServer, parse_secret
from libmail.sasl.server import AuthContext, Challenge, Exchange, Failure, Step, Success

__all__ = ["Find", "TableServer", "may_scram"]

_MECHANISMS: Final = ("PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")
_MALFORMED: Final = Failure("malformed response")
_BROKEN: Final = Failure("credential table error", temporary=True)
_SAMPLE: Final = 1000  # values of a table that are looked at
_AT_ONCE: Final = 4  # passwords that are hashed at a time
# Someone who does not exist costs as much as someone with a wrong password.
_NOBODY: Final = "{SCRAM-SHA-256}10000,AAAAAAAAAAAAAAAAAAAAAA==,AAAA,AAAA"


def may_scram(values: Iterable[str]) -> bool:
    """Whether some login can use SCRAM, by the first values of a table; also if it has none yet."""
    first = list(islice(values, _SAMPLE))
    return not first or any(parse_secret(value) for value in first)


def _wrong(login: str) -> Failure:
    return Failure("authentication failure", username=login)


Find: TypeAlias = Callable[[str], Awaitable[str | None]]
"""The entry of a login, None if there is none. Raises OSError when that is not known now."""


class TableServer:
    """The server over one table."""

    def __init__(
        self,
        find: Find,
        checker: PasswordChecker,
        warn: Callable[[str], None],
        realm: str = "",
        *,
        scram: bool = True,
    ) -> None:
        """warn: for the log, of mistakes in the table. realm: completes names without domain.
        scram: see `may_scram`."""
        self._find = find
        self._realm = realm
        self._checker = checker
        self._warn = warn
        self._names = tuple(name for name in _MECHANISMS if scram or "SCRAM" not in name)
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def mechanisms(self) -> tuple[Mechanism, ...]:
        """What is offered."""
        return tuple(map(Mechanism.known, self._names))

    async def begin(
        self, mechanism: str, initial: bytes | None, context: AuthContext
    ) -> tuple[Exchange, Step]:
        """Begin an exchange."""
        exchange: _Plain | _Login | _Scram
        match mechanism:
            case "PLAIN":
                exchange = _Plain(self)
            case "LOGIN":
                exchange = _Login(self)
            case "SCRAM-SHA-256":
                exchange = _Scram(self, None, plus=context.plus)
            case "SCRAM-SHA-256-PLUS":
                exchange = _Scram(self, context.bindings, plus=True)
            case _:
                return _Plain(self), Failure("mechanism not available")
        if initial is None:
            return exchange, Challenge(exchange.prompt)
        return exchange, await exchange.step(initial)

    async def entry(self, login: str) -> tuple[str, str | None] | Failure:
        """The login as the table knows it, and its entry; or that nobody knows now."""
        try:
            found = await self._find(login)
            if found is None and self._realm and "@" not in login:
                complete = f"{login}@{self._realm}"
                found = await self._find(complete)
                return (login if found is None else complete), found
            return login, found
        except OSError as error:
            self._warn(f"SASL credential table: {error}")
            return _BROKEN

    async def check(self, login: bytes, password: bytes) -> Step:
        """Whether a login has this password."""
        try:
            name, word = login.decode(), password.decode()
        except UnicodeDecodeError:
            return _MALFORMED
        entry = await self.entry(name)
        if isinstance(entry, Failure):
            return entry
        name, found = entry
        async with self._room:
            try:
                matches = await asyncio.to_thread(self._checker.matches, found or _NOBODY, word)
            except ValueError as error:
                self._warn(f"SASL credential table: entry of {name!a}: {error}")
                return _BROKEN
        return Success(name) if matches and found is not None else _wrong(name)

    def warn_of(self, login: str, problem: str) -> None:
        """Log a mistake in the table."""
        self._warn(f"SASL credential table: entry of {login!a}: {problem}")


class _Plain:
    """message = [authzid] NUL authcid NUL passwd, RFC 4616 §2."""

    prompt: Final = b""

    def __init__(self, server: TableServer) -> None:
        self._server = server

    async def step(self, response: bytes) -> Step:
        parts = response.split(b"\0")
        if len(parts) != 3 or not parts[1]:
            return _MALFORMED
        if parts[0] not in (b"", parts[1]):
            return Failure("acting for another user is not supported")
        return await self._server.check(parts[1], parts[2])

    def cancel(self) -> None:
        """Nothing is held."""


class _Login:
    """Name, then password, as old clients do it; never standardised."""

    prompt: Final = b"Username:"

    def __init__(self, server: TableServer) -> None:
        self._server = server
        self._name: bytes | None = None

    async def step(self, response: bytes) -> Step:
        if self._name is None:
            if not response or b"\0" in response:
                return _MALFORMED
            self._name = response
            return Challenge(b"Password:")
        return await self._server.check(self._name, response)

    def cancel(self) -> None:
        """Nothing is held."""


class _Scram:
    """RFC 7677."""

    prompt: Final = b""

    def __init__(
        self, server: TableServer, bindings: Mapping[str, bytes] | None, *, plus: bool
    ) -> None:
        """See ScramServer."""
        self._server = server
        self._scram = ScramServer("SCRAM-SHA-256", bindings=bindings, plus=plus)
        self._user = ""
        self._done: Step | None = None

    async def step(self, response: bytes) -> Step:
        try:
            if self._done is not None:  # the client has seen the server's signature
                return self._done
            if not self._user:
                return await self._first(response)
            last = self._scram.final(response)
        except ScramError as error:
            return Failure(str(error))
        if last is None:
            return _wrong(self._user)
        self._done = Success(self._user)
        return Challenge(last)

    async def _first(self, response: bytes) -> Step:
        user, authzid = self._scram.client_first(response)
        if not user or authzid not in ("", user):
            return Failure("acting for another user is not supported")
        entry = await self._server.entry(user)
        if isinstance(entry, Failure):
            return entry
        user, found = entry
        secret = parse_secret(found) if found is not None else None
        if found is not None and secret is None:
            self._server.warn_of(user, "no SCRAM secret, the login cannot use SCRAM-SHA-256")
        self._user = user
        return Challenge(self._scram.challenge(secret))

    def cancel(self) -> None:
        """Nothing is held."""
