"""SASL login to servers: credentials and mechanisms (SASL_README).

`open_logins` reads the parameters and opens the tables, before the jail. `Logins.log_in` follows
EHLO in a session. Servers that do not offer AUTH, or that no password is known for, get the mail
without a login. Every other problem is temporary, as a mistake in our files must not bounce mail.
Secrets are neither logged nor recorded.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from daemons.smtp.failure import Failure, LocalTrouble, SiteFailed
from daemons.smtp.recording import mask_record
from daemons.smtp.refusals import Refusal, RefusalCache
from daemons.smtp.session import CLOSING, Session
from libmail.clients.oauth2 import NoToken, TokenClient
from libmail.config import Config
from libmail.log import LOG, Fatal
from libmail.net.wire import Lost
from libmail.oauth.account import MARK
from libmail.sasl.client import TOKEN_MECHANISMS, Credentials, Dialogue, SaslClientError, choose
from libmail.sasl.mechanism import SecurityOptions, parse_security_options
from libmail.smtp.address import split_address
from libmail.smtp.client import EHLO, LHLO, ServerReply
from libmail.tables.maps import Maps
from libmail.tables.match import StringList
from libmail.tables.registry import open_writable
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["Login", "LoginQuery", "Logins", "SaslParams", "open_logins"]

_REFUSED: Final = 535  # the credentials were rejected, RFC 4954 §6
_TOKENS: Final = 2  # that are tried in a session


@dataclass(frozen=True, slots=True, kw_only=True)
class SaslParams:
    """See postconf(5)."""

    mydestination: tuple[str, ...]
    myorigin: str
    recipient_delimiter: str
    send_cyrus_sasl_authzid: bool
    smtp_sasl_auth_cache_name: str
    smtp_sasl_auth_cache_time: float
    smtp_sasl_auth_enable: bool
    smtp_sasl_auth_soft_bounce: bool
    smtp_sasl_mechanism_filter: tuple[str, ...]
    smtp_sasl_password_maps: tuple[str, ...]
    smtp_sasl_password_result_delimiter: str
    smtp_sasl_security_options: tuple[str, ...]
    smtp_sasl_tls_security_options: tuple[str, ...]
    smtp_sasl_tls_verified_security_options: tuple[str, ...]
    smtp_sasl_type: str
    smtp_sender_dependent_authentication: bool


class LoginQuery(NamedTuple):
    """What credentials are looked up by, beside the server.

    destination: as in the next hop, or the path of a socket.
    """

    queue_id: str
    sender: str
    destination: str


class Login(NamedTuple):
    """Credentials from smtp_sasl_password_maps. account: of OAuth, for an access token instead of
    the password; "" for none."""

    user: str
    password: str
    account: str = ""


class _ServerRefusal(NamedTuple):
    """A reply that refuses a login. code: of it."""

    code: int
    said: Refusal


class _Allowed(NamedTuple):
    """The security options for each state of TLS."""

    clear: SecurityOptions
    encrypted: SecurityOptions
    verified: SecurityOptions

    def of(self, session: Session) -> SecurityOptions:
        if not session.secured:
            return self.clear
        return self.verified if session.verified else self.encrypted


class Logins:
    """Logs in to servers, for all sessions of a process. Made by `open_logins`."""

    def __init__(
        self,
        params: SaslParams,
        maps: Maps,
        local: StringList,
        mechanisms: StringList,
        allowed: _Allowed,
        refusals: RefusalCache | None,
        tokens: TokenClient,
        *,
        lmtp: bool,
    ) -> None:
        """local: domains of ours. mechanisms: smtp_sasl_mechanism_filter. tokens: for entries that
        name an OAuth account."""
        self._params = params
        self._maps = maps
        self._local = local
        self._filter = mechanisms if params.smtp_sasl_mechanism_filter else None
        self._allowed = allowed
        self._refusals = refusals
        self._tokens = tokens
        self._phase = LHLO if lmtp else EHLO
        self._by_sender = params.smtp_sender_dependent_authentication and not lmtp
        # Passwords are tokens if a token mechanism is in smtp_sasl_mechanism_filter.
        words = {word.upper() for word in params.smtp_sasl_mechanism_filter}
        self._token = not words.isdisjoint(TOKEN_MECHANISMS)
        self._external = "EXTERNAL" in words  # as with Cyrus, only if somebody wants it

    def key(self, sender: str) -> tuple[str, ...]:
        """The part of a session key that credentials depend on, beside the server."""
        return (sender if self._by_sender else "",)

    # what is looked up

    async def find(self, host: str, query: LoginQuery) -> Login | None:
        """The credentials, looked up by sender, server and destination. Raises TableRetry."""
        value = await self._of_sender(query.sender)
        if value is None:
            value = await self._maps.find(host)
        if value is None:
            value = await self._maps.find(query.destination)
        if value is None:
            return None
        user, _, password = value.partition(self._params.smtp_sasl_password_result_delimiter)
        if password.startswith(MARK):
            return Login(user, "", password.removeprefix(MARK))
        return Login(user, password)

    async def _of_sender(self, sender: str) -> str | None:
        if not (self._by_sender and sender):
            return None
        domain = split_address(sender)[1].lower()
        ours = domain == self._params.myorigin.lower() or await self._local.match(domain)
        delimiters = self._params.recipient_delimiter
        found = await self._maps.find_address(sender, delimiters, local=ours)
        return None if found is None else found.value

    async def _usable(self, offered: tuple[str, ...]) -> list[str]:
        """The mechanisms that the filter lets pass. Raises TableRetry."""
        if self._filter is None:
            return list(offered)
        return [name for name in offered if await self._filter.match(name)]

    # in a session

    async def log_in(self, session: Session, query: LoginQuery) -> None:
        """Log in, given credentials for the server. Raises Lost, SiteFailed, LocalTrouble."""
        offered = session.extensions.auth
        if offered is None:
            return
        try:
            usable = await self._usable(offered)
            if not usable:
                _complain(session, offered)
            login = await self.find(session.host, query)
        except TableRetry:
            LOG.warning(f"{query.queue_id}: {self._maps.title} lookup error")
            raise LocalTrouble from None
        if login is None:
            return
        if not usable:
            raise _failed(
                f": server {session.name} offered no compatible authentication mechanisms"
                " for this type of connection security"
            )
        if login.account:
            await self._log_in_by_token(session, login, usable)
        else:
            await self._log_in_by_password(session, login, usable)
        session.logged_in = True

    async def _log_in_by_password(self, session: Session, login: Login, usable: list[str]) -> None:
        refusals = self._refusals
        if refusals is not None:
            await self._not_refused(refusals, session, login)
        mechanism = self._choose(session, usable, token=self._token)
        refusal = await self._exchange(session, login, mechanism)
        if refusal is None:
            return
        if refusal.code == _REFUSED and refusals is not None:
            await refusals.note(session.host, login.user, login.password, refusal.said)
        raise self._refused(session, refusal.said, _refused_text(session, refusal.said))

    async def _log_in_by_token(self, session: Session, login: Login, usable: list[str]) -> None:
        """A token that is refused may be over earlier than we know: one more is tried.

        What goes wrong with a token gets well again, so mail always waits.
        """
        mechanism = self._choose(session, usable, token=True, password=False)
        refusal, token = None, ""
        for _ in range(_TOKENS):
            try:
                token = await self._tokens.token(login.account, token)
            except NoToken as error:
                if refusal is not None:
                    break
                raise _failed(
                    _cannot(session, f"no access token of account {login.account}: {error}")
                ) from None
            refusal = await self._exchange(session, login._replace(password=token), mechanism)
            if refusal is None:
                return
            if refusal.code != _REFUSED:
                break
        if refusal is not None:
            text = _refused_text(session, refusal.said)
            raise self._refused(session, refusal.said, text, soft=True)

    async def _not_refused(self, refusals: RefusalCache, session: Session, login: Login) -> None:
        """Raises SiteFailed for a login whose refusal is cached."""
        refusal = await refusals.find(session.host, login.user, login.password)
        if refusal is not None:
            text = (
                f"SASL [CACHED] authentication failed; server {session.host} said: {refusal.text}"
            )
            raise self._refused(session, refusal, text)

    async def _exchange(
        self, session: Session, login: Login, mechanism: str
    ) -> _ServerRefusal | None:
        """Log in; what the server says if it refuses. Raises Lost, SiteFailed."""
        authzid = login.user if self._params.send_cyrus_sasl_authzid else ""
        offered = session.extensions.auth or ()
        credentials = Credentials(
            login.user,
            login.password,
            session.host,
            session.port,
            authzid,
            session.wire.bindings(),
            any(name.upper().endswith("-PLUS") for name in offered),
            "lmtp" if self._phase is LHLO else "smtp",
        )
        try:
            dialogue = Dialogue(mechanism, credentials)
        except SaslClientError as error:
            raise _impossible(session, str(error)) from None
        try:
            reply = await self._converse(session, dialogue)
        except SaslClientError as error:
            raise _impossible(session, str(error)) from None
        finally:
            mask_record(session.wire, dialogue.masked)
        if reply.positive:
            return None
        return _ServerRefusal(reply.code, Refusal(reply.dsn, dialogue.masked(reply.text)))

    def _choose(
        self, session: Session, usable: list[str], *, token: bool, password: bool = True
    ) -> str:
        """The mechanism to use. Raises SiteFailed."""
        options = self._allowed.of(session)
        bound = bool(session.wire.bindings())
        mechanism = choose(
            usable,
            options,
            token=token,
            password=password,
            bound=bound,
            external=self._external and password and session.secured,
        )
        if not mechanism:
            LOG.warning("SASL authentication failure: No worthy mechs found")
            raise _failed(_cannot(session, "no mechanism available"))
        return mechanism

    async def _converse(self, session: Session, dialogue: Dialogue) -> ServerReply:
        """Carry out the exchange; its last reply. Raises SaslClientError, Lost.

        Replies are not logged here, as the server may repeat secrets in them.
        """
        wire = session.wire
        wire.send(dialogue.command())
        while True:
            reply = await wire.reply(self._phase)
            if reply.code == CLOSING:
                raise Lost(self._phase)
            if not 300 <= reply.code < 400:
                break
            challenge = reply.lines[-1][4:]
            if dialogue.slow:  # other deliveries go on meanwhile
                answer = await asyncio.to_thread(dialogue.answer, challenge)
            else:
                answer = dialogue.answer(challenge)
            wire.send(answer)
        if reply.positive:
            dialogue.finish()
        return reply

    def _refused(
        self, session: Session, refusal: Refusal, text: str, *, soft: bool = False
    ) -> SiteFailed:
        failure = Failure(refusal.dsn, text, session.host, refusal.text, site=True)
        if failure.dsn[0] not in "45":
            return SiteFailed(replace(failure, dsn="4.7.0"))
        if soft or self._params.smtp_sasl_auth_soft_bounce:
            return SiteFailed(replace(failure, dsn=f"4{failure.dsn[1:]}"))
        return SiteFailed(failure)


def _complain(session: Session, offered: tuple[str, ...]) -> None:
    if offered:
        words = " ".join(offered)
        LOG.warning(f"{session.relay} offered no supported AUTH mechanisms: '{words}'")
    else:
        LOG.warning(f"{session.relay} offered null AUTH mechanism list")


def _cannot(session: Session, why: str) -> str:
    return f"; cannot authenticate to server {session.name}: {why}"


def _refused_text(session: Session, said: Refusal) -> str:
    return f"SASL authentication failed; server {session.name} said: {said.text}"


def _failed(text: str, diagnostic: str = "") -> SiteFailed:
    text = f"SASL authentication failed{text}"
    return SiteFailed(Failure("4.7.0", text, "", diagnostic, site=True, diag_type="x-sasl"))


def _impossible(session: Session, why: str) -> SiteFailed:
    """The server broke the SASL protocol."""
    LOG.warning(f"SASL authentication failure: {why}")
    return _failed(_cannot(session, "generic failure"), "generic failure")


# before the jail


def open_logins(config: Config, prefix: str, options: TableOptions) -> Logins | None:
    """Returns None without smtp_sasl_auth_enable. prefix: "smtp" or "lmtp".

    Raises Fatal, ConfigError.
    """
    lmtp = prefix == "lmtp"
    params = config.load(SaslParams, ("smtp_", "lmtp_") if lmtp else None)
    if not params.smtp_sasl_auth_enable:
        return None
    maps = f"{prefix}_sasl_password_maps"
    if not params.smtp_sasl_password_maps:
        raise Fatal(f"specify a password table via the `{maps}' configuration parameter")
    if params.smtp_sasl_type != "cyrus":
        LOG.warning(f"unsupported SASL client implementation: {params.smtp_sasl_type}")
        raise Fatal("SASL library initialization")
    return Logins(
        params,
        Maps(maps, params.smtp_sasl_password_maps, options),
        StringList("mydestination", params.mydestination, options),
        StringList(f"{prefix}_sasl_mechanism_filter", params.smtp_sasl_mechanism_filter, options),
        _allowed(params, prefix),
        _refusals(params, options),
        TokenClient(),
        lmtp=lmtp,
    )


def _allowed(params: SaslParams, prefix: str) -> _Allowed:
    def options(name: str, words: tuple[str, ...]) -> SecurityOptions:
        try:
            return parse_security_options(words)
        except ValueError as error:
            raise Fatal(f"{prefix}_sasl_{name}: {error}") from None

    return _Allowed(
        options("security_options", params.smtp_sasl_security_options),
        options("tls_security_options", params.smtp_sasl_tls_security_options),
        options("tls_verified_security_options", params.smtp_sasl_tls_verified_security_options),
    )


def _refusals(params: SaslParams, options: TableOptions) -> RefusalCache | None:
    if not params.smtp_sasl_auth_cache_name:
        return None
    table = open_writable(params.smtp_sasl_auth_cache_name, options)
    return RefusalCache(table, params.smtp_sasl_auth_cache_time)
