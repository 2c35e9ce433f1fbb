"""smtp_reply_filter: what the tables make of a server's replies."""

from __future__ import annotations

from pathlib import Path

import pytest

from libmail.agents.delivery import Bounced, Deferred, Sent
from libmail.log import LOG
from tests.unit.daemons.smtp.bench import PLAIN_EHLO, Bench, Server
from tests.unit.daemons.smtp.test_walk import NAME, one


def bench(folder: Path, *rules: str) -> Bench:
    return Bench(folder, smtp_reply_filter="pcre:{ " + " ".join(f"{{{r}}}" for r in rules) + " }")


def test_each_line_is_replaced(tmp_path: Path) -> None:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/smtp")
    server = Server({"EHLO": PLAIN_EHLO, "RCPT": "550-5.1.1 no\r\n550 5.1.1 such user"})
    world = bench(tmp_path, r"/^550(-| )5.1.1 (.*)/ 450$${1}4.2.1 $$2")
    outcome = one(world, server)
    assert isinstance(outcome, Deferred)
    said = "450-4.2.1 no 450 4.2.1 such user"
    assert outcome.reason == f"host {NAME} said: {said} (in reply to RCPT TO command)"
    assert outcome.dsn == "4.2.1"
    words = 'replacing server reply "550-5.1.1 no" with "450-4.2.1 no"'
    assert f"{NAME}:{server.port}: {words}" in lines


def test_extensions_are_filtered(tmp_path: Path) -> None:
    server = Server()
    assert isinstance(one(bench(tmp_path, "/^250-SIZE/ 250-X-SIZE"), server), Sent)
    assert not [line for line in server.sessions[0] if "SIZE=" in line]


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."])
def test_what_is_no_reply_is_waited_out(tmp_path: Path, verb: str) -> None:
    world = Bench(tmp_path, limit=0.3, smtp_reply_filter="pcre:{{/xyzzy/ 250-there is more}}")
    outcome = one(world, Server({"EHLO": PLAIN_EHLO, verb: "250 xyzzy"}))
    assert isinstance(outcome, Deferred)
    assert outcome.dsn == "4.4.2"
    assert " timed out while " in outcome.reason


def test_a_table_that_fails_is_our_trouble(tmp_path: Path) -> None:
    outcome = one(Bench(tmp_path, smtp_reply_filter="fail:x"), Server())
    assert isinstance(outcome, Deferred)
    text = f"local data error while talking to {NAME}"
    assert (outcome.dsn, outcome.reason) == ("4.3.0", text)


def test_success_can_become_failure(tmp_path: Path) -> None:
    outcome = one(bench(tmp_path, "/queued as/ 554 5.7.1 not wanted"), Server())
    assert isinstance(outcome, Bounced)
    assert outcome.dsn == "5.7.1"
