"""Tools that read the log of Postfix understand ours: pflogsumm, fail2ban."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from typing import Final

import pytest

from tests.log_patterns import known_to
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port, need_tool
from tests.system.processes import PATIENCE

CONTENT: Final = b"Subject: x\r\n\r\nx\r\n"

TOTAL: Final = re.compile(
    r"^ +(\d+) +(received|delivered|forwarded|deferred|bounced|rejected|reject warnings|held|"
    r"discarded)\b",
    re.MULTILINE,
)
# fail2ban's modes, and how many of the lines each finds.
MODES: Final = {
    "more": 3 + 1,  # refused recipients, a short name
    # Before 1.1.1 it does not know the queue id, or NOQUEUE, that Postfix 3.12 puts in front of
    # "too many errors" and "lost connection".
    "errors": 0,
    "ddos": 0,
    "aggressive": 3 + 1,
}


def busy(make_system: MakeSystem, **main: str) -> MailSystem:
    """With some of everything in its log."""
    system = make_system(
        main={
            **main,
            "mynetworks": "127.0.0.2/32",
            "relay_domains": "down.test error.test",
            "smtpd_helo_required": "yes",
            "smtpd_helo_restrictions": "reject_invalid_helo_hostname reject_non_fqdn_helo_hostname",
            "smtpd_hard_error_limit": "3",
            "smtpd_error_sleep_time": "0",
            # The tools of today do not know what Postfix 3.11 and later add to status lines.
            "smtp_log_tls_feature_status": "no",
        }
    )
    system.route("down.test", f"smtp:[127.0.0.1]:{free_port()}")
    system.route("error.test", "error:5.1.1 no such user")
    system.start()
    system.send("a@client.test", ["alice@virtual.test"], CONTENT)
    system.send("a@client.test", ["alice@virtual.test", "bob@virtual.test"], CONTENT)
    system.send("a@client.test", ["x@down.test"], CONTENT)
    system.sendmail("-f", "alice@virtual.test", "x@error.test", stdin=CONTENT)
    refused = ("x@elsewhere.test", "nosuch@virtual.test", "nosuch@mail.test")
    talk(system, "EHLO client.test", "MAIL FROM:<a@c.test>", *(f"RCPT TO:<{x}>" for x in refused))
    talk(system, "EHLO short", "MAIL FROM:<a@c.test>", "RCPT TO:<alice@virtual.test>", "QUIT")
    talk(system, "EHLO client.test", "RSET")
    system.wait_for_log("status=deferred")
    system.wait_for_log("status=sent", count=4)
    system.wait_for_log(r": removed\b", count=4)
    system.wait_for_log("disconnect from", count=6)
    return system


@pytest.fixture
def system(make_system: MakeSystem) -> MailSystem:
    return busy(make_system)


def talk(system: MailSystem, *commands: str) -> None:
    """Gives commands one after the other, and goes away without a word."""
    with socket.create_connection(("127.0.0.1", system.smtp_port), PATIENCE) as client:
        stream = client.makefile("rwb")
        for command in ("", *commands):
            stream.write(f"{command}\r\n".encode() if command else b"")
            stream.flush()
            while (line := stream.readline())[3:4] == b"-":
                pass
            assert line
        stream.close()


def test_pflogsumm(system: MailSystem) -> None:
    command = [need_tool("pflogsumm"), str(system.log)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    totals = {name: int(number) for number, name in TOTAL.findall(done.stdout)}
    assert totals == {
        "received": 4,
        "delivered": 4,
        "forwarded": 0,
        "deferred": 1,
        "bounced": 1,
        "rejected": 4,
        "reject warnings": 0,
        "held": 0,
        "discarded": 0,
    }


def test_fail2ban(system: MailSystem) -> None:
    """Its own filter for Postfix finds the lines in each mode."""
    tool = need_tool("fail2ban-regex")
    found = {}
    for mode in MODES:
        done = subprocess.run(
            [tool, str(system.log), f"postfix[mode={mode}]"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        match = re.search(r"(\d+) matched", done.stdout)
        assert match, done.stdout + done.stderr
        found[mode] = int(match[1])
    assert found == MODES


def test_what_tools_know_is_an_event(make_system: MakeSystem) -> None:
    """In the JSON form every line that a tool looks for has the name of its kind, and fields."""
    system = busy(make_system, maillog_format="json")
    lines = [json.loads(line) for line in system.log.read_text().splitlines()]
    free = [
        line["text"]
        for line in lines
        if "event" not in line and known_to(line["text"].removeprefix("warning: "))
    ]
    assert free == []
    kinds = {line["event"] for line in lines if "event" in line}
    assert kinds >= {
        "ClientLine", "ConnectFailed", "ConnectLine", "DaemonStarted", "DeliveryStatus",
        "DisconnectLine", "MessageId", "Pickup", "QueueActive", "QueueRemoved", "SessionLine",
    }  # fmt: skip
