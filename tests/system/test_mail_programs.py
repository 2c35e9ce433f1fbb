"""Programs around a mail system: one that reads mailboxes, and a list manager fed by an alias."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, need_tool
from tests.system.processes import PATIENCE

SUBJECTS: Final = ("plain", "From the start", "=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "dots")
BODIES: Final = (b"x", b"From me\r\n>From you\r\n\r\nFrom: us", b"\xc3\xbc", b".\r\n..\r\n\r\n")

MUTT_SETTINGS: Final = """\
set folder={folder} sleep_time=0
set print=yes print_split print_decode=no wait_key=no header_cache="" history_file=""
set print_command="cat >>{out}; echo =next= >>{out}"
push "<tag-pattern>~A<enter><tag-prefix><print-message><exit>"
"""

# What a list manager does: look for its own mark, change the header, send to the members.
LIST_MANAGER: Final = """\
#!/bin/sh
name=$1 members=$2
content=$(cat; echo x)
content=${content%x}
case $content in *"List-Id: <$name>"*) echo "a loop"; exit 69;; esac
{
    printf 'List-Id: <%s>\\nPrecedence: list\\n' "$name"
    printf %s "$content" | sed '1{/^From /d}'
} | "$SENDMAIL" -i -f "owner-$name@mail.test" -- $(cat "$members")
"""


def read_with_mutt(system: MailSystem, folder: Path, settings: Path) -> list[bytes]:
    """Every message of the mailbox, as mutt understands it."""
    out = settings.with_suffix(".out")
    out.unlink(missing_ok=True)
    settings.write_text(MUTT_SETTINGS.format(out=out, folder=settings.parent))
    ours, theirs = pty.openpty()
    mutt = subprocess.Popen(
        [need_tool("mutt"), "-n", "-R", "-F", str(settings), "-f", str(folder)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={"TERM": "vt100", "HOME": str(settings.parent), "PATH": "/usr/bin:/bin"},
    )
    os.close(theirs)
    screen = threading.Thread(target=read_all, args=(ours,))
    screen.start()
    try:
        assert mutt.wait(PATIENCE) == 0
    finally:
        mutt.kill()
        screen.join()
        os.close(ours)
    return out.read_bytes().split(b"=next=\n")[:-1]


def read_all(terminal: int) -> None:
    """Somebody has to look at the screen."""
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:
        pass  # the other end is closed


def subject_of(message: bytes) -> str:
    match = re.search(rb"^Subject: (.*)$", message, re.MULTILINE)
    return match[1].decode() if match else ""


def test_mutt_reads_mbox_and_maildir(make_system: MakeSystem, tmp_path: Path) -> None:
    need_tool("mutt")
    system = make_system()
    system.start()
    recipients = ["alice@virtual.test", "bob@virtual.test", f"{system.user.pw_name}@mail.test"]
    for subject, body in zip(SUBJECTS, BODIES, strict=True):
        content = b"Subject: %s\r\n\r\n%s\r\n" % (subject.encode(), body)
        system.send("sender@client.test", recipients, content)
    system.wait_for_queue_empty()
    folders = (system.top / "vmail/alice", system.top / "vmail/bob", system.mailbox)
    for folder in folders:
        messages = read_with_mutt(system, folder, tmp_path / "mutt")
        assert sorted(map(subject_of, messages)) == sorted(SUBJECTS), folder
        assert sum(b"\n>From you" in message for message in messages) == 1, folder


def list_manager(system: MailSystem, name: str, members: Sequence[str]) -> str:
    """The entry for alias_maps of a mailing list."""
    program, listed = system.top / "list-manager", system.top / name
    program.write_text(LIST_MANAGER)
    program.chmod(0o755)
    listed.write_text("\n".join(members))
    return f'{{{name}="|{program} {name} {listed}"}}'


def test_list_manager(make_system: MakeSystem) -> None:
    """It resends through sendmail, from within a delivery; bounces go to the list's owner."""
    system = make_system()
    me, path = system.user.pw_name, system.command_directory / "sendmail"
    members = ["alice@virtual.test", f"{me}@mail.test", "gone@virtual.test", "list@mail.test"]
    entry = list_manager(system, "list", members)
    system.configure(
        {
            "alias_maps": f"inline:{{ {entry} {{owner-list={me}}} }}",
            "export_environment": f"TZ MAIL_CONFIG SENDMAIL={path}",
        }
    )
    system.start()
    content = b"From: sender@client.test\r\nSubject: to the list\r\n\r\nHello\r\n"
    system.send("sender@client.test", ["list@mail.test"], content)
    system.wait_for_queue_empty()
    (copy,) = system.maildir("alice")
    assert b"\nList-Id: <list>\nPrecedence: list\n" in copy
    assert b"\nReturn-Path: <owner-list@mail.test>\n" in b"\n" + copy
    assert copy.endswith(b"\n\nHello\n")
    assert not system.log_lines("to=<sender@client.test>")
    mailbox = system.mailbox.read_bytes()
    assert mailbox.count(b"\nSubject: to the list\n") == 1 + 1  # with the one in the bounce
    assert b'\n<gone@virtual.test>: unknown user: "gone@virtual.test"\n' in mailbox
    assert b"\n<list@mail.test>: mail forwarding loop for list@mail.test\n" in mailbox
