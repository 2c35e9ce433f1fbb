"""smtpd_proxy_filter with a real SMTP server behind it: another smtpd, which checks the content."""

from __future__ import annotations

import re
import smtplib
from contextlib import closing
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.filters import GTUBE, Spampd
from tests.system.harness import MailSystem, free_port
from tests.system.processes import session_members, wait_until

MESSAGE = b"Subject: y\r\n\r\n.dot\r\n..\r\nz\r\n"
OPTIONS = pytest.mark.parametrize("options", ["", "speed_adjust"], ids=["direct", "speed_adjust"])


def system_with(make_system: MakeSystem, options: str, privileged: bool = False) -> MailSystem:
    """Mail with a certain subject is refused after the filter's smtpd has it all."""
    inner = free_port()
    system = make_system(
        main={"smtpd_proxy_filter": f"127.0.0.1:{inner}", "smtpd_proxy_options": options},
        master=[
            "checking unix n - n - 0 cleanup "
            "-o { header_checks = inline:{{Subject: forbidden=REJECT not here}} }",
            f"127.0.0.1:{inner} inet n - n - - smtpd -o smtpd_proxy_filter= "
            "-o smtpd_authorized_xforward_hosts=127.0.0.1 -o cleanup_service_name=checking "
            "-o syslog_name=postfix/inner",
        ],
        privileged=privileged,
    )
    system.start()
    return system


def delivered(system: MailSystem) -> list[bytes]:
    files: list[Path] = []

    def there() -> bool:
        files[:] = (system.top / "vmail").rglob("new/*")
        return bool(files)

    wait_until(there)
    return [path.read_bytes() for path in files]


@OPTIONS
@pytest.mark.parametrize("privileged", [False, True], ids=["rootless", "root"])
def test_answer_of_the_filter(make_system: MakeSystem, options: str, privileged: bool) -> None:
    system = system_with(make_system, options, privileged)
    with system.smtp() as client:
        client.ehlo("client.test")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("a@x.test", ["alice@virtual.test"], b"Subject: forbidden\r\n\r\nx\r\n")
        assert refused.value.args == (550, b"5.7.1 not here")
        client.sendmail("a@x.test", ["alice@virtual.test"], MESSAGE)
    (content,) = delivered(system)
    assert content.endswith(b"\n\n.dot\n..\nz\n")
    assert content.count(b"\nReceived: ") == 2
    system.wait_for_log(r"proxy-reject: END-OF-MESSAGE: 550 5.7.1 not here; from=<a@x.test>")
    system.wait_for_log(r"proxy-accept: END-OF-MESSAGE: 250 2.0.0 Ok: queued as \w+; from=<a@")
    system.wait_for_log(r"inner/smtpd.*orig_client=localhost\[127.0.0.1\]", count=2)


@OPTIONS
def test_large_mail_is_not_held_in_memory(make_system: MakeSystem, options: str) -> None:
    system = system_with(make_system, options)
    system.configure({"message_size_limit": "60000000", "virtual_mailbox_limit": "0"})
    assert system.run("postfix", "reload").returncode == 0
    body = b"0123456789abcdef" * 4 + b"\r\n"
    with system.smtp() as client:
        client.sendmail("a@x.test", ["alice@virtual.test"], b"Subject: y\r\n\r\n" + body * 600_000)
    smtpd = [process for process in session_members(system.session) if "smtpd" in process.title()]
    assert smtpd
    for process in smtpd:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s*([0-9]+) kB", status)
        assert peak is not None
        assert int(peak[1]) < 120_000


@OPTIONS
def test_spampd(make_system: MakeSystem, options: str) -> None:
    """A proxy that passes on commands, and marks spam."""
    onward = free_port()
    with closing(Spampd(onward)) as spampd:
        system = make_system(
            main={
                "smtpd_proxy_filter": f"127.0.0.1:{spampd.port}",
                "smtpd_proxy_options": options,
            },
            master=[
                f"127.0.0.1:{onward} inet n - n - - smtpd -o smtpd_proxy_filter= "
                "-o smtpd_authorized_xforward_hosts=127.0.0.1 -o syslog_name=postfix/inner "
                "-o smtpd_sender_restrictions=inline:{refused@x.test=REJECT}",
            ],
        )
        system.allow(f'proxy 127.0.0.1:{spampd.port} rejected "rcpt TO:')
        system.start()
        with system.smtp() as client:
            client.ehlo("client.test")
            for text in (MESSAGE, b"Subject: spam\r\n\r\n" + GTUBE + b"\r\n"):
                client.sendmail("a@x.test", ["alice@virtual.test"], text)
            with pytest.raises(smtplib.SMTPException):
                client.sendmail("refused@x.test", ["alice@virtual.test"], MESSAGE)
        system.wait_for_log(r"inner/smtpd.* reject: RCPT from .*: 554 5.7.1 <refused@x.test>: ")
        system.wait_for_log(r"inner/smtpd.*orig_client=localhost\[127.0.0.1\]", count=2)
        system.wait_for_queue_empty()
    clean, spam = sorted(delivered(system), key=lambda content: b"\nX-Spam-Flag: YES\n" in content)
    assert b"\nX-Spam-Status: No, " in clean
    assert clean.endswith(b"\n\n.dot\n..\nz\n")
    assert b"\nX-Spam-Status: Yes, " in spam
    assert GTUBE in spam
