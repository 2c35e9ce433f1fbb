"""smtp_header_checks and its kin in a delivery."""

from __future__ import annotations

import asyncio
from pathlib import Path

from daemons.smtp.checks import ContentChecks
from daemons.smtp.generic import GenericMaps
from daemons.smtp.outgoing import Outgoing
from daemons.smtp.walk import Walk
from libmail.agents.delivery import Deferred, Outcome, Sent
from libmail.log import LOG
from libmail.lookup.content_checks import CheckTables
from libmail.lookup.rewriting import Rewriter
from libmail.queue.file import ContentFlag
from libmail.tables.maps import Maps
from libmail.tables.match import StringList
from tests.unit.daemons.smtp.bench import EHLO, REWRITE, Bench, RecordedDelivery, Server
from tests.unit.daemons.smtp.test_walk import NAME

HEADER = b"Subject: x\r\nFrom: a@in\r\nContent-Type: multipart/mixed; boundary=b\r\n"
BODY = b"\r\n--b\r\nX-Part: 1\r\n\r\ngr\xc3\xbcn\r\nline\r\n--b--\r\n"


def deliver(
    folder: Path,
    server: Server,
    header: str = "",
    body: str = "",
    *,
    eightbit: int = 0,
    content: tuple[bytes, bytes] = (HEADER, BODY),
) -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/smtp")
    bench = Bench(folder)
    titles = ("header", "mime_header", "nested_header", "body")
    specs = (header, header, header, body)
    tables = [Maps(f"smtp_{t}_checks", spec) for t, spec in zip(titles, specs, strict=True)]
    checks = ContentChecks(CheckTables(*tables), bench.settings.mime_limits, line_limit=2048)
    generic = GenericMaps(
        Maps("smtp_generic_maps", "inline:{a@in=a@out}"),
        Rewriter(REWRITE),
        delimiters="", propagate=False, origin="", local=StringList("mydestination", []),
    )  # fmt: skip

    async def main() -> Outcome:
        async with server:
            delivery = bench.delivery(
                f"[127.0.0.1]:{server.port}",
                header=content[0],
                body=content[1],
                content_flags=eightbit,
            )
            outgoing = Outgoing(delivery, bench.settings, {}, None, checks, generic)
            with delivery.file:
                await Walk(bench.client, delivery, outgoing).run()
            assert isinstance(delivery, RecordedDelivery)
            return delivery.outcomes["b@example.org"]

    return asyncio.run(main()), lines


def test_header_only(tmp_path: Path) -> None:
    server = Server()
    rules = "pcre:{{/^Subject: (.*)/ REPLACE .Subject: $1} {/^X-/ IGNORE} {/^From: a@in/ INFO}}"
    outcome, lines = deliver(tmp_path, server, rules)
    assert isinstance(outcome, Sent)
    header = HEADER.replace(b"Subject", b"..Subject").replace(b"a@in", b"a@out")
    assert server.contents == [header + BODY.replace(b"X-Part: 1\r\n", b"")]
    assert any(line.endswith(": info: header From: a@in") for line in lines)


def test_body_that_begins_with_a_dot(tmp_path: Path) -> None:
    server = Server()
    outcome, lines = deliver(tmp_path, server, body="pcre:{{/^line$/ REPLACE .} {/--b/ INFO b}}")
    assert isinstance(outcome, Sent)
    header = HEADER.replace(b"a@in", b"a@out")
    assert server.contents == [header + BODY.replace(b"line", b"..")]
    assert [line.partition(": ")[2] for line in lines if ": info: " in line] == [
        "info: body --b: b", "info: body --b--: b",
    ]  # fmt: skip


CONVERTED = (
    HEADER + b"X: y\r\nContent-Transfer-Encoding: 7bit\r\n",
    b"\r\n--b\r\nX-Part: 1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ngr=C3=BCn\r\n"
    b"--b--\r\n",
)


def test_rules_see_the_content_that_the_server_gets(tmp_path: Path) -> None:
    server = Server({"EHLO": "250-mx\n250 SIZE"})
    wide = b"Content-Transfer-Encoding: 8bit\r\n"
    header = HEADER + wide + b"X: y\r\n"
    body = b"\r\n--b\r\nX-Part: 1\r\n" + wide + b"\r\ngr\xc3\xbcn\r\n--b--\r\n"
    outcome, lines = deliver(
        tmp_path, server, "pcre:{{/^Content-Trans/ INFO}}", "pcre:{{/^gr/ INFO}}",
        eightbit=int(ContentFlag.EIGHTBIT_BODY), content=(header, body),
    )  # fmt: skip
    assert isinstance(outcome, Sent)
    want = b"".join(CONVERTED).replace(b"a@in", b"a@out")
    assert server.contents == [want]
    assert [line.partition(": ")[2] for line in lines if ": info: " in line] == [
        "info: header Content-Transfer-Encoding: 7bit",
        "info: header Content-Transfer-Encoding: quoted-printable",
        "info: body gr=C3=BCn",
    ]


def test_unsupported_action(tmp_path: Path) -> None:
    server = Server()
    outcome, lines = deliver(tmp_path, server, "pcre:{{/^Subject/ REJECT no}}")
    assert isinstance(outcome, Sent)
    assert "unsupported command in smtp_header_checks map: REJECT no" in lines[0]


def test_a_table_that_fails_never_ends_the_message(tmp_path: Path) -> None:
    for tables in (("fail:x", ""), ("", "fail:x")):
        server = Server({"EHLO": EHLO})
        outcome, lines = deliver(tmp_path, server, *tables)
        assert isinstance(outcome, Deferred)
        assert outcome.reason == f"local data error while talking to {NAME}"
        assert server.contents == []
        assert any(line.endswith(" checks lookup error") for line in lines)
