"""virtual(8): one process delivers to many mailboxes at a time."""

from __future__ import annotations

import fcntl
import os
import re

from tests.system.conftest import MakeSystem

MESSAGE = b"Subject: x\r\n\r\nx\r\n"


def test_a_mailbox_that_is_stuck_holds_up_no_other(make_system: MakeSystem) -> None:
    system = make_system(
        main={
            "virtual_mailbox_lock": "fcntl",
            "deliver_lock_attempts": "1000",
            "virtual_destination_recipient_limit": "1",
        }
    )
    mailbox = system.top / "vmail/bob"
    mailbox.touch()
    os.chown(mailbox, system.user.pw_uid, system.user.pw_gid)
    system.start()
    with mailbox.open("ab") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        for _ in range(3):
            system.send("a@client.test", ["bob@virtual.test"], MESSAGE)
        for _ in range(3):
            system.send("a@client.test", ["alice@virtual.test"], MESSAGE)
        system.wait_for_log("to=<alice@virtual.test>.*status=sent", count=3)
        assert system.log_lines("to=<bob@virtual.test>") == []
    system.wait_for_log("to=<bob@virtual.test>.*status=sent", count=3)
    assert mailbox.read_bytes().count(b"\nSubject: x\n") == 3
    processes = re.findall(r"/virtual\[(\d+)\]: .*status=sent", system.log_text())
    assert len(processes) == 6
    assert len(set(processes)) == 1
