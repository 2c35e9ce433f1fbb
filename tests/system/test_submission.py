"""What local programs see when a message is not taken, and what the log has."""

from __future__ import annotations

import os

from tests.system.conftest import MakeSystem
from tests.system.harness import is_complete
from tests.system.processes import wait_until


def test_too_large(make_system: MakeSystem) -> None:
    system = make_system(main={"message_size_limit": "2000"})
    system.allow("File too large")
    system.allow("fatal: me@x.test.* message file too big")
    system.start()
    content = b"Subject: large\n\n" + b"x" * 70 + b"\n"
    done = system.run("sendmail", "-f", "me@x.test", "a@virtual.test", stdin=content * 10_000)
    uid = system.user.pw_uid if os.geteuid() == 0 else os.geteuid()
    assert done.returncode == 75
    assert done.stderr.decode().splitlines()[-2:] == [
        f"postdrop: warning: uid={uid}: File too large",
        f"sendmail: fatal: me@x.test({uid}): message file too big",
    ]
    assert not system.queued()
    assert not system.log_lines("bounce|warning: .*(pickup|cleanup)")


def test_too_many_hops(make_system: MakeSystem) -> None:
    system = make_system(main={"hopcount_limit": "2"})
    system.allow("hopcount exceeded")
    system.start()
    content = b"Received: x\n" * 4 + b"Subject: loops\n\nx\n"
    system.sendmail("-f", "alice@virtual.test", "a@x.test", "b@x.test", stdin=content)
    system.wait_for_queue_empty()
    system.wait_for_log("to=<alice@virtual.test>.*status=sent")
    for recipient in ("a@x.test", "b@x.test"):
        system.wait_for_log(
            f"cleanup.*: [0-9A-F]+: to=<{recipient}>, relay=none, delay=[0-9.]+, "
            "delays=[0-9.]+/0/0/0, dsn=5.4.0, status=bounced .too many hops.$"
        )


def test_milters_down(make_system: MakeSystem) -> None:
    """Mail that Milters should see is not taken by default; its sender need not keep it."""
    settings = {"non_smtpd_milters": "inet:127.0.0.1:1", "milter_default_action": "tempfail"}
    system = make_system(main=settings)
    system.allow("connect to Milter service inet:127.0.0.1:1: Connection refused")
    system.start()
    system.sendmail("a@virtual.test", stdin=b"Subject: x\n\nx\n")
    system.wait_for_log(
        "cleanup.*milter-reject: CONNECT from localhost.*: 4.7.1 Service unavailable"
    )
    assert len(list((system.top / "queue/maildrop").iterdir())) == 1


def test_a_session_on_standard_input_is_logged(make_system: MakeSystem) -> None:
    system = make_system()
    system.start()
    said = f"EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<{system.user.pw_name}@{system.name}>\r\n"
    said += "DATA\r\nSubject: x\r\n\r\nhi\r\n.\r\nBOGUS\r\nQUIT\r\n"
    heard = system.run("sendmail", "-bs", stdin=said.encode()).stdout
    assert b"250 2.0.0 Ok: queued as " in heard
    who = r"localhost\[127\.0\.0\.1\]"
    system.wait_for_log(rf"smtpd\[\d+\]: connect from {who}$")
    system.wait_for_log(rf"smtpd\[\d+\]: [0-9A-F]+: client={who}$")
    counts = "ehlo=1 mail=1 rcpt=1 data=1 quit=1 unknown=0/1 commands=5/6"
    system.wait_for_log(rf"smtpd\[\d+\]: disconnect from {who} {counts}$")
    system.wait_for_queue_empty()


def test_settings_without_effect(make_system: MakeSystem) -> None:
    system = make_system(
        main={"fork_attempts": "7"},
        master=["absent unix - - n - 1 absent"],
    )
    system.allow("fork_attempts: this parameter has no effect")
    system.allow("service absent: .*/absent: no such program")
    system.start()
    missing = "service absent: .*no such program"
    for pattern in (r"main.cf, line \d+: fork_attempts: this", missing):
        system.wait_for_log(f"warning: .*{pattern}")
        assert len(system.log_lines(pattern)) == 1


def test_verp_names_the_recipient(make_system: MakeSystem) -> None:
    system = make_system()
    system.start()
    content = b"Subject: news\n\nbody\n"
    system.sendmail("-XV", "-f", "list@x.test", "alice@virtual.test", "bob@virtual.test",
                    stdin=content)  # fmt: skip
    system.wait_for_queue_empty()
    assert system.maildir("alice")[0].startswith(b"Return-Path: <list+alice=virtual.test@x.test>\n")
    mbox = (system.top / "vmail/bob").read_bytes()
    assert mbox.startswith(b"From list+bob=virtual.test@x.test ")


def test_success_of_an_alias_is_reported(make_system: MakeSystem) -> None:
    """RFC 3461 §5.2.7.3: that the alias was expanded is all that the sender gets to know."""
    system = make_system(
        main={"virtual_alias_maps": "inline:{ {team@mail.test=bob@virtual.test a@virtual.test} }"}
    )
    system.start()
    message = b"Subject: x\n\nx\n"
    system.sendmail("-f", "alice@virtual.test", "-N", "success", "team@mail.test", stdin=message)
    system.wait_for_log("sender delivery status notification")
    system.wait_for_queue_empty()
    (report,) = system.maildir("alice")
    assert b"\n<team@mail.test>: alias expanded\n" in report
    assert b"\nAction: expanded\n" in report
    assert b"bob@virtual.test" not in report


def test_files_for_messages_that_do_not_come(make_system: MakeSystem) -> None:
    """cleanup makes them for a client that sends much, and takes them back."""
    system = make_system(main={"ipc_idle": "1s"})
    incoming = system.queue_directory / "incoming"
    system.start()
    for _ in range(3):
        with system.smtp() as client:
            for _ in range(3):
                client.sendmail("a@client.test", ["alice@virtual.test"], b"Subject: x\r\n\r\nx")
        wait_until(lambda: not list(incoming.iterdir()))
    assert len(system.maildir("alice")) == 9
    with system.smtp() as client:
        for _ in range(3):
            client.sendmail("a@client.test", ["alice@virtual.test"], b"Subject: x\r\n\r\nx")
    system.halt()
    assert [path.name for path in incoming.iterdir() if not is_complete(path)] == []
