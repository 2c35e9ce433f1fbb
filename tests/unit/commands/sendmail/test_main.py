"""sendmail from its arguments to pickup or maildrop, and its exit status."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import sendmail
from libmail.ipc.codec import Chunk, Unframer
from libmail.ipc.messages import CODEC, QueueId, Recipients, SubmitOpen, SubmitOpened, SubmitResult
from libmail.message.addresses import addresses_in
from libmail.queue.file import QueueFile


@given(st.text(alphabet='ab.@-_ ,<>"(é', max_size=12))
def test_plain_addresses_are_what_the_parser_finds(text: str) -> None:
    if sendmail.is_plain_address(text):
        assert list(addresses_in(text)) == [text]


@pytest.mark.parametrize("text", ["a", "a.b@c.d", "a_b-c@d"])
def test_plain_addresses(text: str) -> None:
    assert sendmail.is_plain_address(text)


class Pickup:
    """Takes one submission."""

    def __init__(self, path: str, answer: SubmitResult | None, *, opens: bool = True) -> None:
        """answer: at the end, None to hang up instead. opens: it listens to all of a message."""
        self._opens = opens
        self.messages: list[object] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        unframer = Unframer(CODEC)
        with client, self._listener:
            while not self.messages:
                unframer.receive_data(client.recv(65536))
                self.messages += unframer
            if self._opens:
                client.sendall(CODEC.encode(SubmitOpened()))
            while self._opens and not (self.messages and self.messages[-1] == Chunk(b"")):
                unframer.receive_data(client.recv(65536))
                self.messages += unframer
            if self._answer is not None:
                client.sendall(CODEC.encode(self._answer))


@pytest.fixture
def directory(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("public", "maildrop"):
        (short_tmp / name).mkdir()
    (short_tmp / "main.cf").write_text(
        f"compatibility_level=3.6\nqueue_directory={short_tmp}\nmaillog_file=/dev/stdout\n"
    )
    monkeypatch.setattr("sys.argv", ["sendmail"])
    monkeypatch.setenv("MAIL_CONFIG", str(short_tmp))
    monkeypatch.setenv("NAME", "A. User")
    old = os.getcwd()
    yield short_tmp
    os.chdir(old)


Give = Callable[[bytes], None]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Give:
    def give(data: bytes) -> None:
        pieces = iter([data])
        monkeypatch.setattr(sendmail, "_read_stdin", lambda size: next(pieces, b""))

    return give


def test_submission(directory: Path, stdin: Give) -> None:
    pickup = Pickup(str(directory / "public/pickup"), SubmitResult(0, "", QueueId("A1")))
    stdin(b"Subject: x\n\nbody\n.\nmore\n")
    words = ["a@b", "C D <c@d>, e", '"f \\"g"@h']
    assert sendmail.main(["-f", '"m e"@x', "-N", "delay", *words]) == 0
    pickup.thread.join()
    opened, recipients, *chunks = pickup.messages
    assert opened == SubmitOpen("m e@x", False, "A. User", 0, "", "", 0, 20)
    assert isinstance(recipients, Recipients)
    assert [(r.address, r.notify) for r in recipients.recipients] == [
        ("a@b", 8), ("c@d", 8), ("e", 8), ('f "g@h', 8),
    ]  # fmt: skip
    assert chunks == [Chunk(b"Subject: x\r\n\r\nbody\r\n"), Chunk(b"")]


def test_refusal(directory: Path, stdin: Give, capsys: pytest.CaptureFixture[str]) -> None:
    pickup = Pickup(str(directory / "public/pickup"), SubmitResult(65, "too big", QueueId("")))
    stdin(b"x\n")
    assert sendmail.main(["a@b"]) == 65
    pickup.thread.join()
    assert "sendmail: fatal: too big\n" in capsys.readouterr().err


def test_maildrop(directory: Path, stdin: Give, capsys: pytest.CaptureFixture[str]) -> None:
    stdin(b"To: t@u\nSubject: x\n\nbody\n")
    assert sendmail.main(["-t", "-f", "<>", "a@b"]) == 0
    assert capsys.readouterr().err == (
        "postdrop: warning: unable to look up public/pickup: No such file or directory\n"
    )
    (name,) = os.listdir(directory / "maildrop")
    with QueueFile(str(directory / "maildrop" / name)) as file:
        assert file.header() == b"To: t@u\r\nSubject: x\r\n"
        assert b"".join(file.body()) == b"\r\nbody\r\n"
        assert [r.address for r in file.recipients()] == ["a@b", "t@u"]
        assert file.envelope().sender == ""
        assert os.fstat(file.fd).st_mode & 0o777 == 0o740


def test_too_large(directory: Path, stdin: Give, capsys: pytest.CaptureFixture[str]) -> None:
    answer = SubmitResult(77, "me@x(7): message file too big", QueueId(""))
    pickup = Pickup(str(directory / "public/pickup"), answer, opens=False)
    stdin(b"x\n")
    assert sendmail.main(["-f", "me@x", "a@b"]) == 75
    pickup.thread.join()
    assert capsys.readouterr().err == (
        f"postdrop: warning: uid={os.getuid()}: File too large\n"
        "sendmail: fatal: me@x(7): message file too big\n"
    )


@pytest.mark.parametrize("opens", [True, False])
@pytest.mark.parametrize("answer", [SubmitResult(75, "later", QueueId("")), None])
def test_what_cannot_be_queued_now_waits_in_maildrop(
    directory: Path, stdin: Give, capsys: pytest.CaptureFixture[str], opens: bool,
    answer: SubmitResult | None,
) -> None:  # fmt: skip
    """cron(8) has its mail nowhere else."""
    pickup = Pickup(str(directory / "public/pickup"), answer, opens=opens)
    stdin(b"Subject: x\n\nbody\n")
    assert sendmail.main(["-f", "me@x", "a@b"]) == 0
    pickup.thread.join()
    assert capsys.readouterr().err == ""
    (name,) = os.listdir(directory / "maildrop")
    with QueueFile(str(directory / "maildrop" / name)) as file:
        assert b"".join(file.body()) == b"\r\nbody\r\n"
        assert [r.address for r in file.recipients()] == ["a@b"]


def test_a_silent_pickup(directory: Path, stdin: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sendmail, "_FIRST_ANSWER", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "public/pickup"))
        listener.listen()
        stdin(b"x\n")
        assert sendmail.main(["a@b"]) == 0
    assert len(os.listdir(directory / "maildrop")) == 1


def test_a_large_message_goes_to_maildrop(
    directory: Path, stdin: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sendmail, "_KEPT", 100)
    stdin(b"Subject: x\n\n" + b"y\n" * 1000)
    assert sendmail.main(["a@b"]) == 0
    (name,) = os.listdir(directory / "maildrop")
    with QueueFile(str(directory / "maildrop" / name)) as file:
        assert b"".join(file.body()) == b"\r\n" + b"y\r\n" * 1000


@pytest.mark.parametrize("words", [["x" * 40_000 + "@y.test"], ["-f", "x" * 3000, "a@b"]])
def test_addresses_that_are_too_long(
    directory: Path, stdin: Give, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    stdin(b"x\n")
    assert sendmail.main(words) == 65
    assert "fatal: address too long: xxx" in capsys.readouterr().err
    assert os.listdir(directory / "maildrop") == []


def test_warnings_are_printable(
    directory: Path, stdin: Give, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(b"x\n")
    assert sendmail.main(["-f", "a\n\x1bb@c", "a@b"]) == 0
    assert "malformed sender: a??b@c\n" in capsys.readouterr().err


def test_too_large_for_maildrop(
    directory: Path, stdin: Give, capsys: pytest.CaptureFixture[str]
) -> None:
    with (directory / "main.cf").open("a") as file:
        file.write("message_size_limit=100\n")
    stdin(b"x\n" * 500000)
    assert sendmail.main(["-f", "me@x", "a@b"]) == 75
    assert os.listdir(directory / "maildrop") == []
    uid = os.getuid()
    assert capsys.readouterr().err.endswith(
        f"postdrop: warning: uid={uid}: File too large\n"
        f"sendmail: fatal: me@x({uid}): message file too big\n"
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "Recipient addresses must be specified on the command line or via the -t option"),
        (["-t"], "No recipient addresses found in message header"),
        (["-z"], "usage: sendmail [options]"),
        (["-C", "/nonexistent", "a"], "open /nonexistent/main.cf: No such file or directory"),
    ],
)
def test_mistakes(
    directory: Path, stdin: Give, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    stdin(b"")
    assert sendmail.main(argv) == 75
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "sender", "said"),
    [
        ("<>", "", ""),
        ("mailer-daemon", "mailer-daemon", ""),
        ("@route.test:a@b", "a@b", ""),
        ("a@b c", "a@b", "warning: -f option specified malformed sender: a@b c\n"),
    ],
)
def test_forms_of_the_sender(
    directory: Path, stdin: Give, capsys: pytest.CaptureFixture[str],
    given: str, sender: str, said: str,
) -> None:  # fmt: skip
    pickup = Pickup(str(directory / "public/pickup"), SubmitResult(0, "", QueueId("A1")))
    stdin(b"x\n")
    assert sendmail.main(["-f", given, "", "<>", "@r.test:a@b"]) == 0
    pickup.thread.join()
    opened, recipients, *_ = pickup.messages
    assert isinstance(opened, SubmitOpen)
    assert (opened.sender, opened.null_sender) == (sender, not sender)
    assert isinstance(recipients, Recipients)
    assert [r.address for r in recipients.recipients] == ["", "", "a@b"]
    assert capsys.readouterr().err.endswith(said)


def test_input_that_cannot_be_read(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(fd: int, size: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.read", read)
    assert sendmail.main(["a@b"]) == 75
    assert "error reading input: Input/output error\n" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-bh", "-bH", "-q5m"])
def test_nothing_to_do(directory: Path, option: str) -> None:
    assert sendmail.main([option]) == 0
    assert os.listdir(directory / "maildrop") == []
