"""A message from its envelope to the queue file."""

import asyncio
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from daemons.cleanup.header import HeaderEditor
from daemons.cleanup.inspection import Inspector
from daemons.cleanup.message import Message, Shared, new_file
from daemons.cleanup.params import CleanupParams
from daemons.cleanup.raw import RawRules
from daemons.cleanup.recipients import BccTables
from daemons.cleanup.reports import Reports
from libmail.files.commit import GroupCommit
from libmail.ipc.messages import (
    CleanupAmend,
    CleanupFlag,
    CleanupResult,
    CleanupStatus,
    Envelope,
    EnvelopeFlag,
    QueueId,
    Recipient,
)
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFile, QueueFileWriter
from libmail.queue.spare import SpareSupply
from libmail.service.pool import ServicePool
from libmail.smtp.address import MAX_ADDRESS
from libmail.tables.maps import Maps
from tests.unit.daemons.cleanup.conftest import (
    FILTERS,
    HEADERS,
    MakeMapper,
    make_inspector,
    make_raw,
)

PARAMS = CleanupParams(
    always_bcc="archive@example.test",
    sender_bcc_maps=(),
    recipient_bcc_maps=(),
    recipient_delimiter="",
    empty_address_recipient="MAILER-DAEMON",
    duplicate_filter_limit=1000,
    detect_8bit_encoding_header=True,
    enable_original_recipient=True,
    message_size_limit=3_000_000,
    non_smtpd_milters=(),
    delay_warning_time=3600.0,
    smtputf8_enable=True,
    enable_long_queue_ids=False,
    hash_queue_names=(),
    hash_queue_depth=1,
    queue_minfree=0,
    in_flow_delay=1.0,
    rewrite_service_name="rewrite",
    queue_service_name="qmgr",
    trace_service_name="trace",
    bounce_service_name="bounce",
    ipc_idle=5.0,
    ipc_ttl=1000.0,
    ipc_timeout=60.0,
)
HEADER = b"Message-Id: <x@y>\r\nDate: d\r\nFrom: a@b.c\r\n"
ENVELOPE = Envelope(sender="s", arrival=1000.0)
ALICE = Recipient("alice@example.test", "alice@example.test")


@pytest.fixture(autouse=True)
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("incoming", "hold"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def submit(
    make_mapper: MakeMapper,
    *content: bytes,
    flags: int = CleanupFlag.MAP,
    envelope: Envelope = ENVELOPE,
    recipients: tuple[Recipient, ...] = (ALICE,),
    params: CleanupParams | None = None,
    inspector: Inspector | None = None,
    raw: RawRules | None = None,
    amendment: CleanupAmend | None = None,
    meanwhile: Callable[[], QueueId] | None = None,
) -> CleanupResult:
    async def run() -> CleanupResult:
        mapper = make_mapper()
        shared = Shared(
            params or PARAMS, QueueDirectory(frozenset(), 1), SpareSupply(), mapper,
            HeaderEditor(HEADERS, mapper, make_inspector().parts), inspector or make_inspector(),
            raw or make_raw(),
            BccTables(Maps("a", ()), Maps("b", ())), GroupCommit(1),
            Reports(ServicePool("private/bounce"), ServicePool("private/trace")),
            FILTERS,
        )  # fmt: skip
        message = Message(shared, flags, new_file(shared))
        message.meanwhile = meanwhile
        await message.envelope(envelope)
        message.recipients(recipients)
        for piece in content:
            await message.content(piece)
        if amendment is not None:
            await message.amend(amendment)
        result = await message.finish()
        assert message.queued == Path(f"incoming/{message.queue_id}").exists() or result.status
        message.discard()
        return result

    return asyncio.run(run())


def read(result: CleanupResult, queue_name: str = "incoming") -> tuple[QueueFile, bytes]:
    assert (result.status, result.reason) == (0, "")
    file = QueueFile(f"{queue_name}/{result.queue_id}")
    return file, file.header() + b"".join(file.body())


def test_what_is_done_while_the_disk_works(make_mapper: MakeMapper) -> None:
    seen: list[list[int]] = []

    def look() -> QueueId:
        seen.append([stat.S_IMODE(os.stat(f"incoming/{name}").st_mode) for name in ids()])
        return QueueId("NEXT")

    def ids() -> list[str]:
        return os.listdir("incoming")

    result = submit(make_mapper, HEADER + b"\r\nx\r\n", meanwhile=look)
    read(result)
    assert (seen, result.next_id) == ([[0o700]], "NEXT")
    refused = submit(make_mapper, HEADER, recipients=(), meanwhile=look)
    assert refused.status
    assert (len(seen), refused.next_id) == (1, "")


def test_small_message(make_mapper: MakeMapper) -> None:
    file, content = read(submit(make_mapper, HEADER + b"\r\nbody\r\n.dot\r\n"))
    assert content == HEADER + b"\r\nbody\r\n.dot\r\n"
    assert file.header() == HEADER
    assert file.preamble.flags == ContentFlag.DOT_LINES
    envelope = file.envelope()
    assert (envelope.sender, envelope.message_id) == ("s@example.test", "<x@y>")
    assert envelope.warn_time == 4600.0
    assert [r.address for r in file.recipients()] == ["alice@example.test"]


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_pieces_make_no_difference(make_mapper: MakeMapper, size: int) -> None:
    data = HEADER + b"Content-Type: text/plain\r\n\r\nb\xe4\r\n" + b"x" * 1000 + b"\r\nend"
    file, content = read(
        submit(make_mapper, *[data[at : at + size] for at in range(0, len(data), size)])
    )
    assert content == data + b"\r\n"
    flags = ContentFlag.EIGHTBIT_BODY | ContentFlag.LONG_LINES | ContentFlag.MIME_CONTENT
    assert file.preamble.flags == flags


ANYTHING = [
    HEADER + b"Content-Type: text/plain\r\n\r\nb\xe4\r\n.dot\r\nend",
    HEADER + b"Subject: a\r\n folded\r\n\tagain\r\nB : c\r\nno field\r\nmore\r\n",
    HEADER + b"\r\n",
    HEADER + b"X: a\rb\nY: c\r\n\r\n\ra\n\nb\r\r\n",
    b" blank\r\n" + HEADER,
    HEADER + b"To: a, b@c\r\nBcc: d\r\nX-Long: " + b"y" * 300 + b"\r\nSubject: s\r\n\r\nbody\r\n",
]


@pytest.mark.parametrize("strays", [True, False])
@pytest.mark.parametrize("data", ANYTHING, ids=range(len(ANYTHING)))
def test_a_boundary_at_every_offset(make_mapper: MakeMapper, data: bytes, strays: bool) -> None:
    raw = make_raw(cleanup_replace_stray_cr_lf=strays)

    def result(*pieces: bytes) -> tuple[object, ...]:
        file, content = read(submit(make_mapper, *pieces, raw=raw))
        queue_id = Path(file.path).name.encode()
        return content.replace(queue_id, b"QID"), file.preamble.header.length, file.preamble.flags

    whole = result(data)
    for at in range(1, len(data)):
        assert result(data[:at], data[at:]) == whole, at
    assert result(*(bytes((octet,)) for octet in data)) == whole


def test_a_large_field_is_cut_wherever_pieces_end(make_mapper: MakeMapper) -> None:
    """What follows it is header still."""
    line = b"X-Long:" + b"y" * 150_000
    data = HEADER + line + b"\r\nSubject: behind\r\n\r\nbody\r\n"
    for pieces in (
        [data],
        [HEADER, line, b"\r\nSubject: behind\r\n", b"\r\nbody\r\n"],
        [data[at : at + 1000] for at in range(0, len(data), 1000)],
        [HEADER + line[:110_000], data[len(HEADER) + 110_000 :]],
    ):
        file, content = read(submit(make_mapper, *pieces))
        assert content == HEADER + line[:300] + b"\r\nSubject: behind\r\n\r\nbody\r\n"
        assert file.header().endswith(b"behind\r\n")


def test_a_large_header_is_a_header_to_its_end(make_mapper: MakeMapper) -> None:
    params = replace(PARAMS, message_size_limit=0)
    data = HEADER + b"X-Many: field\r\n" * 400_000
    pieces = [data[at : at + (1 << 18)] for at in range(0, len(data), 1 << 18)]
    file, _ = read(submit(make_mapper, *pieces, b"Bcc: secret\r\n\r\nbody\r\n", params=params))
    assert file.header() == data
    assert b"".join(file.body()) == b"\r\nbody\r\n"


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (HEADER + b"no field\r\n", HEADER + b"\r\nno field\r\n"),
        (HEADER, HEADER),
        (HEADER[:-2], HEADER),
        (HEADER + b"\r\na\rb\nc\r\n", HEADER + b"\r\na b c\r\n"),
    ],
)
def test_odd_content(make_mapper: MakeMapper, data: bytes, content: bytes) -> None:
    assert read(submit(make_mapper, data))[1] == content


@pytest.mark.parametrize("sender", ["", "mailer-daemon", "MAILER-DAEMON@example.test"])
def test_mail_of_the_mail_system_has_no_sender(make_mapper: MakeMapper, sender: str) -> None:
    given = ENVELOPE._replace(sender=sender, verp_delims="+=")
    envelope = read(submit(make_mapper, HEADER, envelope=given))[0].envelope()
    assert (envelope.sender, envelope.verp_delims) == ("", "")


def test_completed_address_is_the_original_of_local_mail(make_mapper: MakeMapper) -> None:
    recipients = (ALICE, Recipient("b b", "b b"), Recipient("c", "c", "rfc822;orig"))
    for flags, want in ((EnvelopeFlag.LOCAL, "rfc822;b+20b@example.test"), (0, "")):
        result = submit(
            make_mapper, HEADER, flags=0, envelope=ENVELOPE._replace(flags=int(flags)),
            recipients=recipients,
        )  # fmt: skip
        originals = [r.dsn_orcpt for r in read(result)[0].recipients()]
        assert originals == ["", want, "rfc822;orig"]


def test_nothing_is_done_with_mail_to_discard(make_mapper: MakeMapper) -> None:
    too_large = b"x" * (PARAMS.message_size_limit + 1)
    result = submit(make_mapper, too_large, flags=CleanupFlag.DISCARD)
    assert (result.status, list(Path("incoming").iterdir())) == (0, [])


def test_a_notification_may_be_as_large_as_it_is(make_mapper: MakeMapper) -> None:
    data = HEADER + b"\r\n" + b"x" * PARAMS.message_size_limit
    read(submit(make_mapper, data, flags=CleanupFlag.UNLIMITED))


def test_duplicates_and_copies(make_mapper: MakeMapper) -> None:
    again = Recipient("Alice@example.test", "alice@example.test")
    other = Recipient("alice@example.test", "root@example.test")
    result = submit(
        make_mapper, HEADER, flags=CleanupFlag.BCC, recipients=(ALICE, again, other, Recipient(""))
    )
    assert [(r.address, r.orig_rcpt, r.notify) for r in read(result)[0].recipients()] == [
        ("alice@example.test", "alice@example.test", 0),
        ("alice@example.test", "root@example.test", 0),
        ("MAILER-DAEMON@example.test", "", 0),
        ("archive@example.test", "archive@example.test", 1),
    ]


def test_duplicates_by_address_alone(
    make_mapper: MakeMapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PARAMS", replace(PARAMS, enable_original_recipient=False))
    other = Recipient("alice@example.test", "root@example.test")
    result = submit(make_mapper, HEADER, recipients=(ALICE, other))
    assert [r.orig_rcpt for r in read(result)[0].recipients()] == ["alice@example.test"]


@pytest.mark.parametrize(
    ("header", "body", "before", "after"),
    [
        (b"TLS-Required: no", b"x", 0, EnvelopeFlag.TLS_OPTIONAL),
        (b"tls-required:\r\n NO ", b"x", 0, EnvelopeFlag.TLS_OPTIONAL),
        (b"TLS-Required: yes", b"x", 0, 0),
        (b"TLS-Required: no, really", b"x", 0, 0),
        (b"X: y", b"TLS-Required: no", 0, 0),
        (b"Require-TLS-ESMTP: yes", b"x", 0, EnvelopeFlag.REQUIRETLS),
        (b"Require-TLS-ESMTP: no", b"x", 0, 0),
        (b"TLS-Required: no\r\nrequire-tls-esmtp:YES", b"x", 0, EnvelopeFlag.REQUIRETLS),
        (b"TLS-Required: no", b"x", EnvelopeFlag.REQUIRETLS, EnvelopeFlag.REQUIRETLS),
        (b"Content-Transfer-Encoding: 8bit", b"x", 0, EnvelopeFlag.EIGHTBIT),
        (b"content-transfer-encoding:BINARY", b"x", 0, EnvelopeFlag.EIGHTBIT),
        (b"Content-Transfer-Encoding: 7bit", b"x", EnvelopeFlag.EIGHTBIT, 0),
        (b"Content-Transfer-Encoding: 8bit (x)", b"x", 0, 0),
        (b"Content-Transfer-Encoding: base64", b"x", EnvelopeFlag.EIGHTBIT, EnvelopeFlag.EIGHTBIT),
        (b"Content-Type: multipart/mixed; boundary=b", b"\xe4", 0, EnvelopeFlag.EIGHTBIT),
        (b"Content-Type: multipart/mixed; boundary=b", b"a", 0, 0),
        (b"Content-Type: text/plain", b"\xe4", 0, 0),
    ],
)
def test_declared_encoding(
    make_mapper: MakeMapper, header: bytes, body: bytes, before: int, after: int
) -> None:
    envelope = ENVELOPE._replace(flags=int(before))
    data = HEADER + header + b"\r\n\r\n" + body + b"\r\n"
    file, _ = read(submit(make_mapper, data, envelope=envelope))
    assert file.envelope().flags == after


@pytest.mark.parametrize("there", [True, False])
def test_requiretls_is_noted_in_the_header(make_mapper: MakeMapper, *, there: bool) -> None:
    """For content filters, which may not keep it otherwise."""
    envelope = ENVELOPE._replace(flags=int(EnvelopeFlag.REQUIRETLS))
    field = b"Require-TLS-ESMTP: yes\r\n"
    data = HEADER + (field if there else b"")
    _, content = read(submit(make_mapper, data + b"\r\nbody\r\n", envelope=envelope))
    assert content.count(field) == 1


@pytest.mark.parametrize("name", ["requiretls_enable", "requiretls_esmtp_header"])
def test_requiretls_is_not_in_the_header(
    make_mapper: MakeMapper, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    headers = replace(HEADERS, requiretls_enable=False)
    if name != "requiretls_enable":
        headers = replace(HEADERS, requiretls_esmtp_header=False)
    monkeypatch.setitem(globals(), "HEADERS", headers)
    envelope = ENVELOPE._replace(flags=int(EnvelopeFlag.REQUIRETLS))
    _, content = read(submit(make_mapper, HEADER + b"\r\nbody\r\n", envelope=envelope))
    assert b"Require-TLS-ESMTP" not in content
    field = b"Require-TLS-ESMTP: yes\r\n\r\n"
    file, _ = read(submit(make_mapper, HEADER + field))
    assert file.envelope().flags == 0


def test_hold(make_mapper: MakeMapper) -> None:
    result = submit(make_mapper, HEADER, envelope=ENVELOPE._replace(cleanup_flags=CleanupFlag.HOLD))
    assert [r.address for r in read(result, "hold")[0].recipients()] == ["alice@example.test"]


def test_redirect(make_mapper: MakeMapper) -> None:
    result = submit(make_mapper, HEADER, envelope=ENVELOPE._replace(redirect="bob"))
    file, _ = read(result)
    assert file.envelope().redirect == "bob@example.test"
    assert [r.address for r in file.recipients()] == ["alice@example.test"]


def test_redirect_keeps_what_was_asked_for_the_first_recipient(make_mapper: MakeMapper) -> None:
    asked = Recipient("x@example.test", "X", "rfc822;y", 1)
    envelope = ENVELOPE._replace(redirect="bob")
    result = submit(make_mapper, HEADER, envelope=envelope, recipients=(asked, ALICE))
    first, second = read(result)[0].recipients()
    assert first[:4] == ("x@example.test", "X", "rfc822;y", 1)
    assert second.address == "alice@example.test"


@pytest.mark.parametrize("where", ["recipient", "redirect", "sender", "always_bcc"])
def test_too_long_with_the_domain_that_is_added(make_mapper: MakeMapper, where: str) -> None:
    long = "a" * (MAX_ADDRESS - 3)
    envelope, recipients, params, flags = ENVELOPE, (ALICE,), PARAMS, CleanupFlag.MAP
    if where == "recipient":
        recipients = (Recipient(long, "x"),)
    elif where == "always_bcc":
        params, flags = replace(PARAMS, always_bcc=long), flags | CleanupFlag.BCC
    elif where == "sender":
        envelope = envelope._replace(sender=long)
    else:
        envelope = envelope._replace(redirect=long)
    result = submit(
        make_mapper, HEADER, envelope=envelope, recipients=recipients, params=params, flags=flags
    )
    assert result.status


def test_what_is_decided_after_the_content(make_mapper: MakeMapper) -> None:
    amendment = CleanupAmend(0, "smtp:[x]", "", (Recipient("bob", "bob", "", 8),))
    file, _ = read(submit(make_mapper, HEADER, amendment=amendment))
    assert file.envelope().content_filter == "smtp:[x]"
    assert [r.address for r in file.recipients()] == ["alice@example.test", "bob@example.test"]
    redirected = CleanupAmend(0, "", "carol", ())
    file, _ = read(submit(make_mapper, HEADER, amendment=redirected))
    assert file.envelope().redirect == "carol@example.test"
    held = CleanupAmend(int(CleanupFlag.HOLD), "", "", ())
    assert read(submit(make_mapper, HEADER, amendment=held), "hold")


def test_what_is_to_be_discarded_in_the_end(make_mapper: MakeMapper, queue: Path) -> None:
    discarded = CleanupAmend(int(CleanupFlag.DISCARD), "", "", ())
    assert submit(make_mapper, HEADER, amendment=discarded).status == 0
    assert not list((queue / "incoming").iterdir())


def test_smtputf8_is_detected(make_mapper: MakeMapper) -> None:
    data = HEADER + "Subject: ä\r\n".encode()
    file, _ = read(submit(make_mapper, data, flags=CleanupFlag.SMTPUTF8_AUTODETECT))
    assert file.envelope().flags == 1
    assert file.preamble.flags == ContentFlag.EIGHTBIT_HEADER


@pytest.mark.parametrize(
    ("encoding", "flag"),
    [
        (b" 8bit", EnvelopeFlag.EIGHTBIT),
        (b"BINARY ", EnvelopeFlag.EIGHTBIT),
        (b" 7bit", 0),
        (b" base64", 0),
    ],
)
def test_what_the_header_says_of_the_body(
    make_mapper: MakeMapper, encoding: bytes, flag: int
) -> None:
    data = HEADER + b"Content-Transfer-Encoding:" + encoding + b"\r\n"
    assert read(submit(make_mapper, data))[0].envelope().flags == flag


@pytest.mark.parametrize(
    ("content", "recipients", "status", "dsn"),
    [
        ([HEADER] + [b"x" * 100_000 + b"\r\n"] * 31, (ALICE,), CleanupStatus.SIZE, "5.3.4"),
        ([HEADER + b"\r\n" + b"x" * 2_999_800], (ALICE,), CleanupStatus.SIZE, "5.3.4"),
        ([b"Received: x\r\n" * 51], (ALICE,), CleanupStatus.HOPS, "5.4.0"),
        ([HEADER], (), CleanupStatus.RECIPIENTS, "5.1.0"),
    ],
)
def test_refused(
    make_mapper: MakeMapper, queue: Path, content: list[bytes], recipients: tuple[Recipient, ...],
    status: CleanupStatus, dsn: str,
) -> None:  # fmt: skip
    result = submit(make_mapper, *content, recipients=recipients)
    assert (result.status, result.dsn) == (status, dsn)
    assert not os.listdir(queue / "incoming")


def test_discard(make_mapper: MakeMapper, queue: Path) -> None:
    assert submit(make_mapper, HEADER, flags=CleanupFlag.DISCARD).status == 0
    assert not os.listdir(queue / "incoming")


def test_no_space(make_mapper: MakeMapper, queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(QueueFileWriter, "complete", full)
    result = submit(make_mapper, HEADER)
    assert (result.status, result.dsn) == (CleanupStatus.SPACE, "4.3.1")
    assert not os.listdir(queue / "incoming")


LONG = "x" * 40_000 + "@example.test"


@pytest.mark.parametrize(
    ("envelope", "recipient", "dsn"),
    [
        (ENVELOPE, Recipient(LONG, LONG), "5.1.3"),
        (ENVELOPE, Recipient("a@b", LONG), "5.1.3"),
        (ENVELOPE, Recipient("a@b", "a@b", "rfc822;" + LONG), "5.1.3"),
        (ENVELOPE, Recipient("a\nX: y@b"), "5.1.3"),
        (ENVELOPE, Recipient("x" * 2040), "5.1.3"),  # too long with its domain
        (ENVELOPE._replace(sender=LONG), ALICE, "5.1.7"),
        (ENVELOPE._replace(sender="x" * 2040), ALICE, "5.1.7"),
        (ENVELOPE._replace(full_name="x" * 100_000), ALICE, "5.3.4"),
    ],
)
def test_addresses_that_no_record_can_hold_are_refused_for_good(
    make_mapper: MakeMapper, queue: Path, envelope: Envelope, recipient: Recipient, dsn: str
) -> None:
    result = submit(
        make_mapper, HEADER, b"\r\nx\r\n", envelope=envelope, recipients=(ALICE, recipient)
    )
    assert (result.status, result.dsn) == (CleanupStatus.CONTENT, dsn)
    assert not os.listdir(queue / "incoming")


def test_a_nul_in_the_message_id(make_mapper: MakeMapper, queue: Path) -> None:
    result = submit(make_mapper, b"Message-Id: <a\0b@c>\r\n" + HEADER[21:], b"\r\nx\r\n")
    assert result.status == 0
    with QueueFile(f"incoming/{result.queue_id}") as file:
        assert file.envelope().message_id == "<a"
