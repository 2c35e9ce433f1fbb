"""Recipients that make trouble: what they get is bounced or waits, and nobody else is disturbed."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Final

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.processes import wait_until

CONTENT: Final = b"Subject: x\r\n\r\n" + b"a line of text\r\n" * 20


def is_served(system: MailSystem, count: int = 1) -> None:
    """An ordinary mailbox gets its mail."""
    before = len(system.log_lines("to=<alice@virtual.test>.*status=sent"))
    for _ in range(count):
        system.send("", ["alice@virtual.test"], CONTENT)
    system.wait_for_log("to=<alice@virtual.test>.*status=sent", count=before + count)


def test_mailboxes_over_their_limits(make_system: MakeSystem) -> None:
    """An mbox file, and a Maildir message, that may not become larger."""
    system = make_system(
        main={
            "message_size_limit": "100000",
            "mailbox_size_limit": "100000",
            "virtual_mailbox_limit": "100000",
        }
    )
    me = system.user.pw_name
    system.start()
    large = b"Subject: x\r\n\r\n" + b"a line of text\r\n" * 4000
    for _ in range(2):
        system.send("", [f"{me}@mail.test", "bob@virtual.test"], large)
    system.wait_for_log(f"to=<{me}@mail.test>.*dsn=5.2.2.*status=bounced .*File too large")
    system.wait_for_log("to=<bob@virtual.test>.*dsn=5.2.2.*status=bounced .*File too large")
    is_served(system)
    system.wait_for_queue_empty()
    for mailbox in (system.mailbox, system.top / "vmail/bob"):
        content = mailbox.read_bytes()
        assert content.count(b"Subject: x") == 1
        assert content.endswith(b"a line of text\n\n")


def test_commands_that_hang(make_system: MakeSystem) -> None:
    """More of them than one recipient may have processes: other users of local go on."""
    system = make_system()
    me, gate = system.user.pw_name, system.top / "home/gate"
    command = f"while ! test -e {gate}; do sleep 0.1; done"
    system.configure({"alias_maps": f'inline:{{ {{slow="|{command}"}} {{other={me}}} }}'})
    system.start()
    for _ in range(5):
        system.send("", ["slow@mail.test"], CONTENT)
    for _ in range(3):
        system.send("", ["other@mail.test"], CONTENT)
    system.wait_for_log("to=<.*other@mail.test>.*status=sent", count=3)
    is_served(system)
    assert not system.log_lines("to=<slow@")
    gate.touch()
    system.wait_for_log("to=<slow@.*status=sent", count=5)
    system.wait_for_queue_empty()


LOOPS: Final = {
    "each other": "{a=b} {b=a}",
    "itself": "{a=a}",
    "itself and another": "{a=a, alice@virtual.test}",
    "through a file": "{a=:include:LIST}",
    "by another domain": "{a=a@localhost}",
}


@pytest.mark.parametrize("entries", LOOPS.values(), ids=LOOPS.keys())
def test_aliases_in_a_loop(make_system: MakeSystem, entries: str) -> None:
    """They end: bounced, or delivered to what else they name."""
    system = make_system()
    system.allow("nesting limit exceeded|loop|required alias not found|cannot find alias")
    members = system.config_directory / "list"
    members.write_text("a@mail.test\nalice@virtual.test\n")
    entries = entries.replace("LIST", str(members))
    system.configure({"alias_maps": f"inline:{{ {entries} }}"})
    system.start()
    system.send("bob@virtual.test", ["a@mail.test"], CONTENT)
    is_served(system)
    system.wait_for_queue_empty()
    delivered = [b"Subject: x" in content for content in system.maildir("alice")]
    wanted = 1 + ("alice" in entries or "include" in entries)
    assert len(delivered) == wanted
    assert len(system.log_lines(": removed$")) < 100


@pytest.mark.root
def test_forward_files_in_a_loop(make_system: MakeSystem, short_tmp: Path) -> None:
    """Two users who forward to each other: the sender gets the message back, once."""
    system = make_system(privileged=True)
    system.allow("loop")
    system.configure({"forward_path": f"{short_tmp}/$user"})
    users = [pwd.getpwnam("games"), pwd.getpwnam("news")]
    for user, other in zip(users, reversed(users), strict=True):
        path = short_tmp / user.pw_name
        path.write_text(f"{other.pw_name}\n")
        os.chown(path, user.pw_uid, user.pw_gid)
    system.start()
    system.send("alice@virtual.test", ["games@mail.test"], CONTENT)
    wait_until(lambda: (system.top / "vmail/alice/new").is_dir(), system.end_of_log)
    system.wait_for_queue_empty()
    (bounce,) = system.maildir("alice")
    assert b"mail forwarding loop for games@mail.test" in bounce
    is_served(system)
