"""Limits of clients hold over all processes of a service together, to the last one."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.processes import PATIENCE

PROCESSES = 20
EACH = 10  # attempts in each session
LIMIT = 77


def mail(client: smtplib.SMTP) -> bool:
    """One message more, as it is counted."""
    taken = client.mail("a@client.test")[0] == 250
    client.rset()
    return taken


def recipient(client: smtplib.SMTP) -> bool:
    """One recipient more, of the same message."""
    client.mail("a@client.test")  # or it is another one of the same message
    return client.rcpt("alice@virtual.test")[0] == 250


@pytest.mark.parametrize(
    ("limit", "attempt", "warning"),
    [
        ("message", mail, "Message delivery request rate limit exceeded"),
        ("recipient", recipient, "Recipient address rate limit exceeded"),
    ],
)
def test_over_twenty_processes(
    make_system: MakeSystem, limit: str, attempt: Callable[[smtplib.SMTP], bool], warning: str
) -> None:
    system = make_system(
        main={
            f"smtpd_client_{limit}_rate_limit": str(LIMIT),
            "smtpd_client_event_limit_exceptions": "",
            "smtpd_client_connection_count_limit": "0",
            "smtpd_error_sleep_time": "0",
            "smtpd_hard_error_limit": "1000",
            "smtpd_junk_command_limit": "1000",
            "smtpd_sessions_per_process": "1",
            "anvil_rate_time_unit": "1d",
        }
    )
    system.allow("rate limit exceeded")
    system.start()
    all_there = Barrier(PROCESSES)

    def session(_: int) -> int:
        with system.smtp() as client:
            client.ehlo()
            all_there.wait(PATIENCE)
            return sum(attempt(client) for _ in range(EACH))

    with ThreadPoolExecutor(PROCESSES) as pool:
        assert sum(pool.map(session, range(PROCESSES))) == LIMIT
    assert processes(system) == PROCESSES
    refused = PROCESSES * EACH - LIMIT
    system.wait_for_log(warning, count=refused)
    numbers = re.findall(rf"{warning}: (\d+) from", system.log_text())
    assert sorted(map(int, numbers)) == list(range(LIMIT + 1, PROCESSES * EACH + 1))


def test_connections_of_twenty_processes(make_system: MakeSystem) -> None:
    limit = 13
    system = make_system(
        main={
            "smtpd_client_connection_count_limit": str(limit),
            "smtpd_client_event_limit_exceptions": "",
            "smtpd_sessions_per_process": "1",
        }
    )
    system.allow("Connection concurrency limit exceeded")
    system.start()
    all_there = Barrier(PROCESSES)

    def session(_: int) -> bool:
        with smtplib.SMTP(timeout=PATIENCE) as client:
            code = client.connect("127.0.0.1", system.smtp_port)[0]
            all_there.wait(PATIENCE)
            return code == 220

    with ThreadPoolExecutor(PROCESSES) as pool:
        assert sum(pool.map(session, range(PROCESSES))) == limit
    system.wait_for_log("Connection concurrency limit exceeded", count=PROCESSES - limit)


def processes(system: MailSystem) -> int:
    """How many smtpd have had clients."""
    return len(set(re.findall(r"smtpd\[(\d+)\]: connect from", system.log_text())))
