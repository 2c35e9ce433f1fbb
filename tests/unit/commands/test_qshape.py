"""The table that qshape prints."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from commands.qshape import Ages, Options, Shape, main
from libmail.ipc.messages import Envelope, Recipient
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import QueueFile, QueueFileWriter

# (minutes, sender, recipients) of the messages in the deferred queue
MESSAGES: Sequence[tuple[int, str, tuple[str, ...]]] = (
    (1, "a@x.test", ("u@One.test", "v@one.test")),
    (7, "", ("u@two.test",)),
    (100, "root", ("u@a-very-long-domain-name.with.many.labels.example.test", "nodomain")),
    (3000, "a@sub.one.test", tuple(f"u@{name}.one.test" for name in "abcde")),
    (20, "a@[1.2.3.4]", ("u@[1.2.3.4]", "a@b@q.test", "u@x.y.z.test", "u@y.z.test")),
)

USUAL = """\
                                         T  5 10 20 40 80 160 320 640 1280 1280+
                                  TOTAL 14  2  1  0  4  0   2   0   0    0     5
                               one.test  2  2  0  0  0  0   0   0   0    0     0
                                 q.test  1  0  0  0  1  0   0   0   0    0     0
                               nodomain  1  0  0  0  0  0   1   0   0    0     0
                               two.test  1  0  1  0  0  0   0   0   0    0     0
                               y.z.test  1  0  0  0  1  0   0   0   0    0     0
                              [1.2.3.4]  1  0  0  0  1  0   0   0   0    0     0
                             a.one.test  1  0  0  0  0  0   0   0   0    0     1
                             b.one.test  1  0  0  0  0  0   0   0   0    0     1
                             c.one.test  1  0  0  0  0  0   0   0   0    0     1
                             d.one.test  1  0  0  0  0  0   0   0   0    0     1
                             e.one.test  1  0  0  0  0  0   0   0   0    0     1
                             x.y.z.test  1  0  0  0  1  0   0   0   0    0     0
+ain-name.with.many.labels.example.test  1  0  0  0  0  0   1   0   0    0     0
"""

SENDERS = """\
                                                                     T  5 10 10+
                                                              TOTAL  5  1  1   3
                                                               root  1  0  0   1
                                                             x.test  1  1  0   0
                                                          [1.2.3.4]  1  0  0   1
                                                       sub.one.test  1  0  0   1
                                                      MAILER-DAEMON  1  0  1   0
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "main.cf").write_text(f"queue_directory = {tmp_path}/queue\n")
    for name in ("incoming", "active", "deferred"):
        (tmp_path / "queue" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "queue")
    for minutes, sender, recipients in MESSAGES:
        writer = QueueFileWriter(QueueDirectory(), "deferred", long_ids=False)
        writer.write_header(b"Subject: x\r\n")
        arrival = time.time() - minutes * 60 - 5
        done = Recipient("done@one.test")
        envelope = Envelope(sender, arrival=arrival)
        writer.complete(envelope, [done, *map(Recipient, recipients)], 0)
        writer.close()
        with QueueFile(writer.path, writable=True) as file:
            file.mark_done(next(file.recipients()))
    return tmp_path


def test_domains_of_recipients(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", str(config), "deferred"]) == 0
    assert capsys.readouterr().out == USUAL


def test_domains_of_senders(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", str(config), "-sl", "-b", "3", str(config / "queue/deferred")]) == 0
    assert capsys.readouterr().out == SENDERS


def test_parent_domains(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["-c", str(config), "-p", "deferred"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:2] == [".one.test", "5"]
    assert not [line for line in lines if ".z.test" in line.split()]
    main(["-c", str(config), "-p", "-m", "2", "deferred"])
    assert [".z.test", "2"] in [line.split()[:2] for line in capsys.readouterr().out.splitlines()]


def test_what_cannot_be_read(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config / "queue/incoming/AAAAA1"
    path.write_bytes(b"x" * 300)
    path.chmod(0o700)
    (config / "queue/incoming/AAAAA2").write_bytes(b"being written")
    os.mkfifo(config / "queue/incoming/AAAAA3", 0o700)
    assert main(["-c", str(config), "incoming", "nosuch"]) == 0
    out, err = capsys.readouterr()
    assert "TOTAL  0" in out
    assert "Can't stat nosuch: No such file or directory" in err
    assert err.count("AAAAA1") == 1
    assert "AAAAA2" not in err


@pytest.mark.parametrize(
    "argv", [["-x"], ["-h"], ["-b"], ["-b", "x"], ["-b", "-1"], ["-b", "9999"]]
)
def test_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 255
    assert "Usage: qshape" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("buckets", "minutes", "linear", "labels"),
    [
        (10, 5, False, "5 10 20 40 80 160 320 640 1280 1280+"),
        (4, 10, True, "10 20 30 30+"),
        (3, 0.5, False, "0.5 1 1+"),
        (1, 5, False, "0+"),
    ],
)
def test_columns(buckets: int, minutes: float, linear: bool, labels: str) -> None:
    assert Ages(buckets, minutes, linear=linear).labels == labels.split()


def test_narrow_names() -> None:
    shape = Shape(Ages(20, 1000, linear=True))
    shape.add("some.quite.long.name.example.test", 0)
    lines = list(shape.lines(Options(parents=True, min_subdomains=1)))
    names = [line.split()[0] for line in lines[2:]]
    assert "+name.example.test" in names
    assert ".+ame.example.test" in names
    assert {len(name) for name in names} <= {18, *range(18)}
