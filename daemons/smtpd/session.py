"""One client's session: the loop over commands, and what their functions need of it.

A command is checked in this order (see `daemons.smtpd.gates`): line_length_limit,
smtpd_command_filter, UTF-8, smtpd_noop_commands, known verb, improper pipelining (RFC 2920), access
denied, TLS required, argument allowed, available to this client. Then its function in
`daemons.smtpd.verbs` runs. It returns an `Answer`; only the loop here sends replies and counts.

Other parts of a session are in modules of their own: identifying the client (`arrival`), the stream
(`Dialogue`), errors and transcript (`Tally`), the current message (`Transaction`, with the `Intake`
of its content), and what all sessions share (`Server`). Decisions see nothing but the `Facts`.
"""

from collections.abc import Mapping
from typing import Final, Literal, NoReturn

from daemons.smtpd.answer import CLOSING, Answer, SessionEnded, answer, decided
from daemons.smtpd.arrival import arrive
from daemons.smtpd.before_queue import source_of
from daemons.smtpd.client_rules import NOT_AUTHORIZED
from daemons.smtpd.dialogue import Dialogue
from daemons.smtpd.events import (
    LINES,
    ClientLine,
    DisconnectLine,
    SessionLine,
    SessionLost,
    say,
)
from daemons.smtpd.footer import filtered, reject_footer
from daemons.smtpd.gates import NOT_ENCRYPTED, look_ahead, read, refusal, split, too_early
from daemons.smtpd.logins import Login
from daemons.smtpd.milters import SessionMilters, open_chain
from daemons.smtpd.rates import ClientRates
from daemons.smtpd.resumed import resume
from daemons.smtpd.server import Server
from daemons.smtpd.tally import UNKNOWN, Tally
from daemons.smtpd.transaction import NO_EXTRAS, Chunks, Transaction
from daemons.smtpd.verb import Verb
from libmail.ipc.messages import TlsSession
from libmail.log import LOG
from libmail.lookup.context import Lookups
from libmail.lookup.expansion import session_values
from libmail.lookup.facts import END_OF_MESSAGE, Client, Facts, Mail, Verdict
from libmail.lookup.xclient import Forwarded
from libmail.net.channel import Channel, ClientGone, ClientSilent, ServerStopping
from libmail.smtp.footer import add_footer
from libmail.smtp.reply import Reply, softened
from libmail.smtp.server import Command
from libmail.text.escapes import escaped

__all__ = ["Session"]

_LOST: Final = "lost connection"
_SHOWN: Final = 100  # octets of unexpected input in the log


class Session:
    """A client's session, from connection to disconnection.

    line: the current command. discard: EHLO keywords that are hidden from the client. may_verp: the
    client may use XVERP. rates: what counts its events, if they are limited.
    receiving: the content of a message is being received. authorization: for XCLIENT and XFORWARD.
    forwarded: origin of the next message, from XFORWARD. complete: cleanup has decided about the
    message. login: the state of AUTH. unidentified: why smtpd_tls_req_ccert is not met, or "".
    overdue: a refusal that the client learns when it names a recipient, see `resumed`.
    """

    __slots__ = ("_ending", "_reason", "_screened", "access_denied", "authorization", "chunks",
                 "complete", "dialogue", "discard", "extras", "facts", "forwarded", "line", "login",
                 "lookups", "may_verp", "milters", "overdue", "rates", "receiving", "said",
                 "server", "tally", "tls", "transaction", "unidentified", "verbs")  # fmt: skip

    server: Server
    lookups: Lookups  # of the server, or those that record this session
    transaction: Transaction | None
    chunks: Chunks | None  # from the first BDAT of a message to its last
    rates: ClientRates | None
    forwarded: Forwarded | None
    milters: SessionMilters | None
    overdue: Answer | None
    discard: frozenset[str]
    line: str
    unidentified: str
    may_verp: bool
    _ending: bool  # the client has said QUIT
    _reason: Literal["lost connection", "timeout", "too many errors", ""]

    def __init__(
        self,
        server: Server,
        channel: Channel,
        verbs: Mapping[str, Verb],
        client: Client,
        *,
        screened: bool = False,
        said: tuple[str, ...] = (),
        tls: tuple[TlsSession, ...] = (),
    ) -> None:
        """client: its names are not known yet. screened: another program has looked at whether it
        waits for the greeting. said, tls: see PassedClient."""
        self.server, self.verbs = server, verbs
        self._screened, self.said, self.tls = screened, said, tls
        self.facts = Facts(client)
        self.dialogue = Dialogue(channel, server.params.line_length_limit)
        self.tally = Tally(server.params)
        self.lookups = server.lookups
        self.transaction = self.chunks = self.rates = self.forwarded = self.milters = None
        self.overdue = None
        self.authorization, self.extras, self.login = NOT_AUTHORIZED, NO_EXTRAS, Login()
        self.discard = frozenset()
        self.line = self.unidentified = self._reason = ""
        self.access_denied = self.complete = self.may_verp = self.receiving = self._ending = False

    # sending and receiving

    async def send(self, reply: Reply) -> None:
        """Queue a reply; it is sent before we wait for the client again."""
        server = self.server
        if reply.code >= 400:
            reply = await filtered(server.prepared, reply)
            footer = await reject_footer(server.prepared, reply)
            if footer:
                values = session_values(self.facts, server.params.myhostname, self.lookups.now())
                allowed = server.params.smtpd_expansion_filter
                reply = add_footer(reply, footer, values, allowed)
            if server.params.soft_bounce and reply.code >= 500:
                reply = softened(reply)
        self._queue(reply)

    def _queue(self, reply: Reply) -> None:
        data = reply.wire()
        self.tally.said(data)
        self.dialogue.send(data)

    # from the connection to its end

    async def run(self) -> None:
        """Serve the client until one of us ends it."""
        host = self.server.params.myhostname
        try:
            await self._greet()
            if self.said:
                await resume(self)
            await self._converse()
        except SessionEnded:
            pass
        except ClientGone:
            self._reason = _LOST
        except ClientSilent:
            self._reason = "timeout"
            await self.send(Reply(421, "4.4.2", f"{host} Error: timeout exceeded"))
        except ServerStopping:
            text = f"{host} Service not available, closing transmission channel"
            await self.send(Reply(421, "4.3.2", text))
        finally:
            self._finish()
        if self.tally.kinds:
            await self._tell_postmaster()

    def _finish(self) -> None:
        self.dialogue.close()
        where = self.facts.where
        # Many clients go without QUIT when they are done: that is nothing to tell.
        if self._reason and (self._reason, where) != (_LOST, END_OF_MESSAGE):
            transaction = self.transaction
            octets = transaction.octets if self.receiving and transaction is not None else None
            LOG.event(SessionLost(self.queue_id, self._reason, where, self.client, octets))
        self._abandon()
        if self.milters is not None:
            self.milters.close()
        if self.rates is not None:
            self.rates.leave()
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
            await self.send(refused)
            raise SessionEnded
        if self.server.stopping:
            raise ServerStopping
        greeting = await self.welcome()
        judged = self.access_denied or self._screened
        if not judged and await self.dialogue.talks_first():
            await too_early(self)
        if self.said and greeting.code not in CLOSING:
            self.overdue = None if greeting.positive else decided(greeting)
            return
        await self.send(greeting)
        if greeting.code in CLOSING:
            raise SessionEnded

    async def welcome(self) -> Reply:
        """The greeting for the client, or the refusal of its connection; again after XCLIENT."""
        restrictions = self.server.restrictions
        self.access_denied = False
        if restrictions.at_connect:
            refused = self.judge(await restrictions.connect(self.facts, self.lookups))
            if refused is not None:
                self.access_denied = True
                return refused.reply
        if self.server.options.has_milters:
            self.milters = await open_chain(self, self.server.prepared.milters)
        greeting = None if self.milters is None else await self.milters.greeting()
        return Reply(220, "", self.server.params.smtpd_banner) if greeting is None else greeting

    def start_over(self) -> None:
        """Reset the session to its state after the greeting, and drop input received so far.

        After STARTTLS: what was said before may have come from an attacker (RFC 3207 §4.2).
        """
        self.drop_transaction()
        self.dialogue.core.reset()
        facts = self.facts
        facts.helo_name, facts.protocol, facts.sasl = "", "SMTP", None
        self.discard, self.may_verp, self.login = frozenset(), False, Login()

    # commands

    async def _converse(self) -> None:
        """Answer commands, up to the one that ends the session. Raises SessionEnded, ..."""
        dialogue, tally = self.dialogue, self.tally
        await self._end_of_patience()
        while not self._ending:
            event = await dialogue.event(idle=self.transaction is None)
            if not isinstance(event, Command):
                raise AssertionError(event)
            found = await self.answer_to(event)
            if found.reply.code < 400 and not tally.errors:
                self._queue(found.reply)
            else:
                await self._answer_in_error(found)
            if found.then is not None:
                dialogue.flush()
                await found.then()

    async def _answer_in_error(self, found: Answer) -> None:
        """Answer a client that makes errors, with some delay if they are many.

        Raises SessionEnded, ...
        """
        if self.tally.delay:
            await self.dialogue.pause(self.tally.delay)
        await self.send(found.reply)
        if found.reply.code in CLOSING:
            raise SessionEnded
        if not self._ending:
            await self._end_of_patience()

    async def _end_of_patience(self) -> None:
        """smtpd_hard_error_limit. Raises SessionEnded."""
        if not self.tally.exhausted:
            return
        self._reason = "too many errors"
        self.tally.kinds |= {"protocol"}
        host = self.server.params.myhostname
        await self.send(Reply(421, "4.7.0", f"{host} Error: too many errors"))
        raise SessionEnded

    async def answer_to(self, event: Command) -> Answer:
        """The answer to a command line. Raises SessionEnded."""
        octets, bare_newline, too_long = event
        commands, tally = self.server.commands, self.tally
        if bare_newline or too_long or commands.filters or not octets.isascii():
            found = await read(self, event)
            if isinstance(found, Reply):
                return self._fault(found)
            self.line = line = found
        else:
            self.line = line = octets.decode()
            tally.heard(octets)
        if self.unidentified:
            await self._abort()
        word, argument = split(line)
        if commands.ignores_some and word and await commands.ignores(word):
            tally.junk()
            return answer(Reply(250, "2.0.0", "Ok"))
        verb = self.verbs.get(word.upper())
        if verb is None:
            return await self._unknown(word, line)
        before = self.facts.where
        if not self.access_denied or verb.ends:
            self.facts.where = verb.name
        tally.given[verb.name] += 1
        if self.dialogue.core.pending:
            await look_ahead(self, verb)
        if verb.junk:
            tally.junk()
        refused = None
        if verb.depends or self.access_denied or self.server.options.must_encrypt:
            refused = refusal(self, verb, argument)
            if refused is NOT_ENCRYPTED:  # as if it had not been said
                self.facts.where = before
        answered = refused or await verb.run(self, argument)
        tally.end(verb.name, answered)
        self._ending = verb.ends
        return answered

    async def _abort(self) -> NoReturn:
        """smtpd_tls_req_ccert: refuse the first command within TLS."""
        reason = self.unidentified
        LOG.info(f"NOQUEUE: abort: TLS from {self.client}: {reason}")
        self.tally.kinds |= {"policy"}
        await self.send(Reply(421, "4.7.1", f"{self.server.params.myhostname} Error: {reason}"))
        raise SessionEnded

    def _fault(self, reply: Reply) -> Answer:
        """The answer to a line that is not a valid command."""
        found = answer(reply)
        self.tally.fault(found.kind)
        return found

    async def _unknown(self, word: str, line: str) -> Answer:
        self.facts.where = UNKNOWN
        self.tally.given[UNKNOWN] += 1
        if not word:
            return self._fault(Reply(500, "5.5.2", "Error: bad syntax"))
        if await self.server.commands.forbids(word):
            LOG.warning(f"non-SMTP command from {self.client}: {escaped(line[:_SHOWN])}")
            await self.send(Reply(221, "2.7.0", "Error: I can break rules, too. Goodbye."))
            raise SessionEnded
        refused = None if self.milters is None else await self.milters.unknown(line)
        reply = Reply(500, "5.5.2", "Error: command not recognized")
        return self._fault(reply if refused is None else refused.reply)

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
        """The queue id of the current message, "" if there is none yet."""
        transaction = self.transaction
        if transaction is None or transaction.submission is None:
            return ""
        return transaction.submission.queue_id

    def log(self, action: str, what: str) -> None:
        """Log what a restriction did."""
        LOG.event(SessionLine.of(self.facts, self.queue_id, self.client, action, what))

    def judge(self, verdict: Verdict) -> Answer | None:
        """Log and carry out the verdict of restrictions; the answer if they refuse, or None."""
        if verdict.errors:
            self.tally.kinds |= {*verdict.errors}
        for effect in verdict.effects:
            if effect.action in LINES:
                say(effect)
                continue
            if effect.action != "prepend" and not self.extras.has(effect):
                self.log(effect.action, effect.text)
            self.extras = self.extras.and_also(effect)
        return None if verdict.reply is None else decided(verdict.reply)

    async def open_submission(self, transaction: Transaction) -> None:
        """Begin the message in the queue, or with the filter before it.

        Raises ServiceUnavailable, FilterRefusal.
        """
        server = self.server
        if server.filter is not None:
            if transaction.filtered is None:
                context = await server.clients.rewrite_context(self.facts.client, self.forwarded)
                source = source_of(self.facts, self.forwarded, local=context == "local")
                transaction.filtered = await server.filter.begin(source, transaction.line)
                line = ClientLine.of("NOQUEUE", self.client, self.forwarded, self.facts.sasl)
                LOG.event(line)
        elif transaction.submission is None:
            submission = await server.cleanup.open(server.options.cleanup_flags)
            transaction.submission = submission
            queue_id = self.facts.mail.queue_id = submission.queue_id
            LOG.event(ClientLine.of(queue_id, self.client, self.forwarded, self.facts.sasl))

    def drop_transaction(self) -> None:
        """End the transaction; a message that is not in the queue yet is dropped."""
        self._abandon()
        self.chunks = self.overdue = self.forwarded = None
        self.complete = self.receiving = False
        self.facts.mail = Mail()
        self.extras = NO_EXTRAS

    def _abandon(self) -> None:
        transaction, self.transaction = self.transaction, None
        if transaction is not None:
            transaction.abort()
        if self.milters is not None:
            self.milters.message_ended(complete=self.complete)
