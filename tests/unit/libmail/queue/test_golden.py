"""Files that outlive the program: every later version reads what was written by this one.

The files in `golden` were written once and are not written again. Where a format gets another
version, its files join them, and the tests of the old ones stay.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, get_origin, get_type_hints

import pytest

from commands.postsuper.staging import Key, Staging
from libmail.ipc.codec import WireError
from libmail.ipc.messages import CODEC, Envelope, EnvelopeFlag, QueueId, Recipient, Target
from libmail.queue.directory import QueueDirectory
from libmail.queue.envelope import BadEnvelope, encode_envelope, read_envelope, value_offset
from libmail.queue.file import DONE, ContentFlag, QueueFile
from libmail.queue.reasons import ReasonLog
from libmail.queue.sites import SiteRecords

GOLDEN: Final = Path(__file__).parent / "golden"
QUEUE: Final = QueueDirectory(frozenset())
IDS: Final = (QueueId("4T9xWb5nXkz1Kq"), QueueId("0F3A21C04D"))
KEY: Final = Key(IDS[0], 1790000000123456, 0xDEADBEEF)
ENVELOPE: Final = Envelope(
    sender="s\u00e4nder@x.test", flags=int(EnvelopeFlag.SMTPUTF8 | EnvelopeFlag.DSN_HEADERS),
    cleanup_flags=34, arrival=1790000000.25, full_name="A. User", dsn_envid="env id",
    rewrite_context="domain.invalid", content_filter="smtp:[127.0.0.1]:10025",
    redirect="r@x.test", verp_delims="+=", client_name="client.test",
    reverse_client_name="rev.test", client_address="192.0.2.7", client_port="1025",
    helo_name="helo\udcff.test", protocol_name="ESMTP", server_address="192.0.2.1",
    server_port="25", sasl_method="PLAIN", sasl_username="user", sasl_sender="sasl@x.test",
    log_client_name="log.test", log_client_address="198.51.100.7", log_client_port="2525",
    log_helo_name="loghelo", log_protocol_name="SMTP", log_ident="4LogIdent",
    message_id="<m@x.test>", warn_time=1790003600.25,
)  # fmt: skip
RECIPIENTS: Final = (
    Recipient("a@x.test", "orig@x.test", "rfc822;o+2Bne@x.test", 6),
    Recipient("b c@x.test", "b c@x.test", "", 0),
    Recipient("\u00fc@x.test", "", "", 1),
)
SUBMISSION: Final = Envelope("me@x.test", flags=16, full_name="A. User")
TARGETS: Final = (
    Target(
        "a@x.test", "orig@x.test", "rfc822;orig@x.test", 6, 200, "delayed", "4.4.1", "refused",
        "mx.test", "smtp", "450 4.4.1 no", "mx.test[192.0.2.9]:25", 1790000001.5,
    ),
    Target("b@x.test", "b@x.test", "", 0, 240, "failed", "5.1.1", "unknown = nobody"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("defer", "flush", "import"):
        (tmp_path / name).mkdir()


@pytest.mark.parametrize("name", ["message.1", "message.2"])
def test_message(name: str) -> None:
    with QueueFile(str(GOLDEN / name)) as file:
        file.verify(IDS[0])
        assert file.envelope() == ENVELOPE
        assert file.header() == b"Subject: golden\r\nMessage-Id: <m@x.test>\r\n"
        assert b"".join(file.body()) == b"\r\nbody\r\n.dot\r\n\xe4\r\n"
        assert file.preamble.flags == ContentFlag.DOT_LINES | ContentFlag.EIGHTBIT_BODY
        assert file.preamble.arrival == ENVELOPE.arrival
        assert file.preamble.recipient_count == 3
        left = [one._replace(offset=0) for one in file.recipients()]
        done = [one._replace(offset=0) for one in file.recipients(states=DONE)]
    assert left == [RECIPIENTS[0], RECIPIENTS[2]]
    assert done == [RECIPIENTS[1]]


def test_the_delay_notice_is_noted_in_place(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "message.1", tmp_path / "copy")
    with QueueFile("copy", writable=True) as file:
        file.mark_warned()
    with QueueFile("copy") as file:
        assert file.envelope()._replace(warn_time=0.0) == ENVELOPE._replace(warn_time=0.0)
        assert file.envelope().warn_time < 0


def test_maildrop() -> None:
    with QueueFile(str(GOLDEN / "maildrop.1")) as file:
        assert file.envelope() == SUBMISSION
        assert [one._replace(offset=0) for one in file.recipients()] == [RECIPIENTS[0]]
        assert file.header() + b"".join(file.body()) == b"Subject: dropped\r\n\r\nx\r\n"


def test_reasons() -> None:
    shutil.copy(GOLDEN / "reasons.1", f"defer/{IDS[0]}")
    assert ReasonLog(QUEUE, "defer").read(IDS[0]) == list(TARGETS)


def test_flush() -> None:
    shutil.copy(GOLDEN / "flush.1", "flush/x.test")
    assert SiteRecords(QUEUE).take("x.test") == list(IDS)


def test_import_record() -> None:
    shutil.copy(GOLDEN / "import.1", "import/record")
    staging = Staging(QUEUE)
    assert staging.knows(KEY)
    assert staging.knows(KEY._replace(queue_id=IDS[1]))
    assert not staging.knows(KEY._replace(arrival=1))
    assert staging._pending == {IDS[0]: "hold"}
    staging.close()


# What other versions may write.


def stored(**fields: str) -> bytes:
    words = ["request", "Envelope"]
    for name, value in fields.items():
        words += (name, value)
    return "\0".join((*words, "")).encode("utf-8", "surrogateescape")


def texts(envelope: Envelope) -> dict[str, str]:
    return {name: str(value) for name, value in envelope._asdict().items()}


def test_a_field_more_one_less_and_another_order() -> None:
    fields = texts(ENVELOPE)
    del fields["warn_time"], fields["redirect"]
    changed = {"new_field": "with = anything", **dict(reversed(fields.items()))}
    assert read_envelope(stored(**changed)) == ENVELOPE._replace(warn_time=0.0, redirect="")
    with pytest.raises(WireError):  # the wire stays strict
        CODEC.decode(stored(**changed))


def test_the_sender_is_enough() -> None:
    assert read_envelope(stored(sender="a@b")) == Envelope("a@b")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"request\0Envelope\0", b"request\0Recipients\0sender\0a\0",
        b"request\0Envelope\0sender\0", b"request\0Envelope\0sender\0a", stored(flags="1"),
        stored(sender="a", flags="x"), stored(sender="a", arrival="inf"),
        stored(sender="a", arrival="nan"), stored(sender="a", flags="9" * 5000),
    ],
)  # fmt: skip
def test_no_envelope(data: bytes) -> None:
    with pytest.raises(BadEnvelope):
        read_envelope(data)


def test_positions_are_found_by_name() -> None:
    data = stored(sender="\u00e4\udcff", warn_time="5.0", other="warn_time", later="x")
    at = value_offset(data, "warn_time")
    assert at is not None
    assert data[at:].startswith(b"5.0\0")
    assert value_offset(data, "redirect") is None


def test_an_envelope_has_only_what_a_reader_of_names_can_skip() -> None:
    assert all(get_origin(hint) is None for hint in get_type_hints(Envelope).values())
    assert read_envelope(encode_envelope(ENVELOPE)) == ENVELOPE


def test_a_reason_with_fields_more_and_less() -> None:
    Path(f"defer/{IDS[0]}").write_text(
        "\n\naddress=a@b\naction=failed\nstatus=5.1.1\nreason=no\nnew=thing\nend\n"
        "\n\naction=failed\nstatus=5.1.1\nend\n"
    )
    (found,) = ReasonLog(QUEUE, "defer").read(IDS[0])
    assert (found.address, found.reason, found.notify, found.time) == ("a@b", "no", 0, 0.0)


def test_more_on_a_line() -> None:
    Path("flush/x.test").write_text(f"{IDS[0]} later\n{IDS[1]}\n")
    assert SiteRecords(QUEUE).take("x.test") == list(IDS)
    Path("import/record").write_text(
        f"{IDS[0]} {KEY.arrival} {KEY.sender:08x} {IDS[1]} deferred more\nx y z 1 hold\n"
    )
    staging = Staging(QUEUE)
    assert staging.knows(KEY)
    staging.close()
