"""AUTH, RFC 4954: a client logs in.

The authentication server (`daemons.smtpd.logins`) sends challenges until it has decided. Responses
are decoded here and never logged. A line that answers a challenge is not a command: it passes none
of the checks for commands, and has a limit of its own, smtpd_sasl_response_limit.
"""

import base64
import binascii
from typing import Final

from daemons.smtpd.answer import Answer, answer, by_policy, decided, uncounted
from daemons.smtpd.events import LoginAborted, LoginFailed
from daemons.smtpd.logins import NoMechanisms
from daemons.smtpd.secrets import MASK
from daemons.smtpd.session import Session
from libmail.log import LOG, Level
from libmail.lookup.facts import Sasl
from libmail.sasl.server import Challenge, Exchange, Failure, Step, Success
from libmail.smtp.reply import Reply
from libmail.text.printable import printable

__all__ = ["auth", "auth_unavailable"]

_DONE: Final = answer(Reply(235, "2.7.0", "Authentication successful"))
_ABORTED: Final = decided(Reply(501, "5.7.0", "Authentication aborted"))
_TOO_LONG: Final = decided(Reply(500, "5.5.6", "SASL response limit exceeded"))
_EMPTY: Final = "="  # an initial response that is there and empty, RFC 4954 §4
_GIVEN_UP: Final = b"*"


def auth_unavailable(session: Session) -> Answer:
    """The authentication server is down: a temporary error, so that no mail is lost."""
    return uncounted(Reply(421, "4.3.0", f"{session.server.params.myhostname} Server local error"))


async def auth(session: Session, argument: str) -> Answer:
    """AUTH mechanism [initial response]."""
    if session.rates is not None:
        refused = await session.rates.auth(session.client)
        if refused is not None:
            return by_policy(refused)
    unfit = _unfit(session)
    if unfit is not None:
        return unfit
    turned_away = await session.server.guesses.refused(session.facts.client, session.client)
    if turned_away is not None:
        return by_policy(turned_away)
    words = argument.split()
    if len(words) not in (1, 2):
        return answer(Reply(501, "5.5.4", "Syntax: AUTH mechanism"))
    try:
        acceptable = await session.server.logins.acceptable(
            session.facts, session.dialogue.bindings
        )
    except NoMechanisms:
        return auth_unavailable(session)
    attempt = _Attempt(session, words[0])
    if words[0].upper() not in acceptable:
        return attempt.failed(Failure(await session.server.logins.why_not(words[0].upper())))
    return await attempt.run(words[1] if len(words) == 2 else None)


def _unfit(session: Session) -> Answer | None:
    """Why this is not the time to log in."""
    server, facts = session.server, session.facts
    if server.params.smtpd_helo_required and not facts.helo_name:
        return by_policy(Reply(503, "5.5.1", "Error: send HELO/EHLO first"))
    if "AUTH" in session.discard or not server.logins.possible(facts):
        return answer(Reply(503, "5.5.1", "Error: authentication not enabled"))
    if session.transaction is not None:
        return answer(Reply(503, "5.5.1", "Error: MAIL transaction in progress"))
    if facts.sasl is not None:
        return answer(Reply(503, "5.5.1", "Error: already authenticated"))
    return None


class _Attempt:
    """One attempt to log in. mechanism: as the client wrote it."""

    def __init__(self, session: Session, mechanism: str) -> None:
        self._session = session
        self._mechanism = mechanism

    async def run(self, initial: str | None) -> Answer:
        """The whole dialogue. Raises ClientGone and the like."""
        response = None if initial is None else _decoded(initial.encode("utf-8", "surrogateescape"))
        if initial == _EMPTY:
            response = b""
        elif initial is not None and response is None:
            return self.failed(Failure("Invalid base64 data in initial response"))
        session = self._session
        exchange, step = await session.server.logins.begin(
            self._mechanism.upper(),
            response,
            session.facts,
            session.dialogue.bindings,
            session.login.announced,
        )
        if not isinstance(step, Challenge):
            return await self._ended(step)
        try:
            found = await self._converse(exchange, step)
        except BaseException:
            exchange.cancel()
            raise
        if isinstance(found, Answer):
            exchange.cancel()
            return found
        return await self._ended(found)

    async def _converse(self, exchange: Exchange, step: Step) -> Step | Answer:
        """Challenge by challenge; an answer where the client spoils it."""
        session = self._session
        limit = session.server.logins.params.smtpd_sasl_response_limit
        while isinstance(step, Challenge):
            await session.send(Reply(334, "", base64.b64encode(step.data).decode()))
            event = await session.dialogue.response(limit)
            session.tally.heard_secret()
            if event.too_long:
                LOG.warning(f"{session.client}: request longer than {limit}: {MASK.decode()}...")
                return _TOO_LONG
            if event.line == _GIVEN_UP:
                LOG.event(LoginAborted(session.client, self._shown), Level.WARNING)
                return _ABORTED
            response = _decoded(event.line)
            if response is None:
                return self.failed(Failure("Invalid base64 data in continued response"))
            step = await exchange.step(response)
        return step

    @property
    def _shown(self) -> str:
        return printable(self._mechanism)[:100]

    async def _ended(self, step: Step) -> Answer:
        if isinstance(step, Success):
            self._session.facts.sasl = Sasl(self._shown, printable(step.username))
            return _DONE
        if isinstance(step, Failure):
            refusal = self.failed(step)
            return refusal if step.temporary else await self._judged(refusal)
        raise AssertionError(step)

    async def _judged(self, refusal: Answer) -> Answer:
        """The answer to a wrong password, which takes the longer the more there were."""
        session = self._session
        client, tried = session.facts.client, session.login.tried
        judgement = await session.server.guesses.failed(client, tried, session.client)
        if judgement.pause:
            await session.dialogue.pause(judgement.pause)
        return refusal if judgement.reply is None else by_policy(judgement.reply)

    def failed(self, failure: Failure) -> Answer:
        """Log a failure, and answer it."""
        session = self._session
        if failure.username is not None:
            session.login.tried = printable(failure.username)[:100]
        reason = printable(failure.reason) or "(reason unavailable)"
        tried = session.login.tried
        LOG.event(LoginFailed(session.client, self._shown, reason, tried), Level.WARNING)
        if failure.temporary:
            return decided(Reply(454, "4.7.0", f"Temporary authentication failure: {reason}"))
        return decided(Reply(535, "5.7.8", f"Error: authentication failed: {reason}"))


def _decoded(line: bytes) -> bytes | None:
    """A response of the client; None for what is no base64."""
    try:
        return base64.b64decode(line, validate=True)
    except (ValueError, binascii.Error):
        return None
