"""What postcat prints of queue files, ours and the original's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from commands.postcat import main
from libmail.ipc.messages import DsnNotify, Envelope, EnvelopeFlag, QueueId, Recipient
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import QueueFile, QueueFileWriter

ROOT: Final = Path(__file__).resolve().parents[3]
ORIGINALS: Final = ROOT / "tests/unit/libmail/queue/foreign"

SIZES: Final = " ".join(f"{number:15d}" for number in (33, 128, 2, 0, 33, 1))
EXPECTED: Final = """\
*** ENVELOPE RECORDS {path} ***
message_size: {sizes}
message_arrival_time: Fri Jan  2 00:00:00 1970
create_time: Fri Jan  2 00:00:00 1970
named_attribute: rewrite_context=local
named_attribute: envelope_id=e+id
named_attribute: ret_flags=2
sender_fullname: Full Name
sender: s@x.test
named_attribute: encoding=8bit
named_attribute: trace_flags=1024
named_attribute: log_client_name=before.test
named_attribute: client_name=client.test
verp_delimiters: +=
warning_message_time: Fri Jan  2 01:00:00 1970
named_attribute: notify_flags=6
named_attribute: dsn_orig_rcpt=rfc822;o+r@x.test
original_recipient: alias
done_recipient: a@x.test
named_attribute: dsn_orig_rcpt=rfc822;"b c"@x.test
original_recipient: b c@x.test
recipient: b c@x.test
*** MESSAGE CONTENTS {path} ***
Subject: x
To: y

body
.dot
*** HEADER EXTRACTED {path} ***
content_filter: smtp:[::1]
redirect_to: r@x.test
*** MESSAGE FILE END {path} ***
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "main.cf").write_text(f"queue_directory = {tmp_path}\n")
    (tmp_path / "deferred").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("MAIL_CONFIG", str(tmp_path))
    return tmp_path


@pytest.fixture
def queue_id(config: Path) -> QueueId:
    writer = QueueFileWriter(QueueDirectory(), "deferred", long_ids=False)
    writer.write_header(b"Subject: x\r\nTo: y\r\n")
    writer.write_body(b"\r\nbody\r\n.dot\r\n")
    flags = EnvelopeFlag.SMTPUTF8 | EnvelopeFlag.EIGHTBIT | EnvelopeFlag.DSN_HEADERS
    envelope = Envelope(
        "s@x.test",
        int(flags | EnvelopeFlag.VERBOSE),
        arrival=86400.0,
        full_name="Full Name",
        dsn_envid="e+id",
        content_filter="smtp:[::1]",
        redirect="r@x.test",
        verp_delims="+=",
        client_name="client.test",
        log_client_name="before.test",
        warn_time=90000.0,
    )
    notify = int(DsnNotify.SUCCESS | DsnNotify.FAILURE)
    recipients = [
        Recipient("a@x.test", "alias", "rfc822;o+2Br@x.test", notify),
        Recipient("b c@x.test", "b c@x.test"),
    ]
    writer.complete(envelope, recipients, 0)
    writer.close()
    with QueueFile(writer.path, writable=True) as file:
        file.mark_done(next(file.recipients()))
    return writer.queue_id


def shown(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Status, output and complaints, run as a program."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from commands.postcat import main; "
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit(main(sys.argv[1:]))", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def path_of(queue_id: QueueId) -> str:
    return QueueDirectory().path("deferred", queue_id)


def test_everything(queue_id: QueueId) -> None:
    path = path_of(queue_id)
    assert shown("-q", queue_id) == (0, EXPECTED.format(path=path, sizes=SIZES), "")
    assert shown(stdin=Path(path).read_bytes()) == (
        0,
        EXPECTED.format(path="stdin", sizes=SIZES),
        "",
    )


def test_parts(queue_id: QueueId) -> None:
    path = path_of(queue_id)
    assert shown("-h", path)[1] == "Subject: x\nTo: y\n"
    assert shown("-b", path)[1] == "\nbody\n.dot\n"
    assert shown("-bh", path)[1] == "Subject: x\nTo: y\n\nbody\n.dot\n"
    assert "Subject" not in shown("-e", path)[1]


def test_offsets_and_types(queue_id: QueueId) -> None:
    path = path_of(queue_id)
    lines = shown("-od", path)[1].splitlines()
    assert lines[0].startswith("*** ENVELOPE RECORDS")
    assert lines[2] == "        0  84 message_arrival_time: Fri Jan  2 00:00:00 1970"
    assert "      128  78 Subject: x" in lines
    assert "      140  78 To: y" in lines
    assert "      149  78 body" in lines
    assert shown("-o", "-s", "149", "-b", path)[1] == "      149 body\n      155 .dot\n"


@pytest.mark.parametrize("name", ["dsn", "milter", "maildrop", "verp"])
def test_files_of_the_original(config: Path, name: str) -> None:
    status, text, complaints = shown("-bh", str(ORIGINALS / name))
    assert (status, complaints) == (0, "")
    assert text.startswith(("Received: ", "X-First: ", "Subject: ", "X-New: "))
    status, text, _ = shown("-odr", str(ORIGINALS / name))
    assert status == 0
    assert "*** MESSAGE CONTENTS " in text


def test_records_of_the_original(config: Path) -> None:
    lines = shown("-od", str(ORIGINALS / "dsn"))[1].splitlines()
    assert "      206  65 named_attribute: ret_flags=2" in lines
    assert "      797  68 done_recipient: two@ok.test" in lines
    assert "       97  84 message_arrival_time: Sun Nov 22 20:28:57 2026" in lines
    assert "     1185  78 " in lines


def test_what_matters_to_the_file_itself_is_only_told_with_v(config: Path) -> None:
    """Padding and pointers, which a Milter's changes leave behind."""
    plain = shown(str(ORIGINALS / "milter"))[1].splitlines()
    told = shown("-vr", str(ORIGINALS / "milter"))[1].splitlines()
    assert not [line for line in plain if line.startswith(("padding: ", "pointer_record: "))]
    assert [line for line in told if line.startswith("pointer_record: ")]
    assert [line for line in told if line.startswith("regular_text: ")]


def test_message_id_and_control_characters(config: Path) -> None:
    writer = QueueFileWriter(QueueDirectory(), "deferred", long_ids=False)
    writer.write_header(b"Subject: x\x1b[1m\r\n")
    writer.write_body(b"\r\n")
    envelope = Envelope("s\x1b@x.test", message_id="<a@b>")
    writer.complete(envelope, [Recipient("r@x.test", "r@x.test")], 0)
    writer.close()
    path = path_of(writer.queue_id)
    text = shown(path)[1]
    assert "sender: s?@x.test\n" in text
    assert "Subject: x\x1b[1m\n" in text
    assert f"*** HEADER EXTRACTED {path} ***\nnamed_attribute: message_id=<a@b>\n" in text


def test_no_queue_file(config: Path) -> None:
    status, text, complaints = shown("/etc/passwd")
    assert (status, text) == (0, "")
    assert "postcat: warning: /etc/passwd: input is not a valid queue file" in complaints


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nosuch"], "fatal: open nosuch: No such file or directory"),
        (["-q", "nosuch"], "fatal: open queue file nosuch: No such file or directory"),
        (["-q", "AAAAAA"], "fatal: open queue file AAAAAA: No such file or directory"),
        (["-q", "../x"], "fatal: bad mail queue ID: ../x"),
        (["-s", "x"], "fatal: bad offset: x"),
        (["-x"], "invalid option -- 'x'\npostcat: fatal: usage: postcat "),
        (["-s"], "option requires an argument -- 's'\npostcat: fatal: usage: postcat "),
    ],
)
def test_mistakes(
    config: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert f"postcat: {complaint}" in capsys.readouterr().err
