"""postsuper --export: each message once, as arguments and input of a sendmail(1)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from commands.postsuper.exporting import Exported, ExportError, export_queue
from libmail.ipc.messages import DsnNotify, Envelope, EnvelopeFlag, Recipient, Target
from libmail.privileges import Identity
from libmail.queue.directory import QUEUES, QueueDirectory
from libmail.queue.file import QueueFile, QueueFileWriter
from libmail.queue.reasons import ReasonLog
from libmail.service.master_lock import LockHeld, open_lock

DIRECTORY: Final = QueueDirectory()
# Writes its arguments, a line each, and its input, into files of their own.
SENDMAIL: Final = """\
#!/bin/sh
cd "$(dirname "$0")"
number=$(($(ls | grep -c '^arguments') + 1))
for word in "$@"; do echo "$word"; done >arguments.$number
cat >message.$number
case "$*" in *refused@*) rm arguments.$number message.$number; exit 75 ;; esac
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty queue, which is the working directory."""
    top = tmp_path / "queue"
    for name in (*QUEUES, "pid"):
        (top / name).mkdir(parents=True)
    monkeypatch.chdir(top)
    return top


@pytest.fixture
def sendmail(tmp_path: Path) -> Path:
    """A program that keeps what it is given; the one of a Postfix has postconf beside it."""
    program = tmp_path / "other/sendmail"
    program.parent.mkdir()
    program.write_text(SENDMAIL)
    program.chmod(0o755)
    return program


def add(
    envelope: Envelope, recipients: Sequence[Recipient], *,
    name: str = "deferred", done: int = 0, body: bytes = b"\r\nx\r\n",
) -> QueueFileWriter:  # fmt: skip
    """done: how many of the recipients have the message."""
    writer = QueueFileWriter(DIRECTORY, name, long_ids=False)
    writer.write_header(b"Subject: test\r\n")
    writer.write_body(body)
    writer.complete(envelope, recipients, 0)
    writer.close()
    with QueueFile(writer.path, writable=True) as file:
        for one in list(file.recipients())[:done]:
            file.mark_done(one)
    return writer


def export(target: Path) -> Exported:
    owner = Identity("me", os.getuid(), os.getgid(), (os.getgid(),))
    return export_queue(str(target), DIRECTORY, owner, privileged=False)


def submit(target: Path, sendmail: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([target / "submit", sendmail], capture_output=True, text=True)


def given(sendmail: Path) -> list[tuple[list[str], bytes]]:
    """(arguments, input) of each call, in order."""
    found = []
    for path in sorted(sendmail.parent.glob("arguments.*")):
        message = path.with_name(path.name.replace("arguments", "message"))
        found.append((path.read_text().splitlines(), message.read_bytes()))
    return found


def queued() -> list[str]:
    return [entry.name for name in QUEUES for entry in DIRECTORY.scan(name)]


def test_a_message(queue: Path, tmp_path: Path, sendmail: Path) -> None:
    add(Envelope("a@x.test"), [Recipient("one@y.test"), Recipient("two two@y.test"),
                               Recipient("three@y.test")], done=1)  # fmt: skip
    assert export(tmp_path / "export") == Exported(exported=1)
    assert queued() == []
    done = submit(tmp_path / "export", sendmail)
    assert (done.returncode, done.stdout) == (0, "Submitted: 1, not accepted: 0\n")
    assert given(sendmail) == [
        (
            ["-i", "-f", "a@x.test", "--", '"two two"@y.test', "three@y.test"],
            b"Subject: test\n\nx\n",
        )
    ]
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["hold", "submit"]


def test_what_a_postfix_is_told(queue: Path, tmp_path: Path, sendmail: Path) -> None:
    sendmail.with_name("postconf").touch(0o755)
    flags = EnvelopeFlag.DSN_HEADERS | EnvelopeFlag.EIGHTBIT
    envelope = Envelope("a@x.test", flags, dsn_envid="an id", verp_delims="+=")
    notify = DsnNotify.FAILURE | DsnNotify.DELAY
    add(envelope, [Recipient("one@y.test", notify=notify), Recipient("two@y.test")])
    export(tmp_path / "export")
    assert submit(tmp_path / "export", sendmail).returncode == 0
    common = ["-i", "-f", "a@x.test", "-G", "-V", "an id", "-R", "hdrs", "-B", "8BITMIME", "-XV+="]
    assert [arguments for arguments, _ in given(sendmail)] == [
        [*common, "-N", "failure,delay", "--", "one@y.test"],
        [*common, "--", "two@y.test"],
    ]


def test_no_sender(queue: Path, tmp_path: Path, sendmail: Path) -> None:
    add(Envelope(""), [Recipient("one@y.test", notify=DsnNotify.NEVER)])
    export(tmp_path / "export")
    submit(tmp_path / "export", sendmail)
    assert given(sendmail)[0][0] == ["-i", "-f", "<>", "--", "one@y.test"]


def test_mail_on_hold_waits_for_a_person(queue: Path, tmp_path: Path, sendmail: Path) -> None:
    add(Envelope("a@x.test"), [Recipient("one@y.test")], name="hold")
    assert export(tmp_path / "export") == Exported(held=1)
    submit(tmp_path / "export", sendmail)
    assert given(sendmail) == []
    submit(tmp_path / "export/hold", sendmail)
    assert len(given(sendmail)) == 1


def test_failures_that_nobody_was_told_of(queue: Path, tmp_path: Path, sendmail: Path) -> None:
    """They happen again, and the other system tells of them."""
    recipients = [Recipient("gone@y.test"), Recipient("one@y.test")]
    writer = add(Envelope("a@x.test"), recipients, done=1)
    target = Target("gone@y.test", "", "", 0, 0, "failed", "5.1.1", "unknown user")
    os.close(ReasonLog(DIRECTORY, "bounce").append(writer.queue_id, [target]))
    export(tmp_path / "export")
    submit(tmp_path / "export", sendmail)
    assert given(sendmail)[0][0][-2:] == ["one@y.test", "gone@y.test"]
    assert queued() == []


def test_probes_are_forgotten(queue: Path, tmp_path: Path) -> None:
    add(Envelope("", EnvelopeFlag.PROBE), [Recipient("one@y.test")], name="incoming")
    assert export(tmp_path / "export") == Exported()
    assert queued() == []


def test_line_ends(queue: Path, tmp_path: Path, sendmail: Path) -> None:
    """Also where pieces of a large body end in the middle of one; bare ones stay."""
    body = b"\r\n" + b"x\r\n\r" * 300_000 + b"\r\n"
    add(Envelope("a@x.test"), [Recipient("one@y.test")], body=body)
    export(tmp_path / "export")
    submit(tmp_path / "export", sendmail)
    assert given(sendmail)[0][1] == b"Subject: test\n" + body.replace(b"\r\n", b"\n")


def test_what_is_refused_stays(queue: Path, tmp_path: Path, sendmail: Path) -> None:
    add(Envelope("a@x.test"), [Recipient("one@y.test")])
    add(Envelope("a@x.test"), [Recipient("refused@y.test")])
    export(tmp_path / "export")
    done = submit(tmp_path / "export", sendmail)
    assert (done.returncode, done.stdout) == (1, "Submitted: 1, not accepted: 1\n")
    assert len(list((tmp_path / "export").glob("*.message"))) == 1
    assert submit(tmp_path / "export", sendmail).stdout == "Submitted: 0, not accepted: 1\n"


def test_what_cannot_be_read_stays_in_the_queue(queue: Path, tmp_path: Path) -> None:
    add(Envelope("a@x.test"), [Recipient("one@y.test")])
    (queue / "incoming/0123456789A").write_bytes(b"damaged")
    (queue / "incoming/0123456789A").chmod(0o700)
    assert export(tmp_path / "export") == Exported(exported=1, failed=1)
    assert queued() == ["0123456789A"]


def test_nothing_to_do(queue: Path, tmp_path: Path) -> None:
    assert export(tmp_path / "export") == Exported()
    assert not (tmp_path / "export").exists()


def test_only_into_a_directory_of_its_own(queue: Path, tmp_path: Path) -> None:
    add(Envelope("a@x.test"), [Recipient("one@y.test")])
    with pytest.raises(ExportError):
        export(tmp_path)
    export(tmp_path / "export")
    add(Envelope("b@x.test"), [Recipient("one@y.test")])
    assert export(tmp_path / "export") == Exported(exported=1)
    assert len(list((tmp_path / "export").glob("*.message"))) == 2


def test_not_while_a_master_runs(queue: Path, tmp_path: Path) -> None:
    add(Envelope("a@x.test"), [Recipient("one@y.test")])
    lock = open_lock("pid/master.pid")
    try:
        with pytest.raises(LockHeld):
            export(tmp_path / "export")
    finally:
        os.close(lock)
    assert len(queued()) == 1
