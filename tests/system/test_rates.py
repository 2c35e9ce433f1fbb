"""Limits of clients hold over all processes of a service together, to the last one."""

from __future__ import annotations

import base64
import contextlib
import re
import smtplib
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from libmail.sasl.passwords import hash_password
from tests.certificates import Authority
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.processes import PATIENCE

PROCESSES = 20
EACH = 10  # attempts in each session
LIMIT = 77
WRONG = base64.b64encode(b"\0anna\0wrong").decode()
LOGINS = {
    "smtpd_sasl_auth_enable": "yes",
    "smtpd_sasl_type": "table",
    "smtpd_sasl_path": f"inline:{{ {{anna={hash_password('right')}}} }}",
    "smtpd_sasl_failure_limit": "0",
    "notify_classes": "",
}


def mail(client: smtplib.SMTP) -> bool:
    """One message more, as it is counted."""
    taken = client.mail("a@client.test")[0] == 250
    client.rset()
    return taken


def recipient(client: smtplib.SMTP) -> bool:
    """One recipient more, of the same message."""
    client.mail("a@client.test")  # or it is another one of the same message
    return client.rcpt("alice@virtual.test")[0] == 250


def login(client: smtplib.SMTP) -> bool:
    """One wrong password more."""
    return client.docmd("AUTH", f"PLAIN {WRONG}")[0] == 535


def limited(make_system: MakeSystem, limit: str, number: int, **more: str) -> MailSystem:
    """A system whose processes serve one client each, of whom there is one limit."""
    return make_system(
        main={
            "smtpd_client_event_limit_exceptions": "",
            "smtpd_client_connection_count_limit": "0",
            f"smtpd_client_{limit}_limit": str(number),
            "smtpd_error_sleep_time": "0",
            "smtpd_hard_error_limit": "1000",
            "smtpd_junk_command_limit": "1000",
            "sessions_per_process": "1",
            "anvil_rate_time_unit": "1d",
            **more,
        }
    )


@pytest.mark.parametrize(
    ("limit", "attempt", "warning", "more"),
    [
        ("message_rate", mail, "Message delivery request rate limit exceeded", {}),
        ("recipient_rate", recipient, "Recipient address rate limit exceeded", {}),
        ("auth_rate", login, "AUTH command rate limit exceeded", LOGINS),
    ],
    ids=["messages", "recipients", "logins"],
)
def test_over_twenty_processes(
    make_system: MakeSystem,
    limit: str,
    attempt: Callable[[smtplib.SMTP], bool],
    warning: str,
    more: dict[str, str],
) -> None:
    system = limited(make_system, limit, LIMIT, **more)
    system.allow("rate limit exceeded")
    system.allow("authentication failed")
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
    assert_refused(system, warning, LIMIT, PROCESSES * EACH)


def test_connections_of_twenty_processes(make_system: MakeSystem) -> None:
    limit = 13
    system = limited(make_system, "connection_count", limit)
    system.allow("Connection concurrency limit exceeded")
    system.start()
    all_there = Barrier(PROCESSES)

    def session(_: int) -> bool:
        with smtplib.SMTP(timeout=PATIENCE) as client:
            code = client.connect("127.0.0.1", system.smtp_port)[0]
            all_there.wait(PATIENCE)
            return code == 220

    for begun in (1, 2):  # those that have ended count no more
        with ThreadPoolExecutor(PROCESSES) as pool:
            assert sum(pool.map(session, range(PROCESSES))) == limit
        system.wait_for_log("disconnect from", count=begun * PROCESSES)
    system.wait_for_log("Connection concurrency limit exceeded", count=2 * (PROCESSES - limit))


def test_connection_rate_of_twenty_processes(make_system: MakeSystem) -> None:
    system = limited(make_system, "connection_rate", LIMIT)
    system.allow("Connection rate limit exceeded")
    system.start()
    all_there = Barrier(PROCESSES)

    def connect() -> bool:
        with smtplib.SMTP(timeout=PATIENCE) as client:
            return client.connect("127.0.0.1", system.smtp_port)[0] == 220

    def session(_: int) -> int:
        with system.smtp():
            all_there.wait(PATIENCE)
            return 1 + sum(connect() for _ in range(EACH - 1))

    with ThreadPoolExecutor(PROCESSES) as pool:
        assert sum(pool.map(session, range(PROCESSES))) == LIMIT
    assert processes(system) >= PROCESSES
    assert_refused(system, "Connection rate limit exceeded", LIMIT, PROCESSES * EACH)


def test_new_tls_sessions_of_twenty_processes(make_system: MakeSystem, tmp_path: Path) -> None:
    """A handshake beyond the limit is refused within TLS; the next ones are not begun."""
    limit = 13
    system = limited(make_system, "new_tls_session_rate", limit, smtpd_tls_security_level="may")
    issued = Authority(tmp_path).issue("mail.test", "mail.test").chain
    chain = system.config_directory / "chain.pem"
    chain.write_bytes(issued.read_bytes())
    system.configure({"smtpd_tls_chain_files": str(chain)})
    system.allow("New TLS session rate limit exceeded")
    system.allow("Refusing STARTTLS request")
    system.start()
    all_there = Barrier(PROCESSES)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def session(_: int) -> bool:
        with contextlib.closing(system.smtp()) as client:
            client.ehlo()
            all_there.wait(PATIENCE)
            try:
                client.starttls(context=context)
                return client.ehlo()[0] == 250
            except smtplib.SMTPException:
                return False

    with ThreadPoolExecutor(PROCESSES) as pool:
        assert sum(pool.map(session, range(PROCESSES))) == limit
    assert processes(system) == PROCESSES
    system.wait_for_log("(New TLS session rate limit exceeded|Refusing STARTTLS request)",
                        count=PROCESSES - limit)  # fmt: skip


def processes(system: MailSystem) -> int:
    """How many smtpd have had clients."""
    return len(set(re.findall(r"smtpd\[(\d+)\]: connect from", system.log_text())))


def assert_refused(system: MailSystem, warning: str, limit: int, attempts: int) -> None:
    """Each that was refused has a number of its own, the first one that of the limit plus one."""
    system.wait_for_log(warning, count=attempts - limit)
    numbers = re.findall(rf"{warning}: (\d+) from", system.log_text())
    assert sorted(map(int, numbers)) == list(range(limit + 1, attempts + 1))
