"""smtp(8) tells a server whence the message came."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from libmail.agents.delivery import Deferred, Outcome, Sent
from libmail.ipc.messages import Envelope
from libmail.log import LOG
from tests.unit.daemons.smtp.bench import CLOSE, Bench, Server

OFFER = "250-sink.test\r\n250-PIPELINING\r\n250 XFORWARD NAME ADDR PROTO HELO SOURCE IDENT"
PLAIN_OFFER = "250-sink.test\r\n250 XFORWARD NAME ADDR PROTO HELO SOURCE IDENT"
CLIENT = Envelope(
    "a@example.org",
    client_name="host.example",
    client_address="192.0.2.7",
    client_port="4711",
    helo_name="helo.example",
    protocol_name="ESMTP",
    log_ident="ABC",
    rewrite_context="",
)
FIRST = "XFORWARD NAME=host.example ADDR=192.0.2.7"
SECOND = "XFORWARD PROTO=ESMTP HELO=helo.example IDENT=ABC SOURCE=REMOTE"


def deliver(folder: Path, server: Server, setting: str = "yes") -> Outcome:
    async def main() -> Outcome:
        async with server:
            bench = Bench(folder, smtp_send_xforward_command=setting)
            delivery = bench.delivery(f"[127.0.0.1]:{server.port}", envelope=CLIENT)
            outcomes = await bench.run(delivery)
            await server.all_sessions_end()
            return outcomes["b@example.org"]

    return asyncio.run(main())


@pytest.mark.parametrize("offer", [OFFER, PLAIN_OFFER], ids=["pipelining", "plain"])
def test_said_before_mail(tmp_path: Path, offer: str) -> None:
    server = Server({"EHLO": offer, "XFORWARD": "250 Ok"})
    assert isinstance(deliver(tmp_path, server), Sent)
    assert server.sessions[0][1:3] == [FIRST, SECOND]
    assert server.sessions[0][3].startswith("MAIL ")


def test_not_said_unless_wanted(tmp_path: Path) -> None:
    server = Server({"EHLO": OFFER})
    assert isinstance(deliver(tmp_path, server, "no"), Sent)
    assert not any(line.startswith("XFORWARD") for line in server.sessions[0])


def test_refusal_is_no_obstacle(tmp_path: Path) -> None:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/smtp")
    server = Server({"EHLO": OFFER, FIRST: "550 5.7.0 no", "XFORWARD": "450 4.7.0 not now"})
    assert isinstance(deliver(tmp_path, server), Sent)
    said = [line for line in lines if "said" in line]
    assert ["550 5.7.0 no (in reply to XFORWARD name/address command)" in said[0],
            "450 4.7.0 not now (in reply to XFORWARD helo/protocol command)" in said[1]] == [
        True, True]  # fmt: skip


@pytest.mark.parametrize("offer", [OFFER, PLAIN_OFFER], ids=["pipelining", "plain"])
def test_lost(tmp_path: Path, offer: str) -> None:
    outcome = deliver(tmp_path, Server({"EHLO": offer, FIRST: "250 Ok", SECOND: CLOSE}))
    assert isinstance(outcome, Deferred)
    assert outcome.reason.endswith("while sending XFORWARD protocol/helo_name")
