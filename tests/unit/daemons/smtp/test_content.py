"""Content on its way out: lines, 7-bit conversion, mapped addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemons.smtp.checks import ContentChecks
from daemons.smtp.content import Content, LineBreaker, stuff_dots
from daemons.smtp.generic import GenericMaps
from libmail.ipc.messages import Envelope, QueueId, Recipient
from libmail.lookup.content_checks import CheckTables
from libmail.lookup.rewriting import Rewriter
from libmail.message.downgrade import Edit, LineEdits
from libmail.message.mime import MimeLimits
from libmail.net.wire import Wire
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFile, QueueFileWriter
from libmail.tables.maps import Maps
from libmail.tables.match import StringList
from tests.unit.daemons.smtp.bench import REWRITE

TEXT = st.lists(
    st.sampled_from([b"a", b".", b"\r\n", b"\n", b"=", b" ", b"\xc3\xa9", b"abcdefgh" * 4]),
    max_size=40,
).map(b"".join)


def edited(pieces: Iterable[bytes], *edits: Edit) -> bytes:
    lines = LineEdits(edits)
    return b"".join([lines.feed(piece) for piece in pieces]) + lines.end()


@settings(max_examples=200, deadline=None)
@given(TEXT, st.integers(1, 9))
def test_pieces_do_not_matter(data: bytes, size: int) -> None:
    edits = (LineBreaker(20), stuff_dots)
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    assert edited(pieces, *edits) == edited([data], *edits)


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_content_cannot_end_the_message(data: bytes) -> None:
    sent = edited([data], stuff_dots)
    assert b"\n.\r\n" not in b"\n" + sent + b"\r\n"
    assert b"\n.\n" not in b"\n" + sent + b"\r\n"


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_broken_lines(data: bytes) -> None:
    data = data.replace(b"\n", b"").replace(b"\r", b"")
    sent = LineBreaker(20)(data + b"\r\n")
    assert sent.replace(b"\r\n ", b"") == data + b"\r\n"
    assert max(map(len, sent.split(b"\r\n"))) <= 20


def generic(*pairs: str) -> GenericMaps:
    text = " ".join(f"{{{pair}}}" for pair in pairs)
    return GenericMaps(
        Maps("smtp_generic_maps", f"inline:{{ {text} }}"),
        Rewriter(REWRITE),
        delimiters="+",
        propagate=True,
        origin="other.test",
        local=StringList("mydestination", ["in.test"]),
    )


MAPPED = [
    ("a@in.test", "a.out@isp.test"),
    ("a+x@in.test", "a.out+x@isp.test"),
    ("bob@in.test", "bob@isp.test"),
    ("c@other.test", "c@other.test"),
    ("", ""),
]


@pytest.mark.parametrize(("address", "want"), MAPPED)
def test_generic(address: str, want: str) -> None:
    maps = generic("a@in.test=a.out@isp.test", "@in.test=@isp.test")
    assert asyncio.run(maps.map(address)) == want


RESULTS = [
    ("short", "short@in.test"),
    ("short@host", "short@host"),
    ('"quo ted"', "quo ted@in.test"),
    ('"quo@ted"', "quo@ted@in.test"),
    ("@other.test", "a@other.test"),
    ("x@y.z, b@c.d", "x@y.z"),
    ("short%host", "short@host"),
    ("host!short", "short@host"),
    ("<br@ack.et>", "br@ack.et"),
    ("(c) co@mm.ent", "co@mm.ent"),
]


@pytest.mark.parametrize(("result", "want"), RESULTS)
def test_generic_results_are_completed(result: str, want: str) -> None:
    assert asyncio.run(generic(f"a@x.test = {result}").map("a@x.test")) == want


def test_generic_header() -> None:
    maps = generic("a@in.test=a.out@isp.test", "@in.test=@isp.test")
    header = b"From: Al <a@in.test>\r\nTo: x@y.test,\r\n b@in.test\r\nSubject: a@in.test\r\n"
    assert asyncio.run(maps.map_header(header)) == (
        b"From: Al <a.out@isp.test>\r\nTo: x@y.test, b@isp.test\r\nSubject: a@in.test\r\n"
    )
    assert asyncio.run(maps.map_header(b"From: x@y.test\r\n")) is None


@pytest.mark.parametrize("checked", [False, True])
def test_others_have_their_turn_in_a_header_of_many_fields(*, checked: bool) -> None:
    maps, turns = generic("a@b=c@d"), 0
    nothing = Maps("smtp_nested_header_checks", "")
    rules = Maps("smtp_header_checks", "pcre:{{/^b/ IGNORE}}")
    tables = CheckTables(rules, nothing, nothing, nothing)
    limits = MimeLimits(100, 2048, 102400, lambda text: text)
    checks = ContentChecks(tables, limits, line_limit=2048).begin(QueueId("A"), maps, convert=False)
    header = b"a:\r\n" * 10_000

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(others())
        if checked:
            assert await checks.header(header) == header
        else:
            assert await maps.map_header(header) is None
        task.cancel()

    asyncio.run(main())
    assert turns >= 20


class _CopyingWire:
    """Fails when it is to send what is in a file."""

    def __init__(self) -> None:
        self.sent = b""

    def send_at_once(self) -> None:
        pass

    async def send_all(self, data: bytes, phase: object) -> None:
        self.sent += data


def test_a_file_that_may_be_used_again_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the header is another: a server could read late what sendfile(2) has queued."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "active").mkdir()
    writer = QueueFileWriter(QueueDirectory(), "active", long_ids=True)
    writer.write_header(b"Subject: x\r\n")
    writer.write_body(b"\r\nbody\r\n")
    writer.complete(Envelope("a@x.test"), [Recipient("b@x.test")], ContentFlag(0))
    writer.close()
    wire = _CopyingWire()
    with QueueFile(writer.path) as file:
        content = Content(file, header=b"Subject: y\r\n")
        asyncio.run(content.send(cast(Wire, wire), b""))
    assert wire.sent == b"Subject: y\r\n\r\nbody\r\n.\r\n"
