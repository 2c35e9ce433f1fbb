"""bounce, defer and trace: what is recorded, whom a report goes to, what stays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from daemons.bounce import Reporter
from daemons.bounce.notify import Job, Notifier, _thread, read_original
from daemons.bounce.params import BounceParams, Prepared
from libmail.clients.cleanup import CleanupClient
from libmail.clients.flush import FlushClientParams, flush_domains
from libmail.dsn.report import Original
from libmail.dsn.templates import builtin_templates
from libmail.ipc.messages import (
    BounceAppend,
    BounceFlush,
    CleanupStatus,
    DsnNotify,
    Envelope,
    EnvelopeFlag,
    QueueId,
    Recipient,
    Target,
)
from libmail.log import LOG
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFile, QueueFileWriter
from libmail.service.pool import ServicePool, ServiceUnavailable

QUEUE = QueueDirectory(frozenset())
PARAMS = BounceParams(
    bounce_notice_recipient="bounces",
    bounce_size_limit=50,
    bounce_template_file="",
    cleanup_service_name="cleanup",
    delay_notice_recipient="delays",
    disable_verp_bounces=False,
    double_bounce_sender="double-bounce",
    enable_threaded_bounces=False,
    hash_queue_depth=1,
    hash_queue_names=(),
    header_from_format="standard",
    internal_mail_filter_classes=(),
    ipc_timeout=60.0,
    mail_name="Postfix",
    maximal_queue_lifetime=432000.0,
    myhostname="mail.test",
    myorigin="mail.test",
    notify_classes=("resource",),
    requiretls_redact_dsn=True,
    smtputf8_enable=True,
)
FLUSH = FlushClientParams(("flushed.test",), "flush", 5.0, (), True)
FAILED = Target("x@y", "x@y", "", 0, 0, "failed", "5.1.1", "no")
NEVER = FAILED._replace(address="never@y", notify=int(DsnNotify.NEVER))
SUCCESS = FAILED._replace(address="good@y", action="relayed", notify=int(DsnNotify.SUCCESS))


class FakeNotifier(Notifier):
    """Remembers what would be sent: (to, kind, addresses told of, whether with the body)."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__(prepared, CleanupClient(ServicePool("public/cleanup")))
        self.sent: list[tuple[str, str, list[str], bool]] = []
        self.begun: list[str] = []
        self.protected: list[bool] = []
        self.status = 0
        self.down = False

    async def to_sender(
        self, job: Job, original: Original, targets: Sequence[Target], recipient: str
    ) -> int:
        return await self.to_postmaster(job, original, targets, recipient)

    async def to_nobody(self, job: Job, original: Original) -> None:
        self.begun.append(job.name)

    async def to_postmaster(
        self, job: Job, original: Original, targets: Sequence[Target], recipient: str
    ) -> int:
        if self.down:
            raise ServiceUnavailable("down")
        body = original.body is not None
        self.protected.append(bool(self._envelope("", original).flags & EnvelopeFlag.REQUIRETLS))
        self.sent.append((recipient, job.name, [t.address for t in targets], body))
        return self.status


async def fsync(fd: int) -> None:
    os.fsync(fd)


class World:
    def __init__(
        self,
        service: str = "bounce",
        *classes: str,
        disable_verp_bounces: bool = False,
        redact: bool = True,
    ) -> None:
        params = replace(
            PARAMS,
            notify_classes=classes,
            disable_verp_bounces=disable_verp_bounces,
            requiretls_redact_dsn=redact,
        )
        prepared = Prepared(params, "doubles", builtin_templates(), {}, FLUSH, flush_domains(FLUSH))
        self.notifier = FakeNotifier(prepared)
        self.reporter = Reporter(prepared, service, self.notifier, fsync)
        self.service = service
        self.logged: list[str] = []
        LOG.open(lambda severity, head, text: self.logged.append(text), "postfix/bounce")

    def append(self, *targets: Target, queue_id: QueueId) -> int:
        return asyncio.run(self.reporter._append(BounceAppend(queue_id, targets))).status

    def flush(self, kind: str, queue_id: QueueId, sender: str = "me@x", flags: int = 0,
              targets: tuple[Target, ...] = (), verp: str = "") -> int:  # fmt: skip
        request = BounceFlush(kind, "active", queue_id, sender, flags, "", verp, targets)
        return asyncio.run(self.reporter._flush(request)).status

    def has_log(self, queue_id: QueueId) -> bool:
        return Path(f"{self.service}/{queue_id}").exists()


@pytest.fixture
def message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QueueId:
    monkeypatch.chdir(tmp_path)
    for name in ("active", "bounce", "defer", "trace"):
        (tmp_path / name).mkdir()
    return make(b"\r\nbody\r\n")


def make(body: bytes, *recipients: str) -> QueueId:
    writer = QueueFileWriter(QUEUE, "active", long_ids=False)
    writer.write_header(b"Subject: x\r\n")
    writer.write_body(body)
    todo = [Recipient(address) for address in recipients or ("x@y",)]
    writer.complete(Envelope("me@x"), todo, ContentFlag(0))
    writer.close()
    return writer.queue_id


def test_failure(message: QueueId) -> None:
    world = World()
    assert world.append(FAILED, NEVER, queue_id=message) == 0
    assert world.flush("bounce", message) == 0
    assert world.notifier.sent == [("me@x", "failure", ["x@y"], True)]
    assert not world.has_log(message)


@pytest.mark.parametrize("redact", [True, False])
def test_failure_of_a_message_that_requires_tls(message: QueueId, *, redact: bool) -> None:
    """Its report may go where there is no REQUIRETLS, but without the body."""
    world = World(redact=redact)
    assert world.append(FAILED, queue_id=message) == 0
    assert world.flush("bounce", message, flags=int(EnvelopeFlag.REQUIRETLS)) == 0
    assert world.notifier.sent == [("me@x", "failure", ["x@y"], not redact)]
    assert world.notifier.protected == [not redact]


def test_verp_sends_one_report_a_recipient(message: QueueId) -> None:
    world = World("bounce", "bounce")
    expanded = FAILED._replace(address="z@y", orig_rcpt="list@y")
    world.append(FAILED, NEVER, expanded, queue_id=message)
    assert world.flush("bounce", message, verp="+=") == 0
    assert world.notifier.sent == [
        ("me+x=y@x", "failure", ["x@y"], True),
        ("bounces", "failure", ["x@y"], False),
        ("bounces", "failure", ["never@y"], False),
        ("me+list=y@x", "failure", ["z@y"], True),
        ("bounces", "failure", ["z@y"], False),
    ]
    assert not world.has_log(message)


def test_verp_bounces_can_be_disabled(message: QueueId) -> None:
    world = World(disable_verp_bounces=True)
    world.append(FAILED, NEVER, queue_id=message)
    assert world.flush("bounce", message, verp="+=") == 0
    assert world.notifier.sent == [("me@x", "failure", ["x@y"], True)]


def test_delays_are_told_to_the_sender_himself(message: QueueId) -> None:
    world = World("defer")
    world.append(FAILED._replace(action="delayed"), queue_id=message)
    assert world.flush("warn", message, verp="+=") == 0
    assert world.notifier.sent == [("me@x", "delay", ["x@y"], False)]


def test_unwanted_reports_are_begun_and_dropped(message: QueueId) -> None:
    world = World()
    world.append(NEVER, queue_id=message)
    assert world.flush("bounce", message) == 0
    assert (world.notifier.begun, world.notifier.sent) == (["failure"], [])
    assert not world.has_log(message)
    late = World("defer")
    late.append(NEVER._replace(action="delayed"), queue_id=message)
    assert late.flush("warn", message) == 0
    assert (late.notifier.begun, late.notifier.sent) == (["delay"], [])


def test_postmaster_is_told_of_all(message: QueueId) -> None:
    world = World("bounce", "bounce")
    world.append(FAILED, NEVER, queue_id=message)
    world.flush("bounce", message)
    both = ["x@y", "never@y"]
    assert world.notifier.sent == [
        ("me@x", "failure", ["x@y"], True), ("bounces", "failure", both, False),
    ]  # fmt: skip
    world.append(NEVER, queue_id=message)
    world.flush("bounce", message)
    assert world.notifier.sent[2:] == [("bounces", "failure", ["never@y"], False)]


@pytest.mark.parametrize(
    ("classes", "want"),
    [
        ((), []),
        *(((name,), [("doubles", "failure", ["x@y"], True)]) for name in ("2bounce", "bounce")),
    ],
)
def test_double_bounce(
    message: QueueId, classes: tuple[str, ...], want: list[tuple[str, str, list[str], bool]]
) -> None:
    world = World("bounce", *classes)
    world.append(FAILED, queue_id=message)
    assert world.flush("bounce", message, sender="") == 0
    assert world.notifier.sent == want
    assert not world.has_log(message)


def test_failure_of_a_postmaster_notice(message: QueueId) -> None:
    world = World("bounce", "bounce", "2bounce")
    world.append(FAILED, queue_id=message)
    assert world.flush("bounce", message, sender="double-bounce@mail.test") == 0
    assert world.notifier.sent == []
    assert world.logged == [f"warning: {message}: undeliverable postmaster notification discarded"]


def test_nothing_is_forgotten_before_it_was_sent(message: QueueId) -> None:
    world = World()
    world.append(FAILED, queue_id=message)
    world.notifier.status = int(CleanupStatus.WRITE)
    assert world.flush("bounce", message) == CleanupStatus.WRITE
    world.notifier.down = True
    assert world.flush("bounce", message) == CleanupStatus.DEFER
    assert world.has_log(message)


def test_delay_keeps_the_log(message: QueueId) -> None:
    world = World("defer", "delay")
    late = FAILED._replace(action="delayed")
    unwanted = late._replace(address="u@y", notify=int(DsnNotify.FAILURE))
    world.append(late, unwanted, queue_id=message)
    assert world.flush("warn", message) == 0
    assert world.notifier.sent == [
        ("me@x", "delay", ["x@y"], False), ("delays", "delay", ["x@y", "u@y"], False),
    ]  # fmt: skip
    assert world.has_log(message)
    assert world.flush("warn", message, sender="") == 0
    assert len(world.notifier.sent) == 2


@pytest.mark.parametrize(
    ("flags", "kind", "addresses"),
    [
        (0, "success", ["good@y"]),
        (int(EnvelopeFlag.VERIFY_ONLY), "verify", ["x@y", "good@y"]),
        (int(EnvelopeFlag.VERBOSE), "verify", ["x@y", "good@y"]),
    ],
)
def test_trace(message: QueueId, flags: int, kind: str, addresses: list[str]) -> None:
    world = World("trace")
    world.append(FAILED, SUCCESS, queue_id=message)
    assert world.flush("trace", message, flags=flags) == 0
    assert world.notifier.sent == [("me@x", kind, addresses, False)]
    assert not world.has_log(message)


def test_one_needs_no_log(message: QueueId) -> None:
    world = World()
    assert world.flush("one", message, sender="owner@x", targets=(FAILED,)) == 0
    assert world.notifier.sent == [("owner@x", "failure", ["x@y"], True)]


@pytest.mark.parametrize(
    ("kind", "sender", "envid"), [("one", "me@x", ""), ("bounce", "owner@x", "id")]
)
def test_report_to_an_owner_names_the_sender(
    message: QueueId, kind: str, sender: str, envid: str
) -> None:
    request = BounceFlush(kind, "active", message, "owner@x", 0, "id", "", (FAILED,))
    original = read_original(request, f"active/{message}", 0, full=True)
    assert (original.sender, original.envid) == (sender, envid)


def test_bad_requests(message: QueueId) -> None:
    world = World()
    bad = QueueId("../x")
    assert world.append(FAILED, queue_id=bad) == CleanupStatus.BAD
    assert world.flush("bounce", bad) == CleanupStatus.BAD
    assert world.flush("bounce", QueueId("ABCDEF"), targets=(FAILED,)) == CleanupStatus.DEFER


@pytest.mark.parametrize(
    ("size", "flags", "limit", "whole"),
    [(8, 0, 50, True), (80, 0, 50, False), (80, 0, 0, True),
     (8, int(EnvelopeFlag.DSN_HEADERS), 50, False)],
)  # fmt: skip
def test_what_is_returned(message: QueueId, size: int, flags: int, limit: int, whole: bool) -> None:
    name = make(b"x" * size)
    request = BounceFlush("bounce", "active", name, "me@x", flags, "id", "", ())
    original = read_original(request, f"active/{name}", limit, full=True)
    assert (original.body is not None) is whole
    assert (original.header, original.envid) == (b"Subject: x\r\n", "id")


def test_a_message_that_does_without_tls(message: QueueId) -> None:
    for flags, wanted in ((EnvelopeFlag.TLS_OPTIONAL, True), (EnvelopeFlag.LOCAL, False)):
        request = BounceFlush("bounce", "active", message, "me@x", int(flags), "id", "", ())
        assert read_original(request, f"active/{message}", 0, full=True).tls_optional is wanted


@pytest.mark.parametrize(
    ("header", "thread"),
    [
        (b"Message-Id: <a@b>\r\n", "<a@b>"),
        (b"X: y\r\nMESSAGE-ID:\r\n  <a@b>\r\n", "<a@b>"),
        (b"Message-Id: none\r\n", ""),
        (b"Message-Id: <a@b> (x)\r\n", ""),
        (b"Subject: x\r\n", ""),
    ],
)
def test_thread(header: bytes, thread: str) -> None:
    original = Original(QueueId("Q"), "me@x", 0.0, "", False, False, header, None)
    assert _thread(original) == thread


@pytest.mark.parametrize(
    ("sender", "word"), [("", "single"), ("Double-Bounce@mail.test", "double")]
)
def test_no_success_report_without_a_sender(message: QueueId, sender: str, word: str) -> None:
    world = World("trace")
    world.append(SUCCESS, queue_id=message)
    assert world.flush("trace", message, sender) == 0
    assert world.notifier.sent == []
    assert world.logged == [
        f"{message}: not sending trace/success notification for {word}-bounce message"
    ]


def test_an_expired_message_without_records_is_reported(message: QueueId) -> None:
    """A record may be missing, but never the report."""
    queue_id = make(b"", "x@y", "z@y")
    world = World("defer")
    with QueueFile(f"active/{queue_id}") as file:
        first, _ = file.recipients()
    world.append(FAILED._replace(offset=first.offset), queue_id=queue_id)
    assert world.flush("bounce", queue_id) == 0
    assert [told for _, _, told, _ in world.notifier.sent] == [["x@y", "z@y"]]
    assert not world.has_log(queue_id)


def test_a_log_that_cannot_be_read_defers_the_report(message: QueueId) -> None:
    world = World()
    Path(f"bounce/{message}").mkdir()
    assert world.flush("bounce", message) == CleanupStatus.DEFER
    assert world.notifier.sent == []


def test_a_log_that_cannot_be_removed_is_emptied(
    message: QueueId, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    world.append(FAILED, queue_id=message)

    def broken(queue_id: QueueId) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(world.reporter._log, "remove", broken)
    assert world.flush("bounce", message) == 0
    assert world.reporter._log.read(message) == []
    assert world.logged[-1].endswith("remove bounce log: Permission denied")
