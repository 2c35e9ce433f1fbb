"""The SMTP that postscreen(8) speaks itself, to clients that failed, or have to pass deeper tests.

It takes no mail: every recipient gets the answer of the client's case. Meanwhile it sees how the
client speaks, and who fails thereby hears of it at once or at the next recipient. Octets come in,
replies go out; no input and output here.
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
from daemons.postscreen.trial import Case
from daemons.postscreen.trials import Trial
from daemons.postscreen.verbs import READY, VERBS, Talk
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
    """A session of one client. client: as in the log. talk: what was said so far.

    over: nothing more is to be said. reached: the client has come as far as a recipient.
    """

    def __init__(
        self, prepared: Prepared, case: Case, ends: Ends, client: str, discard: frozenset[str]
    ) -> None:
        self.over = False
        self.reached = False
        self.talk = Talk(prepared.params, case, client, discard, prepared.tls)
        self._prepared = prepared
        self._case = case
        self._ends = ends
        self._core = SmtpServerCore(prepared.params.line_length_limit)
        self._count = 0

    def greeting(self) -> bytes:
        """What is said first."""
        return Reply(220, "", self._prepared.params.smtpd_banner).wire()

    async def receive(self, data: bytes) -> bytes:
        """The replies to what a client sent."""
        self._core.receive_data(data)
        replies: list[bytes] = []
        while not self.over and isinstance(command := self._core.next_event(), Command):
            reply = await self._answer(command)
            if self.talk.wants_tls:
                break
            reply = await finished(self._prepared, reply, self._ends)
            if self.talk.rejected:
                self._reject(reply)
            replies.append(reply.wire())
        return b"".join(replies)

    async def answer_starttls(self, *, starting: bool) -> bytes:
        """The reply to STARTTLS: what was sent early is forgotten, or answered."""
        self.talk.wants_tls = False
        if starting:
            self._core.reset()
            self.talk.begin_again()
            return READY.wire()
        reply = await finished(self._prepared, _NO_TLS, self._ends)
        return reply.wire() + await self.receive(b"")

    async def late(self) -> bytes:
        """What is said to a client that takes too long for a command."""
        LOG.event(CommandLimit(self.talk.client, "TIME", self.talk.where))
        return (await self._last(421, "4.4.2", "Error: timeout exceeded")).wire()

    async def _last(self, code: int, dsn: str, text: str) -> Reply:
        self.over = True
        host = self._prepared.params.myhostname
        return await finished(self._prepared, Reply(code, dsn, f"{host} {text}"), self._ends)

    async def _answer(self, command: Command) -> Reply:
        """Look at a command, then carry it out."""
        talk, case = self.talk, self._case
        if command.too_long:
            return await self._limited("LENGTH")
        if command.bare_newline and case.needs(Trial.BARE_NEWLINE):
            LOG.event(BareNewline(talk.client, talk.where))
            case.fail(Trial.BARE_NEWLINE)
        line = await self._filtered(command.line.decode("utf-8", "surrogateescape"))
        word, _, argument = line.strip().partition(" ")
        name = word.upper()
        if case.dropped is None and name not in VERBS and case.needs(Trial.NON_SMTP):
            await self._speaks_smtp(word, argument.strip())
        if case.dropped is None and self._core.pending and name not in _PAYLOAD:
            self._speaks_early(name if name in VERBS else "UNIMPLEMENTED")
        if case.dropped is not None:
            self.over = True
            return case.dropped
        self._count += 1
        if self._count > self._prepared.params.postscreen_command_count_limit:
            return await self._limited("COUNT")
        talk.where = name if name in VERBS else "UNIMPLEMENTED"
        reply = self._carried_out(name, argument.strip())
        self.over = self.over or talk.over
        return reply

    def _carried_out(self, name: str, argument: str) -> Reply:
        if name not in VERBS:
            return _UNKNOWN
        return _TLS_FIRST if self.talk.needs_tls(name) else VERBS[name](self.talk, argument)

    async def _limited(self, what: str) -> Reply:
        LOG.event(CommandLimit(self.talk.client, what, self.talk.where))
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
            f"{self.talk.client}: replacing command "
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
            LOG.event(NonSmtpCommand(self.talk.client, self.talk.where, said))
            self._case.fail(Trial.NON_SMTP, _RULES)

    def _speaks_early(self, after: str) -> None:
        if self._case.needs(Trial.PIPELINING):
            LOG.event(Pipelining(self.talk.client, after, shown(self._core.peek(_SHOWN))))
            self._case.fail(Trial.PIPELINING)

    def _reject(self, reply: Reply) -> None:
        talk = self.talk
        self.reached = True
        recipient, talk.rejected = talk.rejected, ""
        reason = reply.line.partition("\n")[0]
        LOG.event(
            NoqueueReject(
                talk.client, reason, talk.sender or "", recipient, talk.protocol, talk.helo
            )
        )
