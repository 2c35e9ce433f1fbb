"""The built-in SMTP engine, for clients that failed a test or have deep protocol tests to pass.

It accepts no mail: every recipient is refused, with `Screening.answer`. Meanwhile it watches how
the client speaks SMTP; one that fails a deep test is told at once (drop), or at the next recipient.
Sans I/O: octets in, replies out; only lookup tables are awaited.
"""

import re
from typing import Final

from daemons.postscreen.events import (
    BareNewline,
    CommandLimit,
    NonSmtpCommand,
    NoqueueReject,
    Pipelining,
    shown,
)
from daemons.postscreen.prepared import Prepared
from daemons.postscreen.replies import finished
from daemons.postscreen.screen_tests import ScreenTest
from daemons.postscreen.screening import Screening
from daemons.postscreen.verbs import READY, VERBS, SmtpState
from libmail.log import LOG, printable
from libmail.net.ends import Ends
from libmail.smtp.reply import Reply
from libmail.smtp.server import Command, SmtpServerCore
from libmail.tables.table import TableRetry

__all__ = ["Engine"]

_PAYLOAD: Final = frozenset(("DATA", "BDAT"))  # after which something may follow at once
_RULES: Final = ("5.7.0", "Error: I can break rules, too. Goodbye.")
_HEADER: Final = re.compile(r"[!-9;-~]+[ \t]*:")
_UNKNOWN: Final = Reply(502, "5.5.2", "Error: command not recognized")
_NO_TLS: Final = Reply(454, "4.7.0", "TLS not available due to local problem")
_TLS_FIRST: Final = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
_SHOWN: Final = 100


class Engine:
    """The engine for one client. client: as in the log.

    over: the session ends after the last reply. reached: a recipient was given, up to which deep
    tests have to be passed. said: what smtpd has to know of a client that goes on with it in the
    same session, see PassedClient; empty for one that does not.
    """

    def __init__(
        self,
        prepared: Prepared,
        screening: Screening,
        ends: Ends,
        client: str,
        discard: frozenset[str],
    ) -> None:
        self.over = False
        self.reached = False
        self.said: tuple[str, ...] = ()
        self.state = SmtpState(prepared.params, screening, client, discard, prepared.tls)
        self._prepared = prepared
        self._screening = screening
        self._ends = ends
        self._core = SmtpServerCore(prepared.params.line_length_limit)
        self._count = 0
        self._line = self._helo = self._mail = b""  # the current command; the last ones that hold

    def greeting(self) -> bytes:
        """The greeting."""
        return Reply(220, "", self._prepared.params.smtpd_banner).wire()

    async def receive(self, data: bytes) -> bytes:
        """The replies to data that the client sent."""
        self._core.receive_data(data)
        replies: list[bytes] = []
        while not self.over and isinstance(command := self._core.next_event(), Command):
            reply = await self._answer(command)
            if self.state.wants_tls or (self.state.rejected and self._goes_on()):
                break
            if self.state.rejected:
                self._reject(reply)
            reply = await finished(self._prepared, reply, self._ends)
            replies.append(reply.wire())
        return b"".join(replies)

    async def answer_starttls(self, *, starting: bool) -> bytes:
        """The reply to STARTTLS. Data behind it is dropped if TLS starts, else answered."""
        self.state.wants_tls = False
        if starting:
            self._core.reset()
            self.state.restart()
            return READY.wire()
        reply = await finished(self._prepared, _NO_TLS, self._ends)
        return reply.wire() + await self.receive(b"")

    async def late(self) -> bytes:
        """The last reply to a client that exceeds postscreen_command_time_limit."""
        LOG.event(CommandLimit(self.state.client, "TIME", self.state.where))
        return (await self._last(421, "4.4.2", "Error: timeout exceeded")).wire()

    async def _last(self, code: int, dsn: str, text: str) -> Reply:
        self.over = True
        host = self._prepared.params.myhostname
        return await finished(self._prepared, Reply(code, dsn, f"{host} {text}"), self._ends)

    async def _answer(self, command: Command) -> Reply:
        """Apply the deep tests to a command, then carry it out."""
        state, screening = self.state, self._screening
        if command.too_long:
            return await self._limited("LENGTH")
        if command.bare_newline and screening.needs(ScreenTest.BARE_NEWLINE):
            LOG.event(BareNewline(state.client, state.where))
            screening.fail(ScreenTest.BARE_NEWLINE)
        line = await self._filtered(command.line.decode("utf-8", "surrogateescape"))
        word, _, argument = line.strip().partition(" ")
        name = word.upper()
        if screening.dropped is None and name not in VERBS and screening.needs(ScreenTest.NON_SMTP):
            await self._speaks_smtp(word, argument.strip())
        if screening.dropped is None and self._core.pending and name not in _PAYLOAD:
            self._speaks_early(name if name in VERBS else "UNIMPLEMENTED")
        if screening.dropped is not None:
            self.over = True
            return screening.dropped
        self._count += 1
        if self._count > self._prepared.params.postscreen_command_count_limit:
            return await self._limited("COUNT")
        state.where = name if name in VERBS else "UNIMPLEMENTED"
        reply = self._carried_out(name, argument.strip())
        self.over = self.over or state.over
        self._line = command.line
        if reply.positive and name in ("HELO", "EHLO"):
            self._helo = command.line
        elif reply.positive and name == "MAIL":
            self._mail = command.line
        return reply

    def _goes_on(self) -> bool:
        """postscreen_deep_handover: the first recipient is for smtpd to answer, and so is the rest.

        A client that has said more, which is here, and no more in the socket, has to come again.
        """
        deep = self._prepared.params.postscreen_deep_handover and self._screening.promising
        if not deep or self._core.pending:
            return False
        lines = (
            [self._helo, self._mail, self._line] if self.state.helo else [self._mail, self._line]
        )
        self.said = tuple([line.decode("utf-8", "surrogateescape") for line in lines])
        self.reached = self.over = True
        return True

    def _carried_out(self, name: str, argument: str) -> Reply:
        if name not in VERBS:
            return _UNKNOWN
        return _TLS_FIRST if self.state.needs_tls(name) else VERBS[name](self.state, argument)

    async def _limited(self, what: str) -> Reply:
        LOG.event(CommandLimit(self.state.client, what, self.state.where))
        return await self._last(421, "", "Service unavailable - try again later")

    async def _filtered(self, line: str) -> str:
        """postscreen_command_filter."""
        if not self._prepared.command_filter:
            return line
        try:
            found = await self._prepared.command_filter.find(line)
        except TableRetry:
            return line  # the table has warned
        if found is None:
            return line
        LOG.info(
            f"{self.state.client}: replacing command "
            f'"{printable(line[:_SHOWN])}" with "{printable(found[:_SHOWN])}"'
        )
        return found

    async def _speaks_smtp(self, word: str, argument: str) -> None:
        try:
            forbidden = bool(word) and await self._prepared.forbidden.match(word)
        except TableRetry:
            forbidden = False
        if forbidden or _HEADER.match(f"{word} {argument}"):
            said = f"{printable(word[:_SHOWN])} {printable(argument)}"
            LOG.event(NonSmtpCommand(self.state.client, self.state.where, said))
            self._screening.fail(ScreenTest.NON_SMTP, _RULES)

    def _speaks_early(self, after: str) -> None:
        if self._screening.needs(ScreenTest.PIPELINING):
            LOG.event(Pipelining(self.state.client, after, shown(self._core.peek(_SHOWN))))
            self._screening.fail(ScreenTest.PIPELINING)

    def _reject(self, reply: Reply) -> None:
        state = self.state
        self.reached = True
        recipient, state.rejected = state.rejected, ""
        reason = reply.line.partition("\n")[0]
        LOG.event(
            NoqueueReject(
                state.client, reason, state.sender or "", recipient, state.protocol, state.helo
            )
        )
