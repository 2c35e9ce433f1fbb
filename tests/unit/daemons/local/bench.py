"""local(8) without a mail system: a queue file, temporary places, and services that answer."""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import cast

from daemons.local.clients import Clients
from daemons.local.params import AliasTable, LocalParams, Plan, Settings
from daemons.local.recipient import RecipientDelivery
from daemons.local.user import default_user
from libmail.agents.delivery import Delivery, DeliveryParams, DeliveryServices, Outcome
from libmail.agents.status_filter import StatusFilter
from libmail.clients.cleanup import CleanupClient
from libmail.clients.rewrite import RewriteClient
from libmail.config import open_config
from libmail.ipc.messages import (
    CleanupResult,
    DeliverRequest,
    Envelope,
    Nexthop,
    QueueId,
    Recipient,
    ResolveFlag,
    ResolveReply,
    Transport,
)
from libmail.mailbox.maildir import MaildirWriter
from libmail.mailbox.mbox import MboxLocking
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFile, QueueFileWriter
from libmail.service.pool import ServiceUnavailable
from libmail.service.workers import Workers
from libmail.tables.maps import Maps

ME = pwd.getpwuid(os.geteuid()).pw_name
HEADER = b"Subject: test\r\n\r\n"
BODY = b"hello\r\nFrom here\r\n"


@dataclass
class FakeRewrite:
    """Everything at here.test is local; far.test is remote; down.test cannot be known."""

    broken: bool = False

    async def rewrite(self, context: str, address: str) -> str:
        if self.broken:
            raise ServiceUnavailable("private/rewrite: gone")
        return address.replace('"', "") if "@" in address else f"{address}@here.test"

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        domain = address.rpartition("@")[2]
        flag = {"down.test": ResolveFlag.FAIL, "bad.test": ResolveFlag.ERROR}.get(domain, 0)
        transport = "local" if domain == "here.test" else "smtp"
        return ResolveReply(int(flag), Transport(transport), Nexthop(domain), address)

    async def prefetch(self, sender: str, addresses: Iterable[str]) -> None:
        """Knows no more than before."""


@dataclass
class FakeSubmission:
    """Keeps what it is given."""

    queue_id: QueueId
    status: int = 0
    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    content: bytes = b""

    def envelope(self, envelope: Envelope, recipients: Sequence[Recipient]) -> None:
        self.sender = envelope.sender
        self.recipients += [recipient.address for recipient in recipients]

    async def write(self, data: bytes) -> None:
        self.content += data

    async def finish(self) -> CleanupResult:
        return CleanupResult(self.status, "", "", self.queue_id)

    def abort(self) -> None:
        self.status = -1


@dataclass
class FakeCleanup:
    """status: what cleanup says in the end."""

    status: int = 0
    submissions: list[FakeSubmission] = field(default_factory=list)

    async def open(self, flags: int) -> FakeSubmission:
        number = len(self.submissions) + 1
        self.submissions.append(FakeSubmission(QueueId(f"NEW{number}"), self.status))
        return self.submissions[-1]


class RecordingDelivery(Delivery):
    """Keeps the outcomes instead of telling services."""

    def __init__(
        self, request: DeliverRequest, file: QueueFile, services: DeliveryServices
    ) -> None:
        super().__init__(request, file, services, time.time())
        self.outcomes: list[tuple[str, Outcome]] = []
        self.returned_to: list[str | None] = []
        self.done: list[str] = []

    async def report(
        self, recipient: Recipient, outcome: Outcome, *, return_to: str | None = None
    ) -> bool:
        self.outcomes.append((recipient.address, outcome))
        self.returned_to.append(return_to)
        return type(outcome).__name__ != "Deferred"

    def close(self, recipient: Recipient, *, final: bool) -> None:
        if final:
            self.done.append(recipient.address)

    @property
    def said(self) -> list[str]:
        """Address, DSN and reason of all outcomes."""
        return [f"{address} {one.dsn} {one.reason}" for address, one in self.outcomes]


class Bench:
    """Delivers one message at a time."""

    def __init__(
        self, top: Path, aliases: Mapping[str, str] | None = None, **values: object
    ) -> None:
        self.top = top
        (top / "mail").mkdir()
        (top / "queue/active").mkdir(parents=True)
        self.rewrite = FakeRewrite()
        self.cleanup = FakeCleanup()
        (top / "etc").mkdir()
        (top / "etc/main.cf").write_text("compatibility_level = 3.6\nmyhostname = here.test\n")
        config = open_config(str(top / "etc"))
        params = config.load(LocalParams)
        known = {one.name for one in fields(LocalParams)}
        assert known.issuperset(values)
        values = {
            "mail_spool_directory": f"{top}/mail",
            "mailbox_delivery_lock": ("fcntl",),
            "forward_path": f"{top}/forward",
            "biff": False,
            **values,
        }
        params = replace(params, **values)  # type: ignore[arg-type]
        entries = "".join(f"{{{name} = {value}}} " for name, value in (aliases or {}).items())
        self.settings = Settings(
            params=params,
            delivery=config.load(DeliveryParams),
            status_filter=StatusFilter(Maps("local_delivery_status_filter", ())),
            aliases=(AliasTable(Maps("alias_maps", (f"inline:{{ {entries}}}",)), 0),)
            if aliases
            else (),
            mailbox_transports=Maps("mailbox_transport_maps", params.mailbox_transport_maps),
            mailbox_commands=Maps("mailbox_command_maps", params.mailbox_command_maps),
            fallback_transports=Maps("fallback_transport_maps", params.fallback_transport_maps),
            plan=Plan.of(params),
            locking=MboxLocking(params.mailbox_delivery_lock, 2, 0.01),
            maildirs=MaildirWriter(params.myhostname, size_limit=params.mailbox_size_limit),
            default=default_user(pwd.getpwuid(os.geteuid())),
            is_root=False,
        )

    def mailbox(self, name: str = ME) -> bytes:
        path = self.top / "mail" / name
        return path.read_bytes() if path.exists() else b""

    def deliver(
        self,
        *addresses: str,
        header: bytes = HEADER,
        loops: frozenset[str] = frozenset(),
        sender: str = "from@far.test",
        flags: int = 0,
    ) -> RecordingDelivery:
        os.chdir(self.top / "queue")
        writer = QueueFileWriter(QueueDirectory(frozenset(), 1), "active", long_ids=False)
        writer.write_header(header)
        writer.write_body(BODY)
        envelope = Envelope(
            sender, arrival=time.time(), client_name="client.test", helo_name="helo.test"
        )
        writer.complete(envelope, [Recipient(a, a) for a in addresses], ContentFlag(0))
        writer.close()
        with QueueFile(writer.path, writable=True) as file:
            request = self._request(writer.queue_id, tuple(file.recipients()), sender, flags)
            services = DeliveryServices.of(self.settings.delivery)
            delivery = RecordingDelivery(request, file, services)
            asyncio.run(self._run(delivery, loops))
        return delivery

    async def _run(self, delivery: Delivery, loops: frozenset[str]) -> None:
        clients = Clients(
            cast(RewriteClient, self.rewrite),
            cast(CleanupClient, self.cleanup),
            Workers(),
        )
        for recipient in delivery.request.recipients:
            await RecipientDelivery(self.settings, clients, delivery, loops).deliver(recipient)

    @staticmethod
    def _request(
        queue_id: QueueId, recipients: tuple[Recipient, ...], sender: str, flags: int
    ) -> DeliverRequest:
        text = dict.fromkeys(DeliverRequest._fields, "")
        numbers = {"envelope_flags": 0, "size": 0, "queued": 0.0}
        request = DeliverRequest(**{**text, **numbers})  # type: ignore[arg-type]
        return request._replace(
            flags=flags,
            queue_id=queue_id,
            transport=Transport("local"),
            nexthop=Nexthop("here.test"),
            sender=sender,
            recipients=recipients,
        )
