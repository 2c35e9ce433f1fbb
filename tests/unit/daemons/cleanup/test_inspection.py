"""header_checks, body_checks and the strict_ parameters in a message on its way into the queue.

Log lines and results are those of the real cleanup(8).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemons.cleanup.inspection import Inspector
from libmail.ipc.messages import (
    CleanupFlag,
    CleanupResult,
    CleanupStatus,
    DsnNotify,
    Envelope,
)
from libmail.log import LOG
from libmail.queue.file import QueueFile
from tests.unit.daemons.cleanup.conftest import MakeMapper, make_inspector
from tests.unit.daemons.cleanup.test_message import ENVELOPE, HEADER, read, submit

CLIENT = ENVELOPE._replace(
    sender="a@far.test", client_name="host.test", client_address="192.0.2.9",
    protocol_name="ESMTP", helo_name="helo.test",
)  # fmt: skip
FROM = " from host.test[192.0.2.9]; from=<a@far.test> to=<alice@example.test>"
WHO = f"{FROM} proto=ESMTP helo=<helo.test>"
FILTER = CleanupFlag.MAP | CleanupFlag.FILTER


@pytest.fixture(autouse=True)
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("incoming", "hold"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text.partition(": ")[2]), "postfix/cleanup")
    return lines


@pytest.fixture
def send(make_mapper: MakeMapper) -> Sender:
    return Sender(make_mapper)


class Sender:
    def __init__(self, make_mapper: MakeMapper) -> None:
        self._make_mapper = make_mapper

    def result(
        self, inspector: Inspector, *data: bytes, flags: int = FILTER, envelope: Envelope = CLIENT
    ) -> CleanupResult:
        return submit(self._make_mapper, *data, flags=flags, inspector=inspector, envelope=envelope)

    def message(self, inspector: Inspector, *data: bytes) -> tuple[QueueFile, bytes]:
        return read(self.result(inspector, *data))

    def content(self, inspector: Inspector, *data: bytes) -> bytes:
        return self.message(inspector, *data)[1]


def test_fields_and_lines(send: Sender, logged: list[str]) -> None:
    inspector = make_inspector(
        "{/^X-Gone:/ IGNORE} {/^X-New: (.*)/ REPLACE To: $1} {/^X-Mark:/ PREPEND To: untouched}"
        " {/^X-Warn: (.*)/ WARN of $1}",
        "{/^swap (.*)/ REPLACE $1} {/^gone/ IGNORE} {/^strip/ STRIP why} {/^mark/ PREPEND before}",
    )
    data = (
        HEADER + b"X-Gone: a\r\n folded\r\nX-New: one\r\nX-Mark: b\r\nX-Warn: c\r\n d\r\n\r\n"
        b"swap x\r\ngone\r\nstrip\r\nmark\r\nX-Gone: body\r\n"
    )
    want = (
        HEADER + b"To: one@example.test\r\nTo: untouched\r\nX-Mark: b\r\nX-Warn: c\r\n d\r\n\r\n"
        b"x\r\nbefore\r\nmark\r\nX-Gone: body\r\n"
    )
    assert send.content(inspector, data) == want
    assert logged == [
        "message-id=<x@y>",
        f"replace: header X-New: one{WHO}: To: one",
        f"prepend: header X-Mark: b{WHO}: To: untouched",
        f"warning: header X-Warn: c? d{WHO}: of c? d",
        f"replace: body swap x{WHO}: x",
        f"strip: body strip{WHO}: why",
        f"prepend: body mark{WHO}: before",
    ]
    for at in range(0, len(data), 3):
        assert send.content(inspector, data[:at], data[at:]) == want


@pytest.mark.parametrize("action", ["WARN", "PREPEND X-Seen: y", "REPLACE Bcc: x@y", "DUNNO"])
def test_fields_that_are_dropped_are_so_behind_the_tables(send: Sender, action: str) -> None:
    inspector = make_inspector(f"{{/^Bcc/ {action}}}")
    kept = b"X-Seen: y\r\n" if "PREPEND" in action else b""
    data = HEADER + b"Bcc: a@b\r\nX: y\r\n\r\n"
    assert send.content(inspector, data) == HEADER + kept + b"X: y\r\n\r\n"


MULTIPART = (
    HEADER + b"Content-Type: multipart/mixed; boundary=b\r\nX-Where: top\r\n\r\nX-Where: pre\r\n"
    b"--b\r\nX-Where: part\r\n\r\nX-Where: text\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
    b"X-Where: inner\r\n\r\nX-Where: inner text\r\n--b--\r\n"
)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_each_place_has_its_table(send: Sender, size: int) -> None:
    rule = "{{/^X-Where:/ PREPEND X-Saw: {}}}"
    inspector = make_inspector(
        rule.format("top"), rule.format("body"), mime=rule.format("mime"),
        nested=rule.format("nested"),
    )  # fmt: skip
    pieces = [MULTIPART[at : at + size] for at in range(0, len(MULTIPART), size)]
    want = MULTIPART
    for place, text in (
        (b"top", b"top"), (b"body", b"pre"), (b"mime", b"part"), (b"body", b"text"),
        (b"nested", b"inner\r"), (b"body", b"inner text"),
    ):  # fmt: skip
        want = want.replace(b"X-Where: " + text, b"X-Saw: %s\r\nX-Where: %s" % (place, text))
    assert send.content(inspector, *pieces) == want


PARTS = (
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\nA : pre\r\n--b\r\nA : part\r\n\r\n"
    b"A : text\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nA\t: inner\r\n folded\r\n\r\nA : text\r\n--b--\r\n"
)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("inspector", [make_inspector(), make_inspector("{/^none/ WARN}")])
def test_headers_of_parts_are_in_normal_form(send: Sender, inspector: Inspector, size: int) -> None:
    data = HEADER + PARTS
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    want = data.replace(b"A : part", b"A: part").replace(b"A\t: inner", b"A: inner")
    assert send.content(inspector, *pieces) == want


@pytest.mark.parametrize("size", [1, 100, 10_000])
@pytest.mark.parametrize("before", [b"", b"text\r\n" * 200])
def test_headers_of_parts_behind_much_text(send: Sender, before: bytes, size: int) -> None:
    """Of a field that is too large, what follows the line with the last octet goes."""
    kind, _, parts = PARTS.replace(b" :", b":").replace(b"\t:", b":").partition(b"\r\n\r\n")
    large = b"A: " + b"y" * 400
    text = HEADER + kind + b"\r\n\r\n" + before + parts.replace(b"A: inner", large)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    got = send.content(make_inspector(), *pieces)
    assert got == text.replace(large + b"\r\n folded", large)


def test_a_message_that_is_not_in_parts_is_not_looked_into(send: Sender) -> None:
    for kind in (b"text/plain", b"message/partial", b"x/multipart"):
        data = HEADER + PARTS.replace(b"multipart/mixed", kind)
        assert send.content(make_inspector(), data) == data


LINES = (
    b"X-One: seen\r\n", b"Hop: y\r\n", b"x-ONE: folded\r\n\tseen\r\n", b"X-One : seen\r\n",
    b"X-Two: y\r\n", b"X-Three: seen\r\n", b"Message-Id: <seen@y>\r\n", b"X-\xc3\xa9: seen\r\n",
    b"X-Stop: z\r\n", b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"X-Long: " + b"x" * 400 + b"seen\r\n",
)  # fmt: skip
BOUNDARIES = b"Content-Type: multipart/mixed" + b";\r\n boundary=x" * 9 + b"\r\n"
BODY = b"\r\ntext\r\nX-One: seen\r\n--b\r\nX-One: seen\r\n\r\nwarn\r\n--b--\r\nX-Three: seen"


@pytest.mark.parametrize("strict", [False, True])
@given(
    chosen=st.lists(st.sampled_from((*LINES, BOUNDARIES)), max_size=8),
    size=st.sampled_from((7, 90, 5000)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_looking_for_texts_decides_as_field_by_field(
    send: Sender, logged: list[str], strict: bool, chosen: list[bytes], size: int
) -> None:
    header = (
        "{/^x-one: seen/ REPLACE X-One: replaced} {/folded.*seen/s WARN folded}"
        " {/^X-Three: seen/ IGNORE} {/^X-Two:/ PREPEND X-Before: two} {/^Message-Id: <seen/ WARN}"
        " {/^X-Stop:/ PASS} {/seen$/ WARN late}"
    )
    body = "{/^x-one: seen/ WARN} {/^X-Three: seen$/ REPLACE three} {/warn/ IGNORE}"
    data = b"".join((b"From: a@b.test\r\n", *chosen, BODY))
    found = []
    for table in ("pcre:{{ {} }}", "unionmap:{{ pcre:{{ {} }} }}"):
        inspector = make_inspector(
            header, body, table=table, strict_7bit_headers=strict, header_size_limit=300,
            mime_nesting_limit=3,
        )  # fmt: skip
        logged.clear()
        result = send.result(inspector, *(data[at : at + size] for at in range(0, len(data), size)))
        content = read(result)[1] if result.status == 0 else b""
        one = (str(result), content.decode("latin-1"), *logged)
        found.append([text.replace(result.queue_id, "ID") for text in one])
    assert found[0] == found[1]


def test_what_is_not_checked(send: Sender) -> None:
    inspector = make_inspector("{/./ IGNORE}", "{/./ IGNORE}")
    data = HEADER + b"\r\nbody\r\n"
    assert read(send.result(inspector, data, flags=CleanupFlag.MAP))[1] == data
    whole = make_inspector("", "", mime="{/^X-Where/ IGNORE}", disable_mime_input_processing=True)
    assert send.content(whole, MULTIPART) == MULTIPART


@pytest.mark.parametrize(
    ("action", "status", "dsn", "reason"),
    [
        ("REJECT", CleanupStatus.CONTENT, "5.7.1", "message content rejected"),
        ("REJECT no thanks", CleanupStatus.CONTENT, "5.7.1", "no thanks"),
        ("REJECT 5.7.9 no $1", CleanupStatus.CONTENT, "5.7.9", "no way"),
        ("REJECT 4.7.9 later", CleanupStatus.DEFER, "4.7.9", "later"),
        ("REJECT 5.7.9", CleanupStatus.CONTENT, "5.7.9", "message content rejected"),
    ],
)
@pytest.mark.parametrize("where", ["header", "body"])
def test_reject(
    send: Sender, logged: list[str], action: str, status: int, dsn: str, reason: str, where: str
) -> None:
    rules = f"{{/^Stop: (.*)/ {action}}} {{/^Late/ WARN}}"
    inspector = make_inspector(*((rules, "") if where == "header" else ("", rules)))
    gap = b"" if where == "header" else b"\r\n"
    data = HEADER + gap + b"Stop: way\r\nLate: a\r\n\r\nLate: b\r\n"
    result = send.result(inspector, data)
    assert (result.status, result.dsn, result.reason) == (status, dsn, reason)
    assert logged[1:] == [f"reject: {where} Stop: way{WHO}: {dsn} {reason}", "removed (canceled)"]


def test_a_status_of_success_is_none_to_reject_with(send: Sender, logged: list[str]) -> None:
    inspector = make_inspector("{/^Stop/ REJECT 2.7.9 odd}")
    result = send.result(inspector, HEADER + b"Stop: x\r\n\r\n")
    assert (result.status, result.dsn, result.reason) == (CleanupStatus.DEFER, "4.7.9", "odd")
    assert "bad DSN action in 2.7.9 odd -- need 4.x.x or 5.x.x" in logged


def test_what_affects_the_message(send: Sender, logged: list[str]) -> None:
    inspector = make_inspector(
        "{/^Hold: (.)/ HOLD $1} {/^Filter: (.*)/ FILTER $1} {/^Bcc-To:/ BCC carol@example.test}"
    )
    data = HEADER + b"Hold: a\r\nHold: b\r\nFilter: x:y\r\nFilter: x:\r\nBcc-To: z\r\n\r\nbody\r\n"
    file, content = read(send.result(inspector, data), "hold")
    assert content == data
    assert file.envelope().content_filter == "x:"
    assert [(one.address, one.notify) for one in file.recipients()] == [
        ("alice@example.test", 0),
        ("carol@example.test", int(DsnNotify.NEVER)),
    ]
    assert [line.partition(" from")[0] for line in logged[1:]] == [
        "hold: header Hold: a",
        "filter: header Filter: x:y",
        "filter: header Filter: x:",
        "bcc: header Bcc-To: z",
    ]


@pytest.mark.parametrize("action", ["PASS why", "REDIRECT bob@example.test"])
def test_actions_that_end_the_checks(send: Sender, logged: list[str], action: str) -> None:
    inspector = make_inspector(f"{{/^Stop:/ {action}}} {{/^Late:/ WARN}}", "{/body/ WARN}")
    file, _ = send.message(inspector, HEADER + b"Stop: a\r\nLate: b\r\n\r\nbody\r\n")
    verb, _, text = action.partition(" ")
    assert logged[1:] == [f"{verb.lower()}: header Stop: a{WHO}: {text}"]
    assert file.envelope().redirect == ("bob@example.test" if verb == "REDIRECT" else "")


@pytest.mark.parametrize("gap", [b"", b"\r\n"])
def test_discard(send: Sender, logged: list[str], queue: Path, gap: bytes) -> None:
    rules = "{/^Stop:/ DISCARD} {/^Late/ WARN}"
    inspector = make_inspector(rules, rules)
    data = HEADER + gap + b"Stop: a\r\nLate: b\r\n\r\nLate: c\r\n"
    result = send.result(inspector, data, flags=FILTER)
    assert result.status == 0
    assert not list((queue / "incoming").iterdir())
    where = "body" if gap else "header"
    assert logged[1:] == [f"discard: {where} Stop: a{WHO}", "removed (discarded)"]


@pytest.mark.parametrize(
    ("action", "warning"),
    [
        ("FROB x", "unknown command in header_checks map: FROB x"),
        ("450 later", "unknown command in header_checks map: 450 later"),
        ("FILTER", "missing FILTER command argument in header_checks map"),
        ("FILTER smtp", "bad FILTER command smtp in header_checks -- need transport:destination"),
        ("REDIRECT", 'bad REDIRECT target "" in header_checks map -- need user@domain'),
        ("BCC bob", 'bad BCC address "bob" in header_checks map -- need user@domain'),
    ],
)
def test_mistakes_are_warned_of(send: Sender, action: str, warning: str) -> None:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/cleanup")
    data = HEADER + b"X: a\r\n\r\nbody\r\n"
    assert send.content(make_inspector(f"{{/^X:/ {action}}}"), data) == data
    assert f"warning: {warning}" in lines


def test_a_long_line_is_looked_at_up_to_the_piece_with_the_limit(
    send: Sender, logged: list[str]
) -> None:
    inspector = make_inspector("", "{/^a/ WARN}", body_checks_size_limit=2100)
    send.content(inspector, HEADER + b"\r\n" + b"a" * 9000 + b"\r\na\r\n")
    assert len([line for line in logged if line.startswith("warning: body a")]) == 2


def test_a_table_that_does_not_answer(send: Sender) -> None:
    inspector = make_inspector("{/^X:/ }", "")
    result = send.result(inspector, HEADER + b"X: a\r\n\r\nbody\r\n")
    assert (result.status, result.dsn) == (CleanupStatus.WRITE, "4.3.0")


STRICT = [
    ("strict_7bit_headers", b"X: \xc3\xa4\r\n\r\nb\xc3\xa4\r\n",
     "improper use of 8-bit data in message header", "X: ä"),
    ("strict_8bitmime_body", b"X: \xc3\xa4\r\n\r\na\r\nb\xc3\xa4\r\n",
     "improper use of 8-bit data in message body", "bä"),
    ("strict_mime_encoding_domain",
     b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n",
     "invalid message/* or multipart/* encoding domain", "base64"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "reason", "shown"), STRICT)
def test_strictness(
    send: Sender, logged: list[str], name: str, data: bytes, reason: str, shown: str
) -> None:
    inspector = make_inspector(**{name: True})  # type: ignore[arg-type]
    result = send.result(inspector, HEADER + data)
    assert (result.status, result.dsn, result.reason) == (CleanupStatus.CONTENT, "5.6.0", reason)
    assert f"reject: mime-error {reason}: {shown}{FROM}" in logged
    off = make_inspector(**{name: True}, disable_mime_input_processing=True)  # type: ignore[arg-type]
    assert send.result(off, HEADER + data).status == 0


ENCODED = [
    (b"message/rfc822", (b"base64", b"quoted-printable")),
    (b"multipart/x", (b"base64", b"quoted-printable")),
    (b"message/partial", (b"8bit", b"binary")),
    (b"message/external-body", (b"8bit", b"binary")),
    (b"message/global", ()),
    (b"message/delivery-status", ()),
    (b"text/plain", ()),
]


@pytest.mark.parametrize(("kind", "wrong"), ENCODED)
def test_what_may_be_encoded(send: Sender, kind: bytes, wrong: tuple[bytes, ...]) -> None:
    inspector = make_inspector(strict_mime_encoding_domain=True)
    refused = []
    for encoding in (b"7bit", b"8bit", b"binary", b"base64", b"quoted-printable", b"x-other"):
        fields = b"Content-Type: %s\r\nContent-Transfer-Encoding: %s\r\n" % (kind, encoding)
        if send.result(inspector, HEADER + fields + b"\r\nx\r\n").status:
            refused.append(encoding)
    assert refused == [*wrong]


@pytest.mark.parametrize(
    ("encoding", "refused"),
    [(b"7bit", True), (b"base64", False), (b"quoted-printable", False), (b"x-other", True)],
)
def test_8bit_data_that_is_said_to_be_encoded(
    send: Sender, encoding: bytes, *, refused: bool
) -> None:
    inspector = make_inspector(strict_8bitmime=True)
    data = b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n\xc3\xa4\r\n"
    assert bool(send.result(inspector, HEADER + data).status) is refused


FAULTY: Final = (
    b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    b"X: \xc3\xa4\r\nX: \xc3\xa4\r\n\r\nwarn\r\nb\xc3\xa4\r\nwarn\r\nb\xc3\xa4\r\n"
)


def test_a_faulty_message_is_read_to_its_end(send: Sender, logged: list[str]) -> None:
    inspector = make_inspector(
        nested="{/^X/ WARN}", body="{/^warn/ WARN}",
        strict_8bitmime=True, strict_mime_encoding_domain=True,
    )  # fmt: skip
    result = send.result(inspector, HEADER + FAULTY)
    reason = "improper use of 8-bit data in message header"
    assert (result.status, result.dsn, result.reason) == (CleanupStatus.CONTENT, "5.6.0", reason)
    told = [line.partition(" from ")[0] for line in logged if WHO in line or FROM in line]
    assert told == [
        "reject: mime-error invalid message/* or multipart/* encoding domain: base64",
        "reject: mime-error improper use of 8-bit data in message header: X: ä",
        "warning: header X: ä",
        "warning: header X: ä",
        "warning: body warn",
        "reject: mime-error improper use of 8-bit data in message body: bä",
        "warning: body warn",
    ]


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"stop", CleanupStatus.CONTENT, "no"),
        (b"drop", 0, ""),
        (b"else", CleanupStatus.CONTENT, "improper use of 8-bit data in message header"),
    ],
)
def test_what_tables_say_of_a_faulty_message_counts_more(
    send: Sender, line: bytes, status: int, reason: str
) -> None:
    inspector = make_inspector(body="{/^stop/ REJECT no} {/^drop/ DISCARD}", strict_8bitmime=True)
    result = send.result(inspector, HEADER + b"X: \xc3\xa4\r\n\r\n" + line + b"\r\n")
    assert (result.status, result.reason) == (status, reason)


def nested_parts(depth: int) -> bytes:
    levels = (
        b"Content-Type: multipart/mixed; boundary=b%d.\r\n\r\n--b%d.\r\n" % (level, level)
        for level in range(depth)
    )
    return b"".join(levels) + b"\r\nx\r\n"


WITHOUT: Final = "{/^X/ WARN}"


@pytest.mark.parametrize(
    "inspector",
    [
        make_inspector(WITHOUT, mime_nesting_limit=2),
        make_inspector(mime=WITHOUT, mime_nesting_limit=2),
        make_inspector(nested=WITHOUT, mime_nesting_limit=2),
        make_inspector(strict_7bit_headers=True, mime_nesting_limit=2),
    ],
    ids=["header", "mime", "nested", "strict"],
)
def test_parts_that_are_nested_too_deep(
    send: Sender, logged: list[str], inspector: Inspector
) -> None:
    assert send.result(inspector, HEADER + nested_parts(4)).status == 0
    result = send.result(inspector, HEADER + nested_parts(5))
    reason = "MIME nesting exceeds safety limit"
    assert (result.status, result.dsn, result.reason) == (CleanupStatus.CONTENT, "5.6.0", reason)
    shown = "Content-Type: multipart/mixed; boundary=b4."
    assert f"reject: mime-error {reason}: {shown}{FROM}" in logged


def test_how_deep_parts_are_nested_does_not_matter_to_lines(send: Sender) -> None:
    inspector = make_inspector(body=WITHOUT, mime_nesting_limit=2)
    assert send.result(inspector, HEADER + nested_parts(9)).status == 0


def test_declared_8bit_data_is_no_mistake(send: Sender) -> None:
    inspector = make_inspector(strict_8bitmime=True)
    data = HEADER + b"Content-Transfer-Encoding: 8bit\r\n\r\nb\xc3\xa4\r\n"
    assert send.content(inspector, data) == data


def test_only_the_first_octets_of_a_part_are_checked(send: Sender) -> None:
    inspector = make_inspector("", "{/^edge/ REPLACE EDGE}", body_checks_size_limit=100)
    lines = [b"edge 1", b"0" * 74, *(b"edge %d" % number for number in range(2, 8))]
    content = send.content(inspector, HEADER + b"\r\n" + b"\r\n".join(lines) + b"\r\n")
    assert content.count(b"EDGE") == 4
    assert b"EDGE\r\nedge 5\r\n" in content
