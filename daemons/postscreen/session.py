"""One client of postscreen(8), from its connection until it is turned away or handed over."""

import time
from typing import TYPE_CHECKING, Final

from daemons.postscreen.access import Access
from daemons.postscreen.client_socket import ClientSocket, Gone, Stopping
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
from daemons.postscreen.scores import PendingScore
from daemons.postscreen.screen_tests import Action, ScreenTest
from daemons.postscreen.screening import Screening
from daemons.postscreen.upstream import behind_proxy
from libmail.clients.tlsproxy import read_session
from libmail.ipc.codec import WireError
from libmail.ipc.messages import TlsSession
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
    """The session of one client."""

    __slots__ = (
        "_began",
        "_client",
        "_ends",
        "_front",
        "_prepared",
        "_said",
        "_screening",
        "_socket",
        "_tls",
    )

    def __init__(self, front: "Front", client: ClientSocket, ends: Ends) -> None:
        """front: what sessions share. ends: of the socket."""
        self._front = front
        self._prepared = front.prepared
        self._socket = client
        self._ends = ends
        self._client = ""
        self._began = 0.0  # start of the current stage, by the loop's clock
        self._said: tuple[str, ...] = ()  # to the engine, for smtpd
        self._tls: tuple[TlsSession, ...] = ()  # one, once tlsproxy has shaken hands
        self._screening: Screening

    async def run(self) -> None:
        """Screen the client, and hand it over or turn it away."""
        params = self._prepared.params
        if params.postscreen_upstream_proxy_protocol:
            ends = await behind_proxy(
                self._socket,
                self._ends,
                ipv6=self._prepared.ipv6,
                timeout=params.postscreen_upstream_proxy_timeout,
            )
            if ends is None:
                await self._say(_NOT_TAKEN)
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
        record = await front.cache.lookup(address)
        screening = self._screening = Screening(self._prepared.rules, record, time.time())
        if access is Access.REJECT:
            screening.deny(Action(self._prepared.params.postscreen_denylist_action))
        if screening.dropped is not None:
            return await self._say(screening.dropped)
        if not screening.due and not screening.failed:
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
        """postscreen_allowlist_interfaces: veto clients at others; not if the list fails."""
        try:
            allowed = await self._prepared.interfaces.match("", self._ends.server_address)
        except TableRetry:
            return
        if not allowed:
            LOG.event(Vetoed(self._client, self._prepared.params.respectful_logging))
            self._screening.veto()

    async def _turn_away(self, reason: str, reply: Reply) -> bool:
        LOG.event(TooBusy(self._client, reason))
        return await self._say(reply)

    async def _say(self, reply: Reply) -> bool:
        """Send the last reply to a client that is not handed over."""
        try:
            self._socket.send((await finished(self._prepared, reply, self._ends)).wire())
        except Gone:
            pass
        return False

    # tests

    async def _screened(self) -> bool:
        """Perform the tests. Returns whether the client can be handed over."""
        screening = self._screening
        if screening.early:
            if not await self._wait_for_greeting():
                return False
            if screening.dropped is not None:
                return await self._say(screening.dropped)
        talks = screening.needs_engine
        if talks:
            await self._converse()
        if screening.passed:
            LOG.event(Passed(self._client, screening.record.new))
        outcome = screening.outcome()
        if outcome is not None:
            await self._front.cache.store(self._ends.client_address, outcome)
        return not talks or bool(self._said)

    def _now(self) -> float:
        return self._front.loop.time()

    async def _wait_for_greeting(self) -> bool:
        """Perform the tests before the greeting. False: the client is gone."""
        screening, params = self._screening, self._prepared.params
        self._began = self._now()
        try:
            if screening.needs(ScreenTest.GREET) and params.postscreen_greet_banner:
                self._socket.send(f"220-{params.postscreen_greet_banner}\r\n".encode())
            pending = None
            if screening.needs(ScreenTest.DNSBL):
                pending = self._front.scores.ask(self._ends.client_address, self._socket.interrupt)
            try:
                await self._listen(pending)
            finally:
                if pending is not None:
                    pending.waiting.discard(self._socket.interrupt)
        except Gone:
            LOG.event(Hangup(self._client, self._now() - self._began, _BEFORE))
            return False
        screening.passes(ScreenTest.GREET, time.time())
        if pending is not None and screening.dropped is None:
            await self._judge(pending)
        return True

    async def _listen(self, pending: PendingScore | None) -> None:
        """Wait until all results are known, or postscreen_greet_wait is over. Raises Gone."""
        screening = self._screening
        deadline = self._began + self._front.params.postscreen_greet_wait
        while screening.dropped is None and (left := deadline - self._now()) > 0:
            if pending is None or pending.complete:
                if pending is not None and self._is_allowlisted(pending):
                    return
                if not screening.needs(ScreenTest.GREET) and (
                    pending is not None or screening.failed
                ):
                    return
            reading = screening.needs(ScreenTest.GREET)
            if not await self._socket.wait(left, reading=reading):
                continue
            if not reading:
                raise Gone
            if data := self._socket.peek():
                after = self._now() - self._began
                LOG.event(Pregreet(self._client, len(data), after, shown(data)))
                screening.fail(ScreenTest.GREET)

    def _is_allowlisted(self, pending: PendingScore) -> bool:
        """Whether the DNS score reaches postscreen_dnsbl_allowlist_threshold, so that the client
        passes all tests."""
        threshold = self._prepared.params.postscreen_dnsbl_allowlist_threshold
        return threshold < 0 and pending.score.value <= threshold and not self._screening.failed

    async def _judge(self, pending: PendingScore) -> None:
        """The result of the DNSBL test, by the answers so far."""
        params, screening, score = self._prepared.params, self._screening, pending.score
        if score.value >= params.postscreen_dnsbl_threshold:
            LOG.event(DnsblRank(self._client, score.value))
            name = await self._prepared.list_name(score.heaviest)
            text = f"Service unavailable; client [{self._ends.client_address}] blocked using {name}"
            screening.fail(ScreenTest.DNSBL, ("5.7.1", text))
            return
        least, most = params.postscreen_dnsbl_min_ttl, params.postscreen_dnsbl_max_ttl
        known = score.ttl if pending.complete else 0
        seconds = most if known < 0 else max(least, min(known, most))
        screening.passes(ScreenTest.DNSBL, time.time(), seconds)
        if self._is_allowlisted(pending):
            screening.allowlisted(time.time(), seconds)

    # our own SMTP

    async def _converse(self) -> None:
        """Let the built-in SMTP engine talk to the client, until one of them has enough."""
        screening = self._screening
        screening.begin_deep_tests()
        engine = Engine(
            self._prepared, screening, self._ends, self._client, await self._discarded()
        )
        self._began = self._now()
        try:
            if not screening.has_failed(
                ScreenTest.GREET
            ):  # a client that talks first gets no greeting
                self._socket.send(engine.greeting())
            while not engine.over:
                await self._exchange(engine)
        except Gone:
            LOG.event(Hangup(self._client, self._now() - self._began, _AFTER))
        self._said = engine.said
        if engine.reached:
            screening.end_deep_tests(time.time())

    async def _exchange(self, engine: Engine) -> None:
        """Wait for a command, and send the replies. Raises Gone, Stopping."""
        deadline = self._now() + self._front.params.postscreen_command_time_limit
        while True:
            left = deadline - self._now()
            if left <= 0:
                self._socket.send(await engine.late())
                return
            if await self._socket.wait(left, reading=True):
                if engine.state.secured and not self._tls:
                    self._hear_of_tls()
                    continue
                replies = await engine.receive(self._socket.read())
                if replies:
                    self._socket.send(replies)
                if engine.state.wants_tls:
                    await self._start_tls(engine)
                elif not (replies or engine.over):
                    continue
                return

    async def _start_tls(self, engine: Engine) -> None:
        """Have tlsproxy(8) do the TLS handshake; the session goes on through it. Raises Gone."""
        front, client = self._front, self._socket
        timeout = front.params.postscreen_starttls_timeout
        try:
            clear = await front.tlsproxy.begin(client.sock, self._client, timeout)
        except (ServiceUnavailable, OSError) as error:
            LOG.warning(str(error))
            client.send(await engine.answer_starttls(starting=False))
            return
        try:
            client.send(await engine.answer_starttls(starting=True))
        finally:
            client.replace(clear)

    def _hear_of_tls(self) -> None:
        """What tlsproxy(8) says of the session, before the client says something. Raises Gone."""
        try:
            session, octets = read_session(self._socket.peek())
        except WireError as error:
            LOG.warning(f"tlsproxy: {error}")
            raise Gone from None
        self._socket.read(octets)
        self._tls = (session,)

    async def _discarded(self) -> frozenset[str]:
        """EHLO keywords to hide from the client."""
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
                service = front.params.smtpd_service_name
                sock = self._socket.sock
                await hand_over(service, sock, self._ends, self._said, self._tls)
        except HandoverFailed as error:
            LOG.warning(str(error))
            return await self._say(_NOT_TAKEN)
        return True
