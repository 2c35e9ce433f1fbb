"""Queue files of the original, real ones and damaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.ipc.messages import DsnNotify, Envelope, EnvelopeFlag, Recipient
from libmail.queue.foreign_message import ForeignMessage, orcpt_of
from libmail.queue.foreign_reasons import foreign_targets
from libmail.queue.foreign_records import ForeignFileError, ReadAt, Record, records

FILES: Final = Path(__file__).parent / "foreign"
SAMPLES: Final = sorted(path.name for path in FILES.iterdir() if "." not in path.name)
SAMPLES.remove("README")


def reader(data: bytes) -> ReadAt:
    return lambda offset, size: data[offset : offset + size]


def encoded(kind: str, data: bytes) -> bytes:
    length, octets = len(data), bytearray()
    while True:
        length, low = length >> 7, length & 0x7F
        octets.append(low | 0x80 if length else low)
        if not length:
            return kind.encode() + bytes(octets) + data


def read(data: bytes, queue_id: str = "X") -> tuple[ForeignMessage, bytes, Envelope]:
    message = ForeignMessage(reader(data), len(data), queue_id)
    message.head()
    content = b"".join(message.content())
    return message, content, message.finish("<id>")


def sample(name: str, queue_id: str = "X") -> tuple[ForeignMessage, bytes, Envelope]:
    return read((FILES / name).read_bytes(), queue_id)


def made(*middle: tuple[str, bytes], end: bytes = b"") -> bytes:
    """A file with the usual beginning; middle: more records of the envelope."""
    parts = [("T", b"1700000000 5"), ("S", b"s@x.test"), *middle]
    content = [("M", b""), ("N", b"Subject: x"), ("X", b""), ("E", b"")]
    return b"".join(encoded(kind, data) for kind, data in [*parts, *content]) + end


def test_dsn_options_and_done_recipients() -> None:
    message, content, envelope = sample("dsn", "EC17D21E004")
    notify = int(DsnNotify.SUCCESS | DsnNotify.FAILURE | DsnNotify.DELAY)
    orcpt = "rfc822;o+2Bne@deferred.test"
    addresses = ("one@deferred.test", "two@ok.test", "three@deferred.test")
    offsets = (707, 797, 889)
    assert [one.recipient for one in message.recipients] == [
        Recipient(address, address, orcpt, notify, offset)
        for address, offset in zip(addresses, offsets, strict=True)
    ]
    assert [one.done for one in message.recipients] == [False, True, False]
    assert content.startswith(b"Received: from client.test")
    assert content.endswith(b"\r\n\r\nbody\r\n.dot\r\n")
    assert envelope == Envelope(
        sender="a@x.test",
        flags=int(EnvelopeFlag.DSN_HEADERS),
        arrival=1795379337.9586,
        dsn_envid="env+id",
        rewrite_context="local",
        client_name="localhost",
        reverse_client_name="localhost",
        client_address="127.0.0.1",
        client_port="37130",
        helo_name="client.test",
        protocol_name="ESMTP",
        server_address="127.0.0.1",
        server_port="41007",
        message_id="<id>",
        warn_time=1795382937.0,
    )


def test_verp_and_long_lines() -> None:
    _, content, envelope = sample("verp")
    assert envelope.flags == EnvelopeFlag.EIGHTBIT
    assert envelope.verp_delims == "+="
    assert content.endswith("\r\n\r\nbödy\r\n".encode() + b"x" * 5000 + b"\r\n")


def test_what_a_milter_changed() -> None:
    message, content, envelope = sample("milter")
    assert envelope.sender == message.sender == "newfrom@x.test"
    assert [one.recipient.address for one in message.recipients] == [
        "one@deferred.test",
        "added@deferred.test",
    ]
    header, _, body = content.partition(b"\r\n\r\n")
    assert header.startswith(b"X-First: inserted at top\r\nReceived: from client.test")
    assert header.endswith(b"\r\nX-Added: by milter, which is a longer header")
    assert b"\r\nSubject: changed subject, much longer" in header
    assert b"X-Del" not in header
    assert body == b"new body\r\nsecond line\r\n" * 100


def test_origin_before_a_content_filter() -> None:
    _, _, envelope = sample("xforward")
    assert envelope.client_name == "localhost"
    assert envelope.log_client_name == "spike.example"
    assert envelope.log_client_address == "192.0.2.7"
    assert envelope.log_helo_name == "spike"
    assert envelope.log_ident == "ABC123"


def test_submission() -> None:
    message, content, envelope = sample("maildrop")
    assert envelope == Envelope(
        sender="drop@x.test",
        flags=int(EnvelopeFlag.LOCAL | EnvelopeFlag.EIGHTBIT | EnvelopeFlag.DSN_FULL),
        arrival=1795379342.109611,
        full_name="Full Name",
        dsn_envid="env-id",
        verp_delims="+-",
        message_id="<id>",
    )
    assert [one.recipient[:4] for one in message.recipients] == [
        ("d@deferred.test", "", "", DsnNotify.NEVER),
        ("a b@deferred.test", "", "", DsnNotify.NEVER),
    ]
    assert content == "Subject: maildrop\r\n\r\nlöcal\r\n.two\r\n".encode()


def test_single_properties() -> None:
    assert sample("redirect")[2].redirect == "redir@deferred.test"
    assert sample("filter")[2].content_filter == "smtp:[127.0.0.1]:9"
    message, _, envelope = sample("smtputf8")
    assert envelope.flags == EnvelopeFlag.SMTPUTF8 | EnvelopeFlag.EIGHTBIT
    assert message.recipients[0].recipient.address == "ü@deferred.test"
    assert sample("verbose")[2].flags == EnvelopeFlag.LOCAL  # the report has been sent
    message, content, _ = sample("bcc")
    assert [one.recipient.address for one in message.recipients] == [
        "bccd@deferred.test",
        "bcc@deferred.test",
    ]
    assert content.endswith(b"nul \0 and bare cr   in\r\n\r\n\r\n")


@pytest.mark.parametrize(
    ("kind", "data", "flag"),
    [
        ("A", b"trace_flags=512", EnvelopeFlag.VERIFY_ONLY),
        ("A", b"trace_flags=1024", EnvelopeFlag.VERBOSE),
        ("<", b"1", EnvelopeFlag.DSN_FULL),
        ("A", b"encoding=7bit", 0),
        ("C", b"1 2 3 4 5 33", EnvelopeFlag.SMTPUTF8 | EnvelopeFlag.REQUIRETLS),
    ],
)
def test_flags(kind: str, data: bytes, flag: int) -> None:
    message, _, envelope = read(made((kind, data), ("R", b"r@x.test")))
    assert envelope.flags == flag | EnvelopeFlag.LOCAL
    assert not message.probe


def test_address_probe() -> None:
    assert read(made(("A", b"trace_flags=256"), ("R", b"r@x.test")))[0].probe


def test_delay_notice_that_was_sent() -> None:
    assert read(made(("K", b"     1700000100"), ("R", b"r@x.test")))[2].warn_time == -1700000100


def test_last_line_without_end() -> None:
    data = made(("R", b"r@x.test")).replace(encoded("N", b"Subject: x"), encoded("L", b"abc"))
    assert read(data)[1] == b"abc\r\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "unexpected end of file"),
        (b"\x93MAILQ1\n" + bytes(200), "not a Postfix queue file"),
        (made(), "no recipients"),
        (made(("R", b"r@x.test"))[:-3], "unexpected end of file"),
        (made(("R", b"a\0b")), "control character"),
        (made(("R", b"a\nb")), "control character"),
        (made(("p", b"0000000000")), "no recipients"),
        (made(("p", b"2")), "pointers make a loop|is cut off|no |bad|unexpected"),
        (made(("p", b"-5")), "bad pointer"),
        (made(("T", b"soon")), "bad time"),
        (made(("R", b"x" * 20_000)), "recipient of 20000 octets"),
        (made(*[("A", b"a" * 200 + b"=b")] * 2000), "envelope too large"),
        (b"\x01\x00" * 9, "not a Postfix queue file"),
        (encoded("C", b"") + encoded("S", b"s") + encoded("M", b""), "no arrival time"),
        (encoded("T", b"1") + encoded("M", b""), "no sender"),
        (encoded("T", b"1") + encoded("E", b""), "no message content"),
        (b"S\xff\xff\xff\xff\x0f", "octets"),
        (b"S\xff\xff\xff\x7f", "octets"),
    ],
)
def test_what_is_no_message(data: bytes, why: str) -> None:
    with pytest.raises(ForeignFileError, match=why):
        read(data)


def test_loop_of_pointers() -> None:
    start = encoded("T", b"1") + encoded("S", b"s")
    with pytest.raises(ForeignFileError, match="loop"):
        read(start + encoded("p", str(len(start)).encode()))


@pytest.mark.parametrize("name", SAMPLES)
def test_truncated_at_any_place(name: str) -> None:
    data = (FILES / name).read_bytes()
    for length in range(0, len(data), 7):
        with pytest.raises(ForeignFileError):
            read(data[:length])


@given(st.sampled_from(SAMPLES), st.data())
def test_damage_raises_only_what_it_should(name: str, choices: st.DataObject) -> None:
    data = bytearray((FILES / name).read_bytes())
    for _ in range(choices.draw(st.integers(1, 4))):
        data[choices.draw(st.integers(0, len(data) - 1))] = choices.draw(st.integers(0, 255))
    try:
        read(bytes(data))
    except ForeignFileError:
        pass


@given(st.binary(max_size=300))
def test_anything_raises_only_what_it_should(data: bytes) -> None:
    with pytest.raises(ForeignFileError):
        read(data)


@given(
    st.lists(
        st.tuples(st.sampled_from("ACNLRSTW"), st.binary(max_size=300) | st.just(b"y" * 70_000)),
        max_size=8,
    )
)
def test_records_come_as_they_were_written(given_records: list[tuple[str, bytes]]) -> None:
    wanted = [*given_records, ("E", b"")]
    data = b"".join(encoded(kind, text) for kind, text in wanted)
    found = list(records(reader(data), len(data)))
    assert [(one.kind, one.data) for one in found] == wanted
    assert all(isinstance(one, Record) and data[one.offset] == ord(one.kind) for one in found)


@pytest.mark.parametrize(
    ("stored", "original", "expected"),
    [
        ("rfc822;a@x", "a@x", ""),
        ("rfc822;a@x", "", "rfc822;a@x"),
        ("rfc822;a+b@x", "c@x", "rfc822;a+2Bb@x"),
        ('rfc822;"a b"@x', "a b@x", ""),
        ("utf-8;ü@x", "ü@x", ""),
        ("utf-8;ü@x", "y@x", "utf-8;ü@x"),
        ("", "a@x", ""),
        ("nonsense", "a@x", ""),
    ],
)
def test_original_recipient(stored: str, original: str, expected: str) -> None:
    assert orcpt_of(stored, original) == expected


def test_defer_log() -> None:
    data = (FILES / "dsn.defer").read_bytes()
    one, three = foreign_targets(data, {707: 11, 889: 33}, 5.0)
    assert one.address == one.orig_rcpt == "one@deferred.test"
    assert (one.offset, three.offset) == (11, 33)
    assert one.notify == 14
    assert one.dsn_orcpt == "rfc822;o+2Bne@deferred.test"
    assert (one.action, one.status, one.reason) == ("delayed", "4.0.0", "try again later")
    assert one.time == 5.0


def test_log_with_a_remote_answer_and_a_torn_record() -> None:
    data = (
        b"\n<a@x>: no\nrecipient=a@x\noriginal_recipient=b@x\nstatus=5.1.1\naction=failed\n"
        b"diag_type=smtp\ndiag_text=550 no\nmta_type=dns\nmta_name=mx.x\nreason=host said: 550\n\n"
        b"\n<c@x>: no\nrecipient=c@x\nreason=cut o"
    )
    (target,) = foreign_targets(data, {}, 0.0)
    assert (target.orig_rcpt, target.mta, target.diag_type) == ("b@x", "mx.x", "smtp")
    assert target.diag_text == "550 no"


@given(st.binary(max_size=200))
def test_any_log(data: bytes) -> None:
    for target in foreign_targets(data, {}, 0.0):
        assert target.address
