"""header_checks and body_checks in a running system, and headers without end."""

from __future__ import annotations

import smtplib
import socket
import threading

import pytest

from tests.system.conftest import MakeSystem
from tests.unit.waiting import PATIENCE

HEADER_CHECKS = (
    "pcre:{ {/^Subject: stop (.*)/ REJECT 5.7.9 no $$1} {/^Subject: wait/ HOLD}"
    " {/^X-Gone:/ IGNORE} {/^Subject: drop/ DISCARD} }"
)
BODY_CHECKS = "pcre:{ {/^bad word/ REJECT} {/^(.*) black/ REPLACE $$1 white} }"


def test_what_rules_say(make_system: MakeSystem) -> None:
    system = make_system(main={"header_checks": HEADER_CHECKS, "body_checks": BODY_CHECKS})
    system.start()
    with system.smtp() as client:

        def send(content: bytes) -> None:
            client.sendmail("a@client.test", ["alice@virtual.test"], content)

        with pytest.raises(smtplib.SMTPDataError) as refused:
            send(b"Subject: stop it\r\n\r\nbody\r\n")
        assert (refused.value.smtp_code, refused.value.smtp_error) == (550, b"5.7.9 no it")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send(b"Subject: x\r\n\r\nbad word\r\n")
        assert refused.value.smtp_error == b"5.7.1 message content rejected"
        send(b"Subject: drop\r\n\r\nbody\r\n")
        send(b"Subject: wait\r\n\r\nbody\r\n")
        send(b"Subject: good\r\nX-Gone: yes\r\n\r\nis black\r\n")
    system.sendmail(
        "-f", "bob@virtual.test", "alice@virtual.test", stdin=b"Subject: stop me\n\nx\n"
    )
    system.wait_for_log("to=<bob@virtual.test>.*status=sent")
    system.wait_for_log("to=<alice@virtual.test>.*status=sent")
    (mail,) = system.maildir("alice")
    assert b"Subject: good\n" in mail
    assert b"X-Gone" not in mail
    assert mail.endswith(b"\n\nis white\n")
    assert len(system.queued()) == 1  # on hold
    assert b"no me" in (system.top / "vmail/bob").read_bytes()


def test_a_header_without_end_stops_nobody(make_system: MakeSystem) -> None:
    """4 MB of continuation lines, then small pieces that each might have them read again."""
    system = make_system(main={"message_size_limit": "0"})
    system.start()
    attacker = socket.create_connection(("127.0.0.1", system.smtp_port), PATIENCE)
    over = threading.Event()

    def attack() -> None:
        try:
            attacker.sendall(b"EHLO x\r\nMAIL FROM:<a@client.test>\r\n")
            attacker.sendall(b"RCPT TO:<alice@virtual.test>\r\nDATA\r\n")
            while b"354 " not in attacker.recv(1000):
                pass
            attacker.sendall(b"X: y\r\n" + b" \r\n" * 1_300_000)
            while not over.is_set():
                attacker.sendall(b" " * 14 + b"\r\n")
        except OSError:
            return

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        for _ in range(20):
            with system.smtp() as client:
                client.sendmail("b@client.test", ["bob@virtual.test"], b"Subject: x\r\n\r\nx\r\n")
    finally:
        over.set()
        attacker.shutdown(socket.SHUT_RDWR)
        attacker.close()
        thread.join()
    system.wait_for_log("to=<bob@virtual.test>.*status=sent", count=20)
