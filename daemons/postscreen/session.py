"""One client of postscreen(8), from its arrival until it is sent away or handed over."""

import time
from typing import TYPE_CHECKING, Final

from daemons.postscreen.access import Access
from daemons.postscreen.engine import Engine
from daemons.postscreen.events import (
    Connect,
    Disconnect,
    DnsblRank,
    Hangup,
    Listed,
    Passed,
    Pregreet,
    TooBusy,
    Vetoed,
    shown,
)
from daemons.postscreen.handover import HandoverFailed, hand_over
from daemons.postscreen.replies import finished
from daemons.postscreen.scores import Question
from daemons.postscreen.trial import Case
from daemons.postscreen.trials import Action, Trial
from daemons.postscreen.upstream import behind_proxy
from daemons.postscreen.visitor import Gone, Stopping, Visitor
from libmail.log import LOG
from libmail.lookup.client_rules import keyword_set
from libmail.net.ends import Ends
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.reply import Reply
from libmail.tables.table import TableRetry

if TYPE_CHECKING:
    from daemons.postscreen.front import Front

__all__ = ["Session"]

_BEFORE: Final = "tests before SMTP handshake"
_AFTER: Final = "tests after SMTP handshake"
_TOO_MANY: Final = Reply(421, "4.7.0", "Error: too many connections")
_NO_SERVER: Final = Reply(421, "4.3.2", "All server ports are busy")
_NO_ROOM: Final = Reply(421, "4.3.2", "All screening ports are busy")
_NOT_TAKEN: Final = Reply(421, "4.3.2", "No system resources")


class Session:
    """front: what sessions share. ends: of the socket, or what a proxy says."""

    __slots__ = ("_began", "_case", "_client", "_ends", "_front", "_prepared", "_visitor")

    def __init__(self, front: "Front", visitor: Visitor, ends: Ends) -> None:
        self._front = front
        self._prepared = front.prepared
        self._visitor = visitor
        self._ends = ends
        self._client = ""
        self._began = 0.0  # of the loop's clock: the stage at hand
        self._case: Case

    async def run(self) -> None:
        """All of it."""
        params = self._prepared.params
        if params.postscreen_upstream_proxy_protocol:
            ends = await behind_proxy(
                self._visitor,
                self._ends,
                ipv6=self._prepared.ipv6,
                timeout=params.postscreen_upstream_proxy_timeout,
            )
            if ends is None:
                return
            self._ends = ends
        address, port, server, server_port = self._ends
        self._client = f"[{address}]:{port}"
        LOG.event(Connect(self._client, f"[{server}]:{server_port}"))
        with self._front.counted(address):
            try:
                handed = await self._serve()
            except Stopping:
                handed = False
        if not handed:
            LOG.event(Disconnect(self._client))

    async def _serve(self) -> bool:
        """Whether the client was handed over."""
        front, address = self._front, self._ends.client_address
        if front.has_too_many(address):
            return await self._turn_away("too many connections", _TOO_MANY)
        if front.servers_busy:
            return await self._turn_away("all server ports busy", _NO_SERVER)
        access = await self._prepared.access.decide(address)
        if access is not Access.DUNNO:
            self._log_listed(allowed=access is Access.PERMIT)
        if access is Access.PERMIT:
            return await self._hand_over()
        record = await front.memory.recall(address)
        case = self._case = Case(self._prepared.rules, record, time.time())
        if access is Access.REJECT:
            case.deny(Action(self._prepared.params.postscreen_denylist_action))
        if case.dropped is not None:
            return await self._say(case.dropped)
        if not case.due and not case.failed:
            LOG.event(Passed(self._client, new=False))
            return await self._hand_over()
        await self._check_interface()
        if front.screening_busy:
            return await self._turn_away("all screening ports busy", _NO_ROOM)
        with front.screening():
            if not await self._screened():
                return False
        return await self._hand_over()

    def _log_listed(self, *, allowed: bool) -> None:
        respectful = self._prepared.params.respectful_logging
        LOG.event(Listed(self._client, allowed, respectful))

    async def _check_interface(self) -> None:
        """Veto clients that have come where none can pass. A table that fails is no reason."""
        try:
            allowed = await self._prepared.interfaces.match("", self._ends.server_address)
        except TableRetry:
            return
        if not allowed:
            LOG.event(Vetoed(self._client, self._prepared.params.respectful_logging))
            self._case.veto()

    async def _turn_away(self, reason: str, reply: Reply) -> bool:
        LOG.event(TooBusy(self._client, reason))
        return await self._say(reply)

    async def _say(self, reply: Reply) -> bool:
        """The last word to a client that is not handed over."""
        try:
            self._visitor.send((await finished(self._prepared, reply, self._ends)).wire())
        except Gone:
            pass
        return False

    # tests

    async def _screened(self) -> bool:
        """Whether the client has passed, as far as that counts, and can be handed over."""
        case = self._case
        if case.early:
            if not await self._wait_for_greeting():
                return False
            if case.dropped is not None:
                return await self._say(case.dropped)
        talks = case.talks_to_us
        if talks:
            await self._converse()
        if case.passed:
            LOG.event(Passed(self._client, case.record.new))
        outcome = case.outcome()
        if outcome is not None:
            await self._front.memory.keep(self._ends.client_address, outcome)
        return not talks

    def _now(self) -> float:
        return self._front.loop.time()

    async def _wait_for_greeting(self) -> bool:
        """The tests before the greeting; False: the client is gone."""
        case, params = self._case, self._prepared.params
        self._began = self._now()
        try:
            if case.needs(Trial.GREET) and params.postscreen_greet_banner:
                self._visitor.send(f"220-{params.postscreen_greet_banner}\r\n".encode())
            question = None
            if case.needs(Trial.DNSBL):
                question = self._front.scores.ask(self._ends.client_address, self._visitor.nudge)
            try:
                await self._listen(question)
            finally:
                if question is not None:
                    question.waiting.discard(self._visitor.nudge)
        except Gone:
            LOG.event(Hangup(self._client, self._now() - self._began, _BEFORE))
            return False
        case.passes(Trial.GREET, time.time())
        if question is not None and case.dropped is None:
            await self._judge(question)
        return True

    async def _listen(self, question: Question | None) -> None:
        """Wait, until all is known or the time is over. Raises Gone."""
        case = self._case
        deadline = self._began + self._front.params.postscreen_greet_wait
        while case.dropped is None and (left := deadline - self._now()) > 0:
            if question is None or question.complete:
                if question is not None and self._vouched(question):
                    return
                if not case.needs(Trial.GREET) and (question is not None or case.failed):
                    return
            reading = case.needs(Trial.GREET)
            if not await self._visitor.wait(left, reading=reading):
                continue
            if not reading:
                raise Gone
            if data := self._visitor.peek():
                after = self._now() - self._began
                LOG.event(Pregreet(self._client, len(data), after, shown(data)))
                case.fail(Trial.GREET)

    def _vouched(self, question: Question) -> bool:
        """Whether allow lists know the client so well that nothing else counts."""
        threshold = self._prepared.params.postscreen_dnsbl_allowlist_threshold
        return threshold < 0 and question.score.value <= threshold and not self._case.failed

    async def _judge(self, question: Question) -> None:
        """The test of DNS lists, by what they have said until now."""
        params, case, score = self._prepared.params, self._case, question.score
        if score.value >= params.postscreen_dnsbl_threshold:
            LOG.event(DnsblRank(self._client, score.value))
            name = await self._prepared.list_name(score.heaviest)
            text = f"Service unavailable; client [{self._ends.client_address}] blocked using {name}"
            case.fail(Trial.DNSBL, ("5.7.1", text))
            return
        least, most = params.postscreen_dnsbl_min_ttl, params.postscreen_dnsbl_max_ttl
        known = score.ttl if question.complete else 0
        seconds = most if known < 0 else max(least, min(known, most))
        case.passes(Trial.DNSBL, time.time(), seconds)
        if self._vouched(question):
            case.vouched_for(time.time(), seconds)

    # our own SMTP

    async def _converse(self) -> None:
        """Talk to the client until it or we have enough."""
        case = self._case
        case.begin_late()
        engine = Engine(self._prepared, case, self._ends, self._client, await self._discarded())
        self._began = self._now()
        try:
            if not case.has_failed(Trial.GREET):  # who talks first needs no greeting
                self._visitor.send(engine.greeting())
            while not engine.over:
                await self._exchange(engine)
        except Gone:
            LOG.event(Hangup(self._client, self._now() - self._began, _AFTER))
        if engine.reached:
            case.end_late(time.time())

    async def _exchange(self, engine: Engine) -> None:
        """Until something was answered. Raises Gone, Stopping."""
        deadline = self._now() + self._front.params.postscreen_command_time_limit
        while True:
            left = deadline - self._now()
            if left <= 0:
                self._visitor.send(await engine.late())
                return
            if await self._visitor.wait(left, reading=True):
                replies = await engine.receive(self._visitor.read())
                if replies:
                    self._visitor.send(replies)
                if engine.talk.wants_tls:
                    await self._start_tls(engine)
                elif not replies:
                    continue
                return

    async def _start_tls(self, engine: Engine) -> None:
        """Have tlsproxy(8) shake hands; the conversation goes on through it. Raises Gone."""
        front, visitor = self._front, self._visitor
        timeout = front.params.postscreen_starttls_timeout
        try:
            clear = await front.tlsproxy.begin(visitor.sock, self._client, timeout)
        except (ServiceUnavailable, OSError) as error:
            LOG.warning(str(error))
            visitor.send(await engine.answer_starttls(starting=False))
            return
        try:
            visitor.send(await engine.answer_starttls(starting=True))
        finally:
            visitor.go_on_with(clear)

    async def _discarded(self) -> frozenset[str]:
        """EHLO keywords that the client does not get to see."""
        try:
            found = await self._prepared.discard_maps.find(self._ends.client_address)
        except TableRetry:
            found = None
        if found is None:
            return self._prepared.discard
        return keyword_set(found.replace(",", " ").split())

    # the end

    async def _hand_over(self) -> bool:
        front = self._front
        try:
            with front.handing_over():
                await hand_over(front.params.smtpd_service_name, self._visitor.sock, self._ends)
        except HandoverFailed as error:
            LOG.warning(str(error))
            return await self._say(_NOT_TAKEN)
        return True
