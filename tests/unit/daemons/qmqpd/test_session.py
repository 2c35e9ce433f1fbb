"""A session of qmqpd: what clients are told, what is logged, what cleanup gets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest

from daemons.qmqpd.prepared import Prepared, QmqpdParams
from daemons.qmqpd.session import Server, Session
from daemons.qmqpd.storeroom import Storeroom
from libmail.dns.answers import NotFound
from libmail.ipc.messages import (
    CleanupAmend,
    CleanupResult,
    CleanupStatus,
    Envelope,
    QueueId,
    Recipient,
)
from libmail.log import LOG
from libmail.lookup.facts import Client
from libmail.net.channel import ClientGone, ClientSilent
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.qmqp import packet
from libmail.tables.match import AddressList
from libmail.tables.table import TableOptions

QID = QueueId("QID")
CONTENT = b"Subject: x\n\nhi\n"
PARAMS = QmqpdParams(
    cleanup_service_name="cleanup",
    content_filter="",
    inet_protocols=("all",),
    ipc_idle=5.0,
    ipc_timeout=5.0,
    ipc_ttl=5.0,
    line_length_limit=2048,
    mail_name="Postfix",
    message_size_limit=1000,
    myhostname="mail.test",
    parent_domain_matches_subdomains=(),
    qmqpd_authorized_clients=("192.0.2.1",),
    qmqpd_client_port_logging=False,
    qmqpd_error_delay=0.0,
    qmqpd_timeout=5.0,
    receive_override_options=(),
    smtputf8_autodetect_classes=(),
    verp_delimiter_filter="-=+",
)


class Nameless:
    """A resolver that knows nobody."""

    async def name(self, address: str) -> str:
        raise NotFound(address, "PTR", "no name")


@dataclass
class FakeChannel:
    """A client that says this, and then is gone, or silent."""

    pieces: list[bytes]
    end: type[Exception] = ClientGone
    said: bytes = b""
    closed: bool = False

    def write(self, data: bytes) -> None:
        self.said += data

    async def read(self, *, idle: bool) -> bytes:
        assert idle
        if not self.pieces:
            raise self.end
        return self.pieces.pop(0)

    async def give_way(self) -> None:
        await asyncio.sleep(0)

    def has_sent(self) -> bool:
        return bool(self.pieces)

    def discard_input(self) -> None:
        self.pieces.clear()

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeCleanup:
    """Takes one message. result: what it says of it."""

    result: CleanupResult | None = None
    there: bool = True
    sent: Envelope | None = None
    recipients: list[Recipient] = field(default_factory=list)
    content: bytes = b""
    aborted: bool = False
    queue_id: QueueId = QID

    async def open(self, flags: int) -> FakeCleanup:
        if not self.there:
            raise ServiceUnavailable("public/cleanup: Connection refused")
        return self

    def envelope(self, envelope: Envelope, recipients: Iterable[Recipient]) -> None:
        self.sent = envelope
        self.recipients = list(recipients)

    def milters(self, states: Sequence[object]) -> None:
        raise AssertionError(states)

    def amend(self, amendment: CleanupAmend) -> None:
        raise AssertionError(amendment)

    async def write(self, data: bytes) -> None:
        self.content += data

    async def finish(self) -> CleanupResult:
        return self.result or CleanupResult(0, "", "", self.queue_id)

    def abort(self) -> None:
        self.aborted = True


@dataclass
class Play:
    """What came of a session."""

    said: bytes
    log: list[str]
    cleanup: FakeCleanup


def play(
    data: bytes,
    *,
    address: str = "192.0.2.1",
    cleanup: FakeCleanup | None = None,
    end: type[Exception] = ClientGone,
    piece: int = 1000,
) -> Play:
    log: list[str] = []
    LOG.open(lambda severity, head, text: log.append(text), "postfix/qmqpd")
    cleanup = cleanup or FakeCleanup()
    channel = FakeChannel([data[at : at + piece] for at in range(0, len(data), piece)], end)

    async def run() -> None:
        clients = AddressList("qmqpd_authorized_clients", "192.0.2.1", TableOptions(), parent=False)
        prepared = Prepared(PARAMS, clients, Nameless(), 2)  # type: ignore[arg-type]
        await Session(Server(prepared, cleanup), channel, Client(address, "1234")).run()

    asyncio.run(run())
    assert channel.closed
    shown = f"unknown[{address}]"
    assert log[0] == f"connect from {shown}"
    assert log[-1] == f"disconnect from {shown}"
    return Play(channel.said, log[1:-1], cleanup)


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_a_message(piece: int) -> None:
    found = play(packet(CONTENT, b"s@x.test", [b"r@y.test"]), piece=piece)
    assert found.said == b"18:KOk: queued as QID,"
    assert found.log == ["QID: client=unknown[192.0.2.1]"]
    envelope = found.cleanup.sent
    assert envelope is not None
    assert (envelope.sender, envelope.protocol_name) == ("s@x.test", "QMQP")
    assert (envelope.client_address, envelope.client_port) == ("192.0.2.1", "1234")
    assert [one.address for one in found.cleanup.recipients] == ["r@y.test"]
    head, _, rest = found.cleanup.content.partition(b"; ")
    assert head == (
        b"Received: from unknown (unknown [192.0.2.1])\r\n"
        b"\tby mail.test (Postfix) with QMQP id QID\r\n\tfor <r@y.test>"
    )
    assert rest.endswith(b"\r\nSubject: x\r\n\r\nhi\r\n")


def test_several_recipients_are_not_told_of_each_other() -> None:
    found = play(packet(CONTENT, b"", [b"r@y.test", b"q@y.test"]))
    assert b"\tby mail.test (Postfix) with QMQP\r\n\tid QID; " in found.cleanup.content
    assert b"y.test" not in found.cleanup.content


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b""),
        (
            b"From a\n>>From c\nA: b\n",
            b"X-Mailbox-Line: From a\r\nX-Mailbox-Line: >>From c\r\nA: b\r\n",
        ),
        (b" lead\n", b"\r\n lead\r\n"),
        (b"A: b\n\n.\nlast", b"A: b\r\n\r\n.\r\nlast\r\n"),
        (b"A: b\r\n", b"A: b\r\r\n"),  # cleanup(8) sees to it
    ],
)
def test_content_in_wire_form(content: bytes, wire: bytes) -> None:
    found = play(packet(content, b"", [b"r@y.test"]))
    rest = found.cleanup.content.partition(b"; ")[2]
    assert rest.partition(b"\r\n")[2] == wire


def test_verp() -> None:
    found = play(packet(CONTENT, b"owner-@x.test-@[]", [b"r@y.test"]))
    assert found.cleanup.sent is not None
    assert (found.cleanup.sent.sender, found.cleanup.sent.verp_delims) == ("owner@x.test", "-=")
    found = play(packet(CONTENT, b"owner@x.test-@[]", [b"r@y.test"]))
    text = 'Error: Invalid VERP delimiters: "r=". Need two characters from "-=+"'
    assert found.said == b"%d:D%s," % (len(text) + 1, text.encode())
    assert found.log[1:] == [f"warning: QID: unknown[192.0.2.1]: {text}"]
    found = play(packet(CONTENT, b"owner-@[]", [b"r@y.test"]))
    assert found.cleanup.sent is not None
    assert found.cleanup.sent.sender == "owner-@[]"


@pytest.mark.parametrize("address", [b"a\0b@y.test"])
def test_no_address_for_a_queue_file(address: bytes) -> None:
    for sender, recipient in ((address, b"r@y.test"), (b"s@x.test", address)):
        found = play(packet(CONTENT, sender, [recipient]))
        assert found.said == b"39:DError: control character in an address,"
        assert found.cleanup.sent is None


def test_white_space_in_an_address_stays_in_its_line() -> None:
    found = play(packet(CONTENT, b"s\nx@y.test", [b"r\nx@y.test"]))
    assert found.cleanup.sent is not None
    assert found.cleanup.sent.sender == "s x@y.test"
    assert found.cleanup.recipients[0].address == "r x@y.test"


def test_who_may_not_is_told_so() -> None:
    found = play(packet(CONTENT, b"", [b"r@y.test"]), address="192.0.2.9")
    text = b"Error: unknown[192.0.2.9] is not authorized to use this service"
    assert found.said == b"%d:D%s," % (len(text) + 1, text)
    assert found.log == []


def test_what_is_not_complete_is_dropped() -> None:
    data = packet(CONTENT, b"s@x.test", [b"r@y.test"])
    for end, reason in ((ClientGone, "lost connection"), (ClientSilent, "read/write timeout")):
        found = play(data[:-1], end=end)
        assert found.said == b""
        assert found.log[1:] == [
            f"QID: unknown[192.0.2.1]: {reason} while receiving recipient address"
        ]
        assert found.cleanup.aborted
        assert found.cleanup.sent is None


def test_a_packet_that_is_none() -> None:
    found = play(b"9:1001:")
    text = "netstring length exceeds storage limit while receiving message content"
    assert found.said == b"71:D%s," % text.encode()
    assert found.log[1:] == [f"QID: unknown[192.0.2.1]: {text}"]
    assert found.cleanup.aborted


@pytest.mark.parametrize(
    ("status", "dsn", "reason", "said"),
    [
        (CleanupStatus.CONTENT, "5.7.1", "no", "DError: 5.7.1 no"),
        (CleanupStatus.CONTENT, "", "", "DError: 5.7.1 message content rejected"),
        (CleanupStatus.DEFER, "4.7.1", "later", "ZError: 4.7.1 later"),
        (CleanupStatus.WRITE, "", "", "ZError: queue file write error"),
        (CleanupStatus.SPACE, "", "", "ZError: queue file write error"),
        (CleanupStatus.RECIPIENTS, "", "", "DError: no recipients specified"),
        (CleanupStatus.SIZE, "", "", "DError: message too large"),
        (CleanupStatus.HOPS, "", "", "DError: too many hops"),
        (CleanupStatus.HOPS | CleanupStatus.WRITE, "", "", "ZError: queue file write error"),
        (CleanupStatus(1 << 20), "", "", "ZError: internal error 1048576"),
    ],
)
def test_what_cleanup_says(status: CleanupStatus, dsn: str, reason: str, said: str) -> None:
    cleanup = FakeCleanup(CleanupResult(int(status), dsn, reason, QID))
    found = play(packet(CONTENT, b"", [b"r@y.test"]), cleanup=cleanup)
    assert found.said == b"%d:%s," % (len(said), said.encode())
    assert found.log[1:] == [f"warning: QID: unknown[192.0.2.1]: {said[1:]}"]


def test_without_cleanup_the_client_comes_again() -> None:
    found = play(packet(CONTENT, b"", [b"r@y.test"]), cleanup=FakeCleanup(there=False))
    assert found.said == b"30:ZError: queue file write error,"


def test_messages_wait_for_room() -> None:
    async def run() -> list[str]:
        storeroom, order = Storeroom(10), list[str]()

        async def keep(name: str, octets: int) -> None:
            async with storeroom.room(octets):
                order.append(f"{name} in")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                order.append(f"{name} out")

        await asyncio.gather(keep("a", 6), keep("b", 99), keep("c", 1))
        return order

    assert asyncio.run(run()) == ["a in", "a out", "b in", "b out", "c in", "c out"]
