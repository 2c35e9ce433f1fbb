"""One client's session: state, replies, the loop over commands.

A verb is a function in `daemons.smtpd.verbs`; it returns the reply, and only this loop sends,
counts and logs. The session asks the restrictions through `Server`, and does what they say.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from daemons.smtpd.channel import Channel, ClientGone, ClientSilent, ServerStopping
from daemons.smtpd.chunks import Chunks
from daemons.smtpd.events import (
    ClientLine,
    ConnectLine,
    DisconnectLine,
    ImproperPipelining,
    SessionLine,
    SessionLost,
    escaped,
)
from daemons.smtpd.footer import add_footer, footer_values
from daemons.smtpd.peer import Peer
from daemons.smtpd.secrets import MASK, masked
from daemons.smtpd.server import Server
from daemons.smtpd.transaction import Extras, Transaction
from libmail.clients.notice import Direction
from libmail.log import LOG
from libmail.lookup.facts import Effect, Facts, NameStatus, Verdict
from libmail.smtp.reply import Reply
from libmail.smtp.server import BareNewline, Command, Content, Event, SmtpServerCore
from libmail.tables.table import TableRetry

__all__ = ["CLOSING", "Answer", "Session", "Uncounted", "Verb"]

CLOSING: Final = frozenset({421, 521})
"""Reply codes after which the connection is closed."""

_IN_THE_CLEAR: Final = frozenset({"HELO", "EHLO", "STARTTLS", "NOOP", "QUIT"})  # RFC 3207 §4
_PROTOCOL_CODES: Final = frozenset({500, 501, 503})
_SHOWN: Final = 100  # octets of unexpected input in the log
_SHOWN_COMMAND: Final = 30  # octets of a command that is too long
_CLEANUP_ACTIONS: Final = {"hold": 4, "discard": 8}  # CleanupFlag bits
_TURN: Final = 64  # commands, or pieces of content, before other sessions have their turn
_TURN_TIME: Final = 0.01  # seconds, for the same
_SPACE: Final = " \t\r"
_PIECE: Final = 14  # 1 << _PIECE octets of content count as one more piece


@dataclass(frozen=True, slots=True)
class Uncounted:
    """A reply that refuses, but not for an error of the client."""

    reply: Reply


Answer: TypeAlias = Reply | Uncounted


@dataclass(frozen=True, slots=True)
class Verb:
    """A command. limited: it does no mail, so smtpd_junk_command_limit holds.

    last: the client has to wait for the answer (RFC 2920 §3.1). ends: so does the session.
    """

    name: str
    run: Callable[["Session", str], Awaitable[Answer]]
    limited: bool = False
    last: bool = False
    ends: bool = False


class _Ended(Exception):
    """The session is over."""


class Session:
    """A client's session, from connection to disconnection."""

    __slots__ = (
        "_by_policy",
        "_counts",
        "_out",
        "_reason",
        "_secret",
        "_turn",
        "_turn_began",
        "access_denied",
        "channel",
        "chunks",
        "core",
        "discard",
        "error_mask",
        "errors",
        "extras",
        "facts",
        "junk",
        "line",
        "octets",
        "server",
        "transaction",
        "transcript",
        "verbs",
    )

    def __init__(
        self, server: Server, channel: Channel, verbs: Mapping[str, Verb], address: str, port: str
    ) -> None:
        """address, port: of the client, as text."""
        self.server = server
        self.channel = channel
        self.verbs = verbs
        self.core = SmtpServerCore(server.params.line_length_limit)
        self.facts = Facts(client_address=address, client_port=port)
        self.transaction: Transaction | None = None
        self.chunks: Chunks | None = None  # from the first BDAT of a message to its last
        self.extras = Extras()
        self.discard: frozenset[str] = frozenset()
        self.access_denied: Reply | None = None
        self.errors = 0
        self.junk = 0
        self.line = ""  # the command at hand
        self.octets: int | None = None  # of content, while it is received
        self.error_mask: set[str] = set()
        self.transcript: list[tuple[Direction, bytes]] = []
        self._by_policy: Reply | None = None  # the last refusal that is no error of protocol
        self._out: list[bytes] = []
        self._secret = False  # the last command was to say one, and the next may be the rest of it
        self._turn = 0
        self._turn_began = 0.0
        self._counts: dict[str, tuple[int, int]] = {}
        self._reason: Literal["lost connection", "timeout", "too many errors", ""] = ""

    # the client, for the log

    @property
    def client(self) -> str:
        """name[address], with smtpd_client_port_logging also :port."""
        if self.server.params.smtpd_client_port_logging:
            return f"{self.facts.client}:{self.facts.client_port}"
        return self.facts.client

    def know_peer(self, peer: Peer) -> None:
        """Take the result of the lookup of the client's name."""
        facts = self.facts
        facts.client_name, facts.reverse_name = peer.name, peer.reverse_name
        facts.name_status, facts.reverse_status = peer.name_status, peer.reverse_status

    # sending and receiving

    def send(self, reply: Reply) -> None:
        """Queue a reply; it is sent before we wait for the client again."""
        params = self.server.params
        if reply.code >= 400 and params.smtpd_reject_footer:
            values = footer_values(
                client_address=self.facts.client_address,
                client_port=self.facts.client_port,
                recipient=self.facts.recipient or "",
                server=params.myhostname,
                time_now=self.server.lookups.now(),
            )
            reply = add_footer(reply, params.smtpd_reject_footer, values)
        data = reply.wire()
        self._note("Out", data)
        self._out.append(data)

    def _note(self, direction: Direction, data: bytes) -> None:
        """Remember for a report to the postmaster, see notify_classes."""
        if len(self.transcript) < self.server.params.smtpd_history_flush_threshold:
            self.transcript.append((direction, data))

    def flush(self) -> None:
        """Send what was queued, in one piece."""
        if self._out:
            self.channel.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._out.clear()

    async def event(self) -> Event:
        """The next command or piece of content. Raises ClientGone, ClientSilent, ..."""
        core = self.core
        while True:
            event = core.next_event()
            if event is not None:
                self._turn += 1
                if isinstance(event, Content):
                    self._turn += len(event.data) >> _PIECE
                if not self._turn & 7 or self._turn >= _TURN:
                    await self._take_turns()
                return event
            if self._out:
                self.flush()
            core.receive_data(await self.channel.read(idle=self.transaction is None))
            self._turn_began = time.monotonic()

    async def _take_turns(self) -> None:
        """Let other sessions go on, if this one has been busy for long without a pause."""
        if self._turn < _TURN and time.monotonic() - self._turn_began < _TURN_TIME:
            return
        if self._out:
            self.flush()
        await self.channel.give_way()
        self._turn = 0
        self._turn_began = time.monotonic()

    async def pause(self) -> None:
        """Slow down a client that makes many errors."""
        params = self.server.params
        if self.errors >= params.smtpd_soft_error_limit and params.smtpd_error_sleep_time:
            self.flush()
            await asyncio.sleep(params.smtpd_error_sleep_time)

    # the session

    async def run(self) -> None:
        """Serve the client until one of us ends it."""
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
            host = self.server.params.myhostname
            self.send(Reply(421, "4.4.2", f"{host} Error: timeout exceeded"))
        except ServerStopping:
            host = self.server.params.myhostname
            text = f"{host} Service not available, closing transmission channel"
            self.send(Reply(421, "4.3.2", text))
        finally:
            self._finish()
        if self.error_mask:
            await self._tell_postmaster()

    def _finish(self) -> None:
        self.flush()
        self.channel.close()
        if self._reason:
            where, octets = self.facts.where, self.octets
            LOG.event(SessionLost(self.queue_id, self._reason, where, self.client, octets))
        self.drop_transaction()
        known = self._counts
        counts = [(name.lower(), *known[name]) for name in self.verbs if name in known]
        if "UNKNOWN" in known:
            counts.append(("unknown", *known["UNKNOWN"]))
        LOG.event(DisconnectLine(self.client, tuple(counts)))

    async def _tell_postmaster(self) -> None:
        """notify_classes: report on a session that had such errors."""
        server = self.server
        if not server.postmaster.wants(self.error_mask):
            return
        reason = self._reason
        bounced = "bounce" in self.error_mask
        await server.postmaster.tell(
            f"SMTP server: errors from {self.facts.client}",
            self.transcript,
            ending=f"Session aborted, reason: {reason}\r\n\r\n" if reason else "\r\n",
            recipient=server.params.bounce_notice_recipient if bounced else "",
        )

    async def _greet(self) -> None:
        server, facts = self.server, self.facts
        peer = server.peers.known(facts.client_address)
        if server.stand_alone:
            peer = Peer("localhost", "localhost", NameStatus.OK, NameStatus.OK)
        elif peer is None:
            peer = await server.peers.find(facts.client_address)
        self.know_peer(peer)
        LOG.event(ConnectLine(self.client))
        self.core.treat_newlines(await server.newlines(facts.client_name, facts.client_address))
        if server.stopping:
            raise ServerStopping
        verdict = await server.connect(facts)
        self.carry_out(verdict)
        if verdict.reply is not None:
            self.access_denied = verdict.reply
            self.send(verdict.reply)
            if verdict.reply.code in CLOSING:
                raise _Ended
            return
        if self.channel.has_sent():
            self.core.receive_data(await self.channel.read(idle=True))
            self._too_early()
        self.send(Reply(220, "", server.params.smtpd_banner))

    async def _command(self) -> None:
        params = self.server.params
        if self.errors >= params.smtpd_hard_error_limit:
            self._reason = "too many errors"
            self.error_mask.add("protocol")
            self.send(Reply(421, "4.7.0", f"{params.myhostname} Error: too many errors"))
            raise _Ended
        event = await self.event()
        if not isinstance(event, Command):
            raise AssertionError(event)
        answer = await self._answer(event)
        if answer is None:
            return
        reply = answer.reply if isinstance(answer, Uncounted) else answer
        if self.errors >= params.smtpd_soft_error_limit:
            await self.pause()
        self.send(reply)
        if reply.code in CLOSING:
            raise _Ended

    async def _answer(self, event: Command) -> Answer | None:
        """The reply to a command line; counts it. Raises _Ended."""
        line = event.line.decode("utf-8", "surrogateescape")
        self._secret, shown = masked(event.line, after_secret=self._secret)
        self._note("In", shown)
        if event.too_long:
            return self._too_long(shown)
        if self.server.filters_commands:
            line = await self._filtered(line)
        if event.bare_newline:
            self._note_bare_newline()
        self.line = line
        word, argument = _split(line)
        name = word.upper()
        if not line.isascii() and not self._is_text(line):
            return self._error(Reply(500, "5.5.2", "Error: bad UTF-8 syntax"))
        if not word:
            self._count_unknown()
            return self._error(Reply(500, "5.5.2", "Error: bad syntax"))
        if self.server.ignores_commands and await self._listed("noop", word):
            self.count_junk()
            return Reply(250, "2.0.0", "Ok")
        verb = self.verbs.get(name)
        if verb is None:
            return await self._unknown(word, line)
        self.facts.where = name
        good, total = self._counts.get(name, (0, 0))
        self._counts[name] = (good, total + 1)
        self._look_ahead(verb)
        refused = self._refused(verb)
        answer = await verb.run(self, argument) if refused is None else refused
        if isinstance(answer, Uncounted) or answer.code < 400:
            self._counts[name] = (good + 1, total + 1)
        else:
            self.errors += 1
            broken = answer.code in _PROTOCOL_CODES or answer.dsn[2:4] == "5."
            if broken and answer is not self._by_policy:
                self.error_mask.add("protocol")
        if verb.ends:
            await self.pause()
            self.send(answer if isinstance(answer, Reply) else answer.reply)
            raise _Ended
        return answer

    def _refused(self, verb: Verb) -> Reply | None:
        """Why the command may not be given now, whatever it says."""
        if verb.limited:
            self.count_junk()
        if self.access_denied is not None and not verb.ends:
            denied = Reply(503, "5.7.0", f"Error: access denied for {self.facts.client}")
            return self.by_policy(denied)
        if self.server.must_encrypt and verb.name not in _IN_THE_CLEAR:
            return Reply(530, "5.7.0", "Must issue a STARTTLS command first")
        return None

    def count_junk(self) -> None:
        """The client gave a command that does no mail; too many of them are errors."""
        if self.junk > self.server.params.smtpd_junk_command_limit:
            self.errors += 1
        self.junk += 1

    def _too_long(self, line: bytes) -> Reply:
        """The refusal of a line that is beyond line_length_limit; it is not looked at."""
        params = self.server.params
        text = escaped(line[:_SHOWN_COMMAND].decode("utf-8", "replace"))
        LOG.warning(f"{self.client}: request longer than {params.line_length_limit}: {text}...")
        return self._error(Reply(500, "5.5.2", f"{params.myhostname} Error: command too long"))

    def _error(self, reply: Reply) -> Reply:
        self.error_mask.add("protocol")
        self.errors += 1
        return reply

    def by_policy(self, reply: Reply) -> Reply:
        """Say with this reply that we do not want to, not that the client is wrong."""
        self.error_mask.add("policy")
        self._by_policy = reply
        return reply

    def _is_text(self, line: str) -> bool:
        """With smtputf8_enable, a line that is not ASCII has to be UTF-8."""
        if not self.server.params.smtputf8_enable:
            return True
        return not any("\udc80" <= char <= "\udcff" for char in line)

    def _note_bare_newline(self) -> None:
        setting = self.server.params.smtpd_forbid_bare_newline
        if setting == "note":
            LOG.info(f"bare <LF> received after {self.facts.where} from {self.client}")
        elif setting == "reject" and self.core.newlines is BareNewline.REJECT:
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
            found = await self.server.prepared.command_filter.find(line)
        except TableRetry:
            self.send(Reply(421, "4.3.0", f"{self.server.params.myhostname} Error: command filter"))
            raise _Ended from None
        if found is None:
            return line
        old, new = (
            masked(text.encode("utf-8", "surrogateescape"), after_secret=False)[1].decode(
                "utf-8", "surrogateescape"
            )[:_SHOWN]
            for text in (line, found)
        )
        LOG.info(f'{self.client}: replacing command "{old}" with "{new}"')
        return found

    async def _listed(self, which: Literal["noop", "forbidden"], word: str) -> bool:
        prepared = self.server.prepared
        commands = prepared.noop_commands if which == "noop" else prepared.forbidden_commands
        try:
            return await commands.match(word)
        except TableRetry:
            return False

    def _count_unknown(self) -> None:
        self.facts.where = "UNKNOWN"
        self._counts["UNKNOWN"] = (0, self._counts.get("UNKNOWN", (0, 0))[1] + 1)

    async def _unknown(self, word: str, line: str) -> Reply:
        self._count_unknown()
        if word.endswith(":") or await self._listed("forbidden", word):
            LOG.warning(f"non-SMTP command from {self.client}: {escaped(line[:_SHOWN])}")
            self.send(Reply(221, "2.7.0", "Error: I can break rules, too. Goodbye."))
            raise _Ended
        return self._error(Reply(500, "5.5.2", "Error: command not recognized"))

    def _look_ahead(self, verb: Verb) -> None:
        """Notice commands that were sent before they may be, RFC 2920 §3.1. Raises _Ended."""
        facts = self.facts
        if (
            not self.core.pending
            or self.server.stand_alone
            or facts.improper_pipelining
            or verb.ends
        ):
            return
        if not verb.last and facts.protocol == "ESMTP":
            return
        self._too_early()

    def _too_early(self) -> None:
        """The client has sent more than it may at this point. Raises _Ended."""
        facts = self.facts
        facts.improper_pipelining = True
        shown = MASK if self._secret else masked(self.core.peek(_SHOWN), after_secret=False)[1]
        LOG.event(
            ImproperPipelining(facts.where, self.client, escaped(shown.decode("utf-8", "replace")))
        )
        if self.server.params.smtpd_forbid_unauth_pipelining:
            self.send(Reply(554, "5.5.0", "Error: SMTP protocol synchronization"))
            raise _Ended

    # for the verbs

    @property
    def queue_id(self) -> str:
        """Of the message at hand, "" before there is one."""
        transaction = self.transaction
        if transaction is None or transaction.submission is None:
            return ""
        return transaction.submission.queue_id

    def log(self, action: str, what: str) -> None:
        """Log what a restriction did."""
        facts = self.facts
        LOG.event(
            SessionLine(
                queue_id=self.queue_id,
                action=action,
                where=facts.where,
                client=self.client,
                what=what,
                sender=facts.sender,
                recipient=facts.recipient,
                protocol=facts.protocol,
                helo_name=facts.helo_name,
            )
        )

    def carry_out(self, verdict: Verdict) -> None:
        """Log what restrictions did, and remember what they want done with the message."""
        self.error_mask.update(verdict.errors)
        self._by_policy = verdict.reply
        for effect in verdict.effects:
            if effect.action != "prepend" and not self._on_hold(effect.action):
                self.log(effect.action, effect.text)
            self._remember(effect)

    def _on_hold(self, action: str) -> bool:
        """Whether the action is to hold a message that is held anyway; said once is enough."""
        return action == "hold" and bool(self.extras.cleanup_flags & _CLEANUP_ACTIONS["hold"])

    def hold(self, why: str) -> None:
        """Take the message, but do not deliver it."""
        self.log("milter-hold", why)
        self.extras.cleanup_flags |= _CLEANUP_ACTIONS["hold"]

    def _remember(self, effect: Effect) -> None:
        extras, action = self.extras, effect.action
        if action in _CLEANUP_ACTIONS:
            extras.cleanup_flags |= _CLEANUP_ACTIONS[action]
        elif action == "filter":
            extras.content_filter = effect.argument
        elif action == "redirect":
            extras.redirect = effect.argument
        elif action == "bcc":
            extras.bcc.append(effect.argument)
        elif action == "prepend":
            extras.prepend.append(effect.argument)

    async def open_submission(self, transaction: Transaction) -> None:
        """Begin the message in the queue. Raises ServiceUnavailable."""
        if transaction.submission is None:
            submission = await self.server.cleanup.open(self.server.cleanup_flags)
            transaction.submission = submission
            LOG.event(ClientLine(submission.queue_id, self.client))

    def drop_transaction(self) -> None:
        """End the transaction; what it has of a message is dropped."""
        transaction, self.transaction = self.transaction, None
        self.chunks = None
        if transaction is not None:
            transaction.abort()
        self.facts.sender = self.facts.recipient = None
        self.facts.recipient_count = 0
        self.extras = Extras()
        self.octets = None


def _split(line: str) -> tuple[str, str]:
    """(first word, the rest) of a command line; what separates words is not part of them."""
    line = line.strip(_SPACE)
    word, _, argument = line.partition(" ")
    if "\t" in word or "\r" in word:
        at = next(at for at, char in enumerate(word) if char in _SPACE)
        word, argument = line[:at], line[at:]
    return word, argument.lstrip(_SPACE)
