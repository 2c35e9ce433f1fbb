"""A delivery without a mail system around it, and a server that follows a script."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemons.smtp.logins import open_logins
from daemons.smtp.outgoing import Outgoing
from daemons.smtp.pix import PixWorkarounds
from daemons.smtp.recording import Notices
from daemons.smtp.replyfilter import ReplyFilter
from daemons.smtp.requiretls import open_requiretls
from daemons.smtp.settings import Flags, Settings, SmtpParams, source_addresses
from daemons.smtp.shared import Decisions, SmtpClient, discard_title
from daemons.smtp.tls_policy import open_policies
from daemons.smtp.tls_setup import open_engine
from daemons.smtp.tlsrpt import open_reporter
from daemons.smtp.walk import Walk
from libmail.agents.delivery import Delivery, DeliveryServices, Outcome
from libmail.clients.notice import NoticeParams, Postmaster
from libmail.config import open_config
from libmail.ipc.messages import (
    BounceReply,
    DeliverRequest,
    Envelope,
    Nexthop,
    Recipient,
    Transport,
    VerifyReply,
)
from libmail.lookup.context import LiveLookups, Lookups
from libmail.lookup.routing_params import RewriteParams
from libmail.lookup.servers import ServerChoice
from libmail.lookup.tlsa import DaneParams
from libmail.lookup.watched import WatchedPeers
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFile, QueueFileWriter
from libmail.smtp.client import PHASES
from libmail.tables.maps import Maps
from libmail.tables.match import StringList
from libmail.tables.table import TableOptions
from tests.unit.dns_records import PlayedDns
from tests.unit.libmail.clients.fakes import FakeCleanup
from tests.unit.services import PlayedService
from tests.unit.waiting import until

HEADER = b"Subject: test\r\nFrom: a@example.org\r\n"
BODY = b"\r\nhello\r\n"
CLOSE = "!close"
HANG = "!hang"
EHLO = "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 10240000\r\n250 DSN"
PLAIN_EHLO = "250 sink.test"
USUAL = {
    "CONNECT": "220 sink.test ESMTP",
    "EHLO": EHLO,
    "LHLO": EHLO,
    "HELO": "250 sink.test",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 go on",
    ".": "250 2.0.0 Ok: queued as 1",
    "RSET": "250 2.0.0 Ok",
    "QUIT": "221 2.0.0 Bye",
}


REWRITE = RewriteParams(
    myorigin="in.test",
    mydomain="in.test",
    remote_header_rewrite_domain="",
    append_at_myorigin=True,
    append_dot_mydomain=False,
    swap_bangpath=True,
    allow_percent_hack=True,
)


@dataclass
class Server:
    """script: reply by verb, or by the whole command line; CLOSE and HANG are actions.

    wrapped: by TLS, from the first octet.
    """

    script: Mapping[str, str] = field(default_factory=dict)
    lmtp: bool = False
    greeting_only: bool = False
    together: int = 0  # sessions that must be there before any gets the reply to DATA
    sessions: list[list[str]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    open_now: int = 0
    open_most: int = 0
    port: int = 0
    wrapped: ssl.SSLContext | None = None

    def reply(self, line: str) -> str:
        verb = (line.split() or [""])[0].upper()
        return self.script.get(line, self.script.get(verb, USUAL.get(verb, "502 5.5.2 what")))

    async def _say(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str
    ) -> bool:
        reply = self.reply(line)
        if reply == CLOSE:
            return False
        if reply == HANG:
            await reader.read()  # until the client gives up
            return False
        writer.write(reply.encode() + b"\r\n")
        return True

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines: list[str] = []
        self.sessions.append(lines)
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            await self._talk(reader, writer, lines)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_now -= 1
            writer.close()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lines: list[str]
    ) -> None:
        if not await self._say(reader, writer, "CONNECT") or self.greeting_only:
            return
        accepted = 0
        while data := await reader.readline():
            line = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
            lines.append(line)
            verb = (line.split() or [""])[0].upper()
            if verb == "DATA":
                await until(lambda: self.open_most >= self.together)
            if not await self._say(reader, writer, line):
                return
            if verb == "MAIL":
                accepted = 0
            elif verb == "RCPT" and self.reply(line).startswith("2"):
                accepted += 1
            elif verb == "DATA" and self.reply(line).startswith("3"):
                await self._content(reader, lines)
                for _ in range(accepted if self.lmtp else 1):
                    if not await self._say(reader, writer, "."):
                        return
            elif verb == "QUIT":
                return

    async def _content(self, reader: asyncio.StreamReader, lines: list[str]) -> None:
        content = []
        while (line := await reader.readline()) != b".\r\n":
            if not line:
                raise ConnectionResetError
            content.append(line)
        self.contents.append(b"".join(content))
        lines.append(".")

    async def all_sessions_end(self) -> None:
        """For what the client has sent last, such as QUIT."""
        await until(lambda: self.open_now == 0)

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(
            self.session,
            "127.0.0.1",
            self.port,
            limit=1 << 20,
            backlog=500,
            ssl=self.wrapped,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


class RecordedDelivery(Delivery):
    """Remembers the outcome of each recipient."""

    def __init__(
        self, request: DeliverRequest, file: QueueFile, services: DeliveryServices, received: float
    ) -> None:
        super().__init__(request, file, services, received)
        self.outcomes: dict[str, Outcome] = {}

    async def finish(self, recipient: Recipient, outcome: Outcome) -> None:
        assert recipient.address not in self.outcomes, "two outcomes for a recipient"
        self.outcomes[recipient.address] = outcome
        await super().finish(recipient, outcome)


class Bench:
    """Makes deliveries in a queue directory, which is the working directory."""

    def __init__(
        self,
        folder: Path,
        *,
        lmtp: bool = False,
        flags: Flags | None = None,
        own: frozenset[str] = frozenset(),
        limit: float | None = None,
        dns: PlayedDns | None = None,
        lookups: Lookups | None = None,
        **values: str,
    ) -> None:
        """lookups: in place of the tables and of dns."""
        os.chdir(folder)
        Path("active").mkdir(exist_ok=True)
        pairs = {"myhostname": "mail.test", "inet_protocols": "ipv4", **values}
        (folder / "main.cf").write_text("".join(f"{n} = {v}\n" for n, v in pairs.items()))
        config = open_config(str(folder))
        params = config.load(SmtpParams, ("smtp_", "lmtp_") if lmtp else None)
        limits = {phase: limit or float(getattr(params, phase.timeout)) for phase in PHASES}
        self.notices = FakeCleanup()
        self.settings = Settings(lmtp, params, flags or Flags(), limits, source_addresses(params))
        prefix = "lmtp" if lmtp else "smtp"
        tls = open_policies(config, prefix)
        tables = {
            **tls.tables,
            discard_title(lmtp=lmtp): params.smtp_discard_ehlo_keyword_address_maps,
        }
        maps = {title: Maps(title, specs) for title, specs in tables.items()}
        decisions = Decisions(
            lookups=lookups or LiveLookups({}, maps=maps, resolver=dns),  # type: ignore[arg-type]
            choice=ServerChoice(params, "ipv4", own),
            default_port=25,
            cache_destinations=StringList("cached", params.smtp_connection_cache_destinations),
            tls=tls,
            dane=config.load(DaneParams, ("smtp_", "lmtp_") if lmtp else None),
            pix=PixWorkarounds(params, Maps("pix", params.smtp_pix_workaround_maps)),
            reply_filter=ReplyFilter(Maps("smtp_reply_filter", params.smtp_reply_filter)),
            watched=WatchedPeers(config),
            logins=open_logins(config, prefix, TableOptions.of(config)),
            requiretls=open_requiretls(params, prefix, TableOptions.of(config)),
        )
        notices = Notices(Postmaster(config.load(NoticeParams), self.notices), lmtp=lmtp)
        self.reporter = open_reporter(config, prefix, decisions.lookups) if tls.ever else None
        self.client = SmtpClient(
            self.settings,
            decisions,
            notices,
            open_engine(config, prefix) if tls.ever else None,
            self.reporter,
        )
        self.records = PlayedService(lambda _: BounceReply(0, ""))
        self.services = DeliveryServices(
            bounce=self.records,
            defer=self.records,
            trace=self.records,
            verify=PlayedService(lambda _: VerifyReply(0, "")),
        )

    def delivery(
        self,
        nexthop: str,
        recipients: tuple[str, ...] | tuple[Recipient, ...] = ("b@example.org",),
        *,
        header: bytes = HEADER,
        body: bytes = BODY,
        content_flags: int = 0,
        sender: str = "a@example.org",
        envelope: Envelope | None = None,
        waited: float = 0.0,
        **values: Any,
    ) -> Delivery:
        """envelope: in the file, with what the request does not say. waited: seconds since it came.

        values: of the request.
        """
        now = time.time()
        listed = tuple(r if isinstance(r, Recipient) else Recipient(r, r) for r in recipients)
        writer = QueueFileWriter(QueueDirectory(), "active", long_ids=True)
        writer.write_header(header)
        writer.write_body(body)
        envelope = envelope or Envelope(sender, arrival=now - waited)
        writer.complete(envelope, listed, ContentFlag(content_flags))
        writer.close()
        file = QueueFile(writer.path, writable=True)
        request = DeliverRequest(
            flags=0,
            queue_id=writer.queue_id,
            transport=Transport("smtp"),
            nexthop=Nexthop(nexthop),
            sender=sender,
            envelope_flags=0,
            dsn_envid="",
            size=file.preamble.size,
            queued=now,
            recipients=tuple(file.recipients()),
        )._replace(**values)
        return RecordedDelivery(request, file, self.services, now)

    async def run(self, delivery: Delivery) -> dict[str, Outcome]:
        assert isinstance(delivery, RecordedDelivery)
        outgoing = Outgoing(delivery, self.settings, {}, None)
        if self.reporter is not None:
            self.reporter.begin(asyncio.create_task)
        try:
            await Walk(self.client, delivery, outgoing).run()
        finally:
            delivery.file.close()
        if self.reporter is not None:
            await self.reporter.drain()
        assert not delivery.unfinished
        return delivery.outcomes
