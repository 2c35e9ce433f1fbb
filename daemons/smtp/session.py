"""A session with one server: greeting, EHLO or HELO, transactions, the end."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from daemons.smtp.failure import Failure, LocalTrouble, SiteFailed, refused
from daemons.smtp.pix import NO_ESMTP, PixWorkarounds
from daemons.smtp.recording import blame
from daemons.smtp.settings import Settings
from daemons.smtp.tls_policy import TlsKey
from libmail.agents.delivery import Delivery
from libmail.log import LOG
from libmail.net.secure_wire import SecureWire
from libmail.net.wire import Lost
from libmail.smtp.client import (
    EHLO,
    FINAL_RSET,
    GREETING,
    HELO,
    LHLO,
    QUIT,
    Extensions,
    Phase,
    ServerReply,
)

__all__ = ["CLOSING", "Session", "SessionKey"]

_NO_EXTENSIONS: Final = Extensions()
CLOSING: Final = 221
"""The server hangs up."""


class SessionKey(NamedTuple):
    """What a session is good for: a message that needs anything else does not get it.

    where: the destination, or the address of the server. tls: the TLS policy. smtputf8: servers
    without it were skipped. login: what SASL credentials were looked up by, () for no login.
    """

    where: str
    port: int
    tls: TlsKey
    smtputf8: bool
    login: tuple[str, ...] = ()


class Session:
    """An SMTP session with a server.

    host: its name. address: numeric, or the path of a UNIX socket. name: "host[address]". relay:
    with the port, as logged. hello: its answer to EHLO or HELO. pix: workarounds. secured: by TLS.
    verified: and the server is the one that was asked for. logged_in: by AUTH. uses: transactions.
    born: monotonic time. keys: what it was kept for, first of all a destination; () if it was not.
    """

    __slots__ = ("address", "born", "extensions", "hello", "host", "keys", "logged_in", "name",
                 "pix", "port", "relay", "secured", "uses", "verified", "wire")  # fmt: skip

    def __init__(self, wire: SecureWire, host: str, address: str, port: int) -> None:
        """port: 0 for a UNIX socket."""
        self.wire = wire
        self.host = host
        self.address = address
        self.port = port
        self.name = f"{host}[{address}]"
        self.relay = f"{self.name}:{port}" if port else self.name
        self.extensions = _NO_EXTENSIONS
        self.hello: ServerReply | None = None
        self.pix: frozenset[str] = frozenset()
        self.secured = False
        self.verified = False
        self.logged_in = False
        self.uses = 0
        self.born = time.monotonic()
        self.keys: tuple[SessionKey, ...] = ()

    async def reply(self, phase: Phase, queue_id: str = "") -> ServerReply:
        """The next reply; invalid lines in it are logged. Raises Lost.

        221 is the reply to QUIT; to any other command it means that the server hangs up.
        """
        reply = await self.wire.reply(phase)
        if reply.code == CLOSING:
            raise Lost(phase)
        if reply.garbage or reply.cut:
            self._complain(reply, queue_id)
        return reply

    def _complain(self, reply: ServerReply, queue_id: str) -> None:
        for what in reply.cut:
            LOG.warning(f"{self.relay}: {what}")
        if reply.garbage:
            blame(self.wire, "protocol")
        if reply.garbage and self.extensions.pipelining:
            # Replies may not match commands any more.
            LOG.warning(f"{queue_id}: non-ESMTP response from {self.relay}: {reply.garbage}")
            LOG.warning(
                "to prevent loss of mail, turn off command pipelining for "
                f"{self.address} with the smtp_discard_ehlo_keyword_address_maps parameter"
            )

    def _offered(self, extensions: Extensions) -> None:
        self.extensions = extensions
        if extensions.bad_size:
            LOG.warning(f'bad EHLO SIZE limit "{extensions.bad_size}" from {self.relay}')

    async def greet(
        self,
        settings: Settings,
        extensions: Callable[[ServerReply], Extensions],
        delivery: Delivery,
        workarounds: PixWorkarounds,
        *,
        loop_detect: bool,
    ) -> None:
        """Await the greeting and introduce ourselves. Raises Lost, SiteFailed.

        extensions: finds the keywords in the answer to EHLO. loop_detect: the server may turn out
        to be this system.
        """
        params = settings.params
        greeting = await self.reply(GREETING)
        if not greeting.positive:
            raise SiteFailed(refused(self, greeting, soften=params.smtp_skip_5xx_greeting))
        if workarounds.suspects(greeting):
            self.pix = await workarounds.of(delivery, self.address, self.relay)
        words = greeting.text[4:].split()
        if loop_detect and words and words[0].lower() == params.myhostname.lower():
            LOG.warning(f"host {self.relay} greeted me with my own hostname {params.myhostname}")
        if settings.lmtp:
            reply = await self._hello("LHLO", LHLO, params.smtp_helo_name)
            if not reply.positive:
                raise SiteFailed(refused(self, reply))
            self._offered(extensions(reply))
            return
        announced = any(word.upper() == "ESMTP" for word in words)
        always = params.smtp_always_send_ehlo and NO_ESMTP not in self.pix
        wanted = (announced or always) and not params.smtp_never_send_ehlo
        reply = await self._introduce(params.smtp_helo_name, extensions, esmtp=wanted)
        if loop_detect:
            self._detect_loop(reply, params.myhostname, delivery.request.nexthop)

    async def greet_again(
        self, settings: Settings, extensions: Callable[[ServerReply], Extensions]
    ) -> None:
        """Repeat EHLO within TLS: replies before it may come from an attacker (RFC 3207 §4.2).

        Raises Lost, SiteFailed.
        """
        self.extensions = _NO_EXTENSIONS
        verb, phase = ("LHLO", LHLO) if settings.lmtp else ("EHLO", EHLO)
        reply = await self._hello(verb, phase, settings.params.smtp_helo_name)
        if not reply.positive:
            raise SiteFailed(refused(self, reply))
        self._offered(extensions(reply))

    async def _introduce(
        self, name: str, extensions: Callable[[ServerReply], Extensions], *, esmtp: bool
    ) -> ServerReply:
        if esmtp:
            reply = await self._hello("EHLO", EHLO, name)
            if reply.positive:
                self._offered(extensions(reply))
                return reply
            if reply.code == 421:
                raise SiteFailed(refused(self, reply))
        reply = await self._hello("HELO", HELO, name)
        if not reply.positive:
            raise SiteFailed(refused(self, reply))
        return reply

    async def _hello(self, verb: str, phase: Phase, name: str) -> ServerReply:
        self.wire.send(f"{verb} {name}\r\n".encode())
        self.hello = await self.reply(phase)
        return self.hello

    @property
    def hello_name(self) -> str:
        """The name by which the server introduces itself; "" if it has not."""
        words = self.hello.lines[0][4:].split() if self.hello is not None else []
        return words[0] if words else ""

    def _detect_loop(self, reply: ServerReply, myhostname: str, nexthop: str) -> None:
        words = reply.lines[0][4:].split()
        if words and words[0].lower() == myhostname.lower():
            own = f"replied to HELO/EHLO with my own hostname {myhostname}"
            LOG.warning(f"host {self.relay} {own}")
            raise SiteFailed(
                Failure("5.4.6", f"mail for {nexthop} loops back to myself", site=True)
            )

    async def reset(self, after: bytes = b"") -> bool:
        """Abort the transaction with RSET. Returns whether the server accepted that.

        after: a command to send together with RSET.
        """
        self.wire.send(b"RSET\r\n" + after)
        try:
            return (await self.wire.reply(FINAL_RSET)).positive
        except (Lost, LocalTrouble):
            return False

    async def await_goodbye(self) -> None:
        """Wait for the reply to QUIT, which has been sent."""
        try:
            await self.wire.reply(QUIT)
        except (Lost, LocalTrouble):
            pass  # the outcomes are known already

    async def quit(self, *, skip_response: bool) -> None:
        """Send QUIT and close. skip_response: do not wait for the reply."""
        self.wire.send(b"QUIT\r\n")
        if not skip_response:
            await self.await_goodbye()
        self.wire.close()

    def leave(self) -> None:
        """Send QUIT and close, whatever the server says to that."""
        self.wire.send(b"QUIT\r\n")
        self.wire.close()
