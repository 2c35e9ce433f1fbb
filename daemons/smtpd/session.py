"""One client's session: the greeting, and the loop over commands with its gates.

A command passes, in this order: line_length_limit, smtpd_command_filter, is it text, is it a verb,
was it sent too early (RFC 2920), may this client give any command, in the clear, or this one; then
its function in `daemons.smtpd.verbs` runs. That returns an `Answer`; only this loop sends and
counts. What else a session is made of has rooms of its own: the stream (`Dialogue`), what the
client is judged by (`Tally`), the message at hand (`Transaction`, with the `Intake` of its
content), and what all sessions share (`Server`). The facts are all that decisions get to see.
"""

from collections.abc import Mapping
from typing import Final, Literal

from daemons.smtpd.answer import CLOSING, Answer, answer, by_policy, decided
from daemons.smtpd.arrival import arrive
from daemons.smtpd.client_rules import Trust
from daemons.smtpd.dialogue import Dialogue
from daemons.smtpd.events import (
    ClientLine,
    DisconnectLine,
    ImproperPipelining,
    SessionLine,
    SessionLost,
    escaped,
)
from daemons.smtpd.footer import add_footer, footer_values
from daemons.smtpd.secrets import masked
from daemons.smtpd.server import Server
from daemons.smtpd.tally import UNKNOWN, Tally
from daemons.smtpd.transaction import Chunks, Extras, Transaction
from daemons.smtpd.verb import Verb
from libmail.log import LOG
from libmail.lookup.facts import Client, Facts, Mail, Verdict
from libmail.lookup.xclient import Forwarded
from libmail.net.channel import Channel, ClientGone, ClientSilent, ServerStopping
from libmail.smtp.reply import Reply
from libmail.smtp.server import BareNewline, Command
from libmail.tables.table import TableRetry

__all__ = ["Session"]

_SHOWN: Final = 100  # octets of unexpected input in the log
_SHOWN_COMMAND: Final = 30  # octets of a command that is too long
_SPACE: Final = " \t\r"


class _Ended(Exception):
    """The session is over."""


class Session:
    """A client's session, from connection to disconnection.

    line: the command at hand. discard: EHLO keywords that the client does not get to see.
    may_verp: it may ask for VERP. counted: the client whom limits of rates hold for. receiving: the
    content of its message. trust: what the client may say of others. forwarded: where the next
    message comes from, by XFORWARD.
    """

    __slots__ = ("_access_denied", "_reason", "chunks", "counted", "dialogue", "discard", "extras",
                 "facts", "forwarded", "line", "may_verp", "receiving", "server", "tally",
                 "transaction", "trust", "verbs")  # fmt: skip

    def __init__(
        self, server: Server, channel: Channel, verbs: Mapping[str, Verb], client: Client
    ) -> None:
        """client: its names are not known yet."""
        self.server = server
        self.verbs = verbs
        self.facts = Facts(client)
        self.dialogue = Dialogue(channel, server.params.line_length_limit)
        self.tally = Tally(server.params)
        self.transaction: Transaction | None = None
        self.chunks: Chunks | None = None  # from the first BDAT of a message to its last
        self.counted: Client | None = None
        self.forwarded: Forwarded | None = None
        self.trust = Trust()
        self.extras = Extras()
        self.discard: frozenset[str] = frozenset()
        self.may_verp = False
        self.receiving = False
        self.line = ""
        self._access_denied = False
        self._reason: Literal["lost connection", "timeout", "too many errors", ""] = ""

    # sending and receiving

    def send(self, reply: Reply) -> None:
        """Queue a reply; it is sent before we wait for the client again."""
        footer = self.server.params.smtpd_reject_footer
        if reply.code >= 400 and footer:
            server = self.server
            values = footer_values(self.facts, server.params.myhostname, server.lookups.now())
            reply = add_footer(reply, footer, values)
        data = reply.wire()
        self.tally.said(data)
        self.dialogue.send(data)

    # from the connection to its end

    async def run(self) -> None:
        """Serve the client until one of us ends it."""
        host = self.server.params.myhostname
        try:
            await self._greet()
            while True:
                await self._command()
        except _Ended:
            pass
        except ClientGone:
            self._reason = "lost connection"
        except ClientSilent:
            self._reason = "timeout"
            self.send(Reply(421, "4.4.2", f"{host} Error: timeout exceeded"))
        except ServerStopping:
            text = f"{host} Service not available, closing transmission channel"
            self.send(Reply(421, "4.3.2", text))
        finally:
            self._finish()
        if self.tally.kinds:
            await self._tell_postmaster()

    def _finish(self) -> None:
        self.dialogue.close()
        if self._reason:
            transaction = self.transaction
            octets = transaction.octets if self.receiving and transaction is not None else None
            where = self.facts.where
            LOG.event(SessionLost(self.queue_id, self._reason, where, self.client, octets))
        self.drop_transaction()
        if self.counted is not None:
            self.server.rates.disconnect(self.counted)
        LOG.event(DisconnectLine(self.client, self.tally.counts(self.verbs)))

    async def _tell_postmaster(self) -> None:
        """notify_classes: report on a session that had such errors."""
        server, tally, reason = self.server, self.tally, self._reason
        if not server.postmaster.wants(tally.kinds):
            return
        bounced = "bounce" in tally.kinds
        await server.postmaster.tell(
            f"SMTP server: errors from {self.facts.client.shown}",
            tally.transcript,
            ending=f"Session aborted, reason: {reason}\r\n\r\n" if reason else "\r\n",
            recipient=server.params.bounce_notice_recipient if bounced else "",
        )

    async def _greet(self) -> None:
        refused = await arrive(self)
        if refused is not None:
            self.send(refused)
            raise _Ended
        if self.server.stopping:
            raise ServerStopping
        greeting = await self.welcome()
        if not self._access_denied and await self.dialogue.talks_first():
            self._too_early()
        self.send(greeting)
        if greeting.code in CLOSING:
            raise _Ended

    async def welcome(self) -> Reply:
        """The greeting for the client, or the refusal of its connection."""
        refused = self.judge(await self.server.connect(self.facts))
        self._access_denied = refused is not None
        return Reply(220, "", self.server.params.smtpd_banner) if refused is None else refused.reply

    def start_over(self) -> None:
        """Forget what the client said, also what it has sent already: it may be another now."""
        self.drop_transaction()
        self.dialogue.core.reset()
        facts = self.facts
        facts.helo_name, facts.protocol, facts.sasl = "", "SMTP", None
        self.discard, self.may_verp = frozenset(), False

    # commands

    async def _command(self) -> None:
        tally = self.tally
        if tally.errors and tally.exhausted:
            self._reason = "too many errors"
            tally.kinds.add("protocol")
            host = self.server.params.myhostname
            self.send(Reply(421, "4.7.0", f"{host} Error: too many errors"))
            raise _Ended
        event = await self.dialogue.event(idle=self.transaction is None)
        if not isinstance(event, Command):
            raise AssertionError(event)
        found = await self._answer(event)
        if tally.errors:
            await self._delay()
        self.send(found.reply)
        if found.reply.code in CLOSING:
            raise _Ended
        if found.then is not None:
            self.dialogue.flush()
            await found.then()

    async def _answer(self, event: Command) -> Answer:
        """The answer to a command line. Raises _Ended."""
        line = event.line.decode("utf-8", "surrogateescape")
        shown = self.tally.heard(event.line)
        if event.too_long:
            return self._fault(self._too_long(shown))
        commands = self.server.commands
        if commands.filters:
            line = await self._filtered(line)
        if event.bare_newline:
            self._note_bare_newline()
        self.line = line
        word, argument = _split(line)
        if not line.isascii() and not self._is_text(line):
            return self._fault(Reply(500, "5.5.2", "Error: bad UTF-8 syntax"))
        if not word:
            self._begin(UNKNOWN)
            return self._fault(Reply(500, "5.5.2", "Error: bad syntax"))
        if commands.ignores_some and await commands.ignores(word):
            self.tally.junk()
            return answer(Reply(250, "2.0.0", "Ok"))
        verb = self.verbs.get(word.upper())
        if verb is None:
            return await self._unknown(word, line)
        self.facts.where = name = verb.name
        self.tally.begin(name)
        if self.dialogue.core.pending:
            self._look_ahead(verb)
        found = self._refused(verb, argument)
        if found is None and verb.run is not None:
            found = await verb.run(self, argument)
        if found is None:
            raise AssertionError(verb)
        self.tally.end(name, found)
        if verb.ends:
            await self._end(found)
        return found

    async def _end(self, found: Answer) -> None:
        await self._delay()
        self.send(found.reply)
        raise _Ended

    async def _delay(self) -> None:
        """Let a client wait that makes many errors."""
        if self.tally.delay:
            await self.dialogue.pause(self.tally.delay)

    def _begin(self, name: str) -> None:
        self.facts.where = name
        self.tally.begin(name)

    def _fault(self, reply: Reply) -> Answer:
        """The answer to what is no command."""
        found = answer(reply)
        self.tally.fault(found.kind)
        return found

    async def _unknown(self, word: str, line: str) -> Answer:
        self._begin(UNKNOWN)
        if await self.server.commands.forbids(word):
            LOG.warning(f"non-SMTP command from {self.client}: {escaped(line[:_SHOWN])}")
            self.send(Reply(221, "2.7.0", "Error: I can break rules, too. Goodbye."))
            raise _Ended
        return self._fault(Reply(500, "5.5.2", "Error: command not recognized"))

    # the gates

    def _refused(self, verb: Verb, argument: str) -> Answer | None:
        """Why the command may not be given now."""
        if verb.limited:
            self.tally.junk()
        facts = self.facts
        if self._access_denied and not verb.ends:
            text = f"Error: access denied for {facts.client.shown}"
            return by_policy(Reply(503, "5.7.0", text))
        if self.server.options.must_encrypt and facts.tls is None and not verb.clear:
            return answer(Reply(530, "5.7.0", "Must issue a STARTTLS command first"))
        if argument and verb.bare:
            return answer(Reply(501, "5.5.4", f"Syntax: {verb.name}"))
        return None if verb.off is None else verb.off(self)

    def _look_ahead(self, verb: Verb) -> None:
        """Notice commands that were sent before they may be, RFC 2920 §3.1. Raises _Ended."""
        facts = self.facts
        if facts.improper_pipelining or verb.ends:
            return
        if self.server.stand_alone or (not verb.last and facts.protocol == "ESMTP"):
            return
        self._too_early()

    def _too_early(self) -> None:
        """The client has sent more than it may at this point. Raises _Ended."""
        facts = self.facts
        facts.improper_pipelining = True
        shown = self.tally.shown(self.dialogue.core.peek(_SHOWN)).decode("utf-8", "replace")
        LOG.event(ImproperPipelining(facts.where, self.client, escaped(shown)))
        if self.server.params.smtpd_forbid_unauth_pipelining:
            self.send(Reply(554, "5.5.0", "Error: SMTP protocol synchronization"))
            raise _Ended

    def _too_long(self, line: bytes) -> Reply:
        """The refusal of a line that is beyond line_length_limit; it is not looked at."""
        params = self.server.params
        text = escaped(line[:_SHOWN_COMMAND].decode("utf-8", "replace"))
        LOG.warning(f"{self.client}: request longer than {params.line_length_limit}: {text}...")
        return Reply(500, "5.5.2", f"{params.myhostname} Error: command too long")

    def _is_text(self, line: str) -> bool:
        """With smtputf8_enable, a line that is not ASCII has to be UTF-8."""
        if not self.server.params.smtputf8_enable:
            return True
        return not any("\udc80" <= char <= "\udcff" for char in line)

    def _note_bare_newline(self) -> None:
        setting = self.server.params.smtpd_forbid_bare_newline
        if setting == "note":
            LOG.info(f"bare <LF> received after {self.facts.where} from {self.client}")
        elif setting == "reject" and self.dialogue.core.newlines is BareNewline.REJECT:
            self.log("reject", "bare <LF> received")
            self.send(self.bare_newline_reply())
            raise _Ended

    def bare_newline_reply(self) -> Reply:
        """The refusal of a line that ends in LF alone."""
        params = self.server.params
        code = params.smtpd_forbid_bare_newline_reject_code
        text = f"{params.myhostname} Error: bare <LF> received"
        return Reply(code, f"{code // 100}.5.2", text)

    async def _filtered(self, line: str) -> str:
        try:
            found = await self.server.commands.replaced(line)
        except TableRetry:
            self.send(Reply(421, "4.3.0", f"{self.server.params.myhostname} Error: command filter"))
            raise _Ended from None
        if found is None:
            return line
        LOG.info(f'{self.client}: replacing command "{_shown(line)}" with "{_shown(found)}"')
        return found

    # for the verbs

    @property
    def client(self) -> str:
        """name[address], with smtpd_client_port_logging also :port."""
        client = self.facts.client
        if self.server.params.smtpd_client_port_logging:
            return f"{client.shown}:{client.port}"
        return client.shown

    @property
    def queue_id(self) -> str:
        """Of the message at hand, "" before there is one."""
        transaction = self.transaction
        if transaction is None or transaction.submission is None:
            return ""
        return transaction.submission.queue_id

    def log(self, action: str, what: str) -> None:
        """Log what a restriction did."""
        LOG.event(SessionLine.of(self.facts, self.queue_id, self.client, action, what))

    def judge(self, verdict: Verdict) -> Answer | None:
        """Log what restrictions did, remember what they want done; the answer if they refuse."""
        self.tally.kinds.update(verdict.errors)
        for effect in verdict.effects:
            if effect.action != "prepend" and not self.extras.has(effect):
                self.log(effect.action, effect.text)
            self.extras.add(effect)
        return None if verdict.reply is None else decided(verdict.reply)

    async def open_submission(self, transaction: Transaction) -> None:
        """Begin the message in the queue. Raises ServiceUnavailable."""
        if transaction.submission is None:
            server = self.server
            submission = await server.cleanup.open(server.options.cleanup_flags)
            transaction.submission = submission
            LOG.event(ClientLine.of(submission.queue_id, self.client, self.forwarded))

    def drop_transaction(self) -> None:
        """End the transaction; what it has of a message is dropped."""
        transaction, self.transaction = self.transaction, None
        self.chunks = None
        if transaction is not None:
            transaction.abort()
        self.forwarded = None
        self.facts.mail = Mail()
        self.extras = Extras()
        self.receiving = False


def _split(line: str) -> tuple[str, str]:
    """(first word, the rest) of a command line; what separates words is not part of them."""
    line = line.strip(_SPACE)
    word, _, argument = line.partition(" ")
    if "\t" in word or "\r" in word:
        at = next(at for at, char in enumerate(word) if char in _SPACE)
        word, argument = line[:at], line[at:]
    return word, argument.lstrip(_SPACE)


def _shown(command: str) -> str:
    """A command of the client, or in its place, for the log."""
    octets = command.encode("utf-8", "surrogateescape")
    return masked(octets, after_secret=False)[1].decode("utf-8", "surrogateescape")[:_SHOWN]
