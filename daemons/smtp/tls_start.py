"""Starts TLS in a session: at once (smtp_tls_wrappermode), or after STARTTLS."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from daemons.smtp.events import TlsOffered
from daemons.smtp.failure import (
    Failure,
    HandshakeFailed,
    TlsRequirementFailed,
    refused_tls,
)
from daemons.smtp.requiretls import NO_CERTIFICATE, NO_STARTTLS
from daemons.smtp.session import Session
from daemons.smtp.settings import Settings
from daemons.smtp.tls_policy import ServerTlsPolicy
from daemons.smtp.tlsrpt import Reporter
from libmail.log import LOG
from libmail.smtp.client import STARTTLS, Extensions, ServerReply
from libmail.tls.levels import Level
from libmail.tls.policy_entry import PolicyError
from libmail.tls.tlsrpt import FailureType, ReportedFailure

if TYPE_CHECKING:
    from daemons.smtp.handshakes import Handshake, Handshakes

__all__ = ["TlsStart"]


class TlsStart:
    """TLS for one new session. Methods raise Lost, SiteFailed, HandshakeFailed, LocalTrouble."""

    def __init__(
        self,
        settings: Settings,
        engine: "Handshakes | None",
        tls: ServerTlsPolicy,
        session: Session,
        reporter: Reporter | None,
        *,
        insist: bool = False,
    ) -> None:
        """insist: TLS is required, although the policy does not say so."""
        self._settings = settings
        self._engine = engine
        self._tls = tls
        self._level = tls.policy.level
        self._session = session
        self._reporter = reporter
        self._required = insist or self._level.enforced
        self._handshake: Handshake | None = None

    async def at_once(self) -> None:
        """Wrapper mode: before the greeting."""
        await self._perform(await self._attempt(), hold=False)

    def keep_session(self) -> None:
        """Cache the TLS session, when the server has sent something within TLS."""
        if self._handshake is not None:
            self._handshake.keep_session()

    async def after_greeting(self, extensions: Callable[[ServerReply], Extensions]) -> None:
        """STARTTLS, as the policy and the server's offer say."""
        session, level = self._session, self._level
        if level is Level.NONE:
            if session.extensions.starttls and self._settings.params.smtp_tls_note_starttls_offer:
                LOG.event(TlsOffered(session.host))
        elif session.extensions.starttls and (self._required or self._engine is not None):
            await self._start(extensions)
        elif not session.extensions.starttls:
            self._report(ReportedFailure(FailureType.STARTTLS_NOT_SUPPORTED))
            if self._required:
                text = f"TLS is required, but was not offered by host {session.name}"
                raise TlsRequirementFailed(Failure("4.7.4", text, site=True), NO_STARTTLS)

    async def _start(self, extensions: Callable[[ServerReply], Extensions]) -> None:
        session = self._session
        handshake = await self._attempt()
        session.wire.send(b"STARTTLS\r\n")
        reply = await session.reply(STARTTLS)
        if reply.positive:
            await self._perform(handshake, hold=True)  # EHLO follows at once
            await session.greet_again(self._settings, extensions)
            self.keep_session()
            return
        self._report(ReportedFailure(FailureType.STARTTLS_NOT_SUPPORTED, reply.text))
        if self._required:
            raise TlsRequirementFailed(refused_tls(session, reply))

    async def _attempt(self) -> "Handshake":
        if self._engine is None:
            text = "TLS is required, but our TLS engine is unavailable"
            raise TlsRequirementFailed(Failure("4.7.5", text, site=True))
        try:
            return await self._engine.attempt(self._session, self._tls)
        except PolicyError as error:
            if error.warning:
                LOG.warning(error.warning)
            raise TlsRequirementFailed(Failure(error.dsn, error.reason, site=True)) from None

    async def _perform(self, handshake: "Handshake", *, hold: bool) -> None:
        try:
            unmet = await handshake.perform(hold=hold)
        except HandshakeFailed as error:
            self._report(ReportedFailure(FailureType.VALIDATION_FAILURE, error.reason))
            raise
        self._report(handshake.distrust(unmet), resumed=handshake.resumed)
        if unmet is not None:
            failure = Failure(unmet.dsn, unmet.reason, site=True)
            raise TlsRequirementFailed(failure, NO_CERTIFICATE)
        self._handshake = handshake

    def _report(self, failure: ReportedFailure | None, *, resumed: bool = False) -> None:
        if self._reporter is not None:
            self._reporter.handshake(self._session, self._tls, failure, resumed=resumed)
