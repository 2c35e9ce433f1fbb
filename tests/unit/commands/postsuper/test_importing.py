"""postsuper --import: every message once, whatever interrupts it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from commands.postsuper.importing import ImportParams, Tally, import_spool
from commands.postsuper.spool import Spool, SpoolError
from commands.postsuper.staging import ImportUnderWay, Key, Staging
from libmail.ipc.messages import EnvelopeFlag, QueueId
from libmail.privileges import Identity
from libmail.queue.directory import QUEUES, QueueDirectory
from libmail.queue.file import ANY_STATE, ContentFlag, QueueFile
from libmail.queue.reasons import ReasonLog

FILES: Final = Path(__file__).parents[2] / "libmail/queue/foreign"
DIRECTORY: Final = QueueDirectory()
PARAMS: Final = ImportParams(
    cleanup_replace_stray_cr_lf=True,
    enable_long_queue_ids=False,
    remote_header_rewrite_domain="invalid.test",
)
# Where the samples are in the original's queue.
ORIGINALS: Final = {
    "deferred/E/EC17D21E004": "dsn",
    "deferred/F2BB821EE72": "verp",
    "active/4jXh3q1Xq6zJBKB": "milter",
    "hold/EFBA421EC82": "redirect",
    "incoming/EF20921E047": "filter",
    "maildrop/1ADF121EC61": "maildrop",
}


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """The queue of a Postfix, stopped."""
    top = tmp_path / "original"
    for name, sample in ORIGINALS.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FILES / sample, path)
        path.chmod(0o700)
        os.utime(path, (2_000_000_000, 2_000_000_000))
    (top / "defer/E").mkdir(parents=True)
    shutil.copy(FILES / "dsn.defer", top / "defer/E/EC17D21E004")
    return top


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty queue of ours, which is the working directory."""
    top = tmp_path / "queue"
    for name in QUEUES:
        (top / name).mkdir(parents=True)
    monkeypatch.chdir(top)
    return top


def owner() -> Identity:
    return Identity("me", os.getuid(), os.getgid(), (os.getgid(),))


def run(original: Path, params: ImportParams = PARAMS) -> Tally:
    spool = Spool(str(original))
    try:
        return import_spool(spool, DIRECTORY, params, owner(), privileged=False)
    finally:
        spool.close()


def queued() -> dict[str, tuple[str, QueueId, list[tuple[str, bytes]]]]:
    """By sender: the queue, the id, and the recipients with their states. One of each."""
    found: dict[str, tuple[str, QueueId, list[tuple[str, bytes]]]] = {}
    for name in ("maildrop", "incoming", "active", "deferred", "hold"):
        for entry in DIRECTORY.scan(name):
            with QueueFile(entry.path) as file:
                sender = file.envelope().sender
                recipients = file.recipients(states=ANY_STATE)
                states = [(one.address, file.state(one)) for one in recipients]
            assert sender not in found
            found[sender] = (name, QueueId(entry.name), states)
    return found


def everything(top: Path) -> list[tuple[str, bytes, float, int]]:
    paths = sorted(path for path in top.rglob("*") if path.is_file())
    stats = [(path, path.stat()) for path in paths]
    return [(str(p), p.read_bytes(), s.st_mtime, s.st_mode) for p, s in stats]


def test_everything_goes_where_it_was(original: Path, queue: Path) -> None:
    before = everything(original)
    assert run(original) == Tally(imported=6)
    found = queued()
    assert {sender: name for sender, (name, _, _) in found.items()} == {
        "a@x.test": "deferred",
        "verp@x.test": "deferred",
        "newfrom@x.test": "incoming",
        "redir@x.test": "hold",
        "filter@x.test": "incoming",
        "drop@x.test": "maildrop",
    }
    assert found["a@x.test"][2] == [
        ("one@deferred.test", b"R"),
        ("two@ok.test", b"D"),
        ("three@deferred.test", b"R"),
    ]
    assert everything(original) == before


def test_ids_times_and_modes(original: Path, queue: Path) -> None:
    (original / "hold/EFBA421EC82").chmod(0o710)
    run(original)
    found = queued()
    assert found["newfrom@x.test"][1] == "4jXh3q1Xq6zJBKB"
    _, short, _ = found["a@x.test"]
    path = queue / DIRECTORY.path("deferred", short)
    assert short == f"{958600:05X}{path.stat().st_ino:X}"
    assert path.stat().st_mtime == 2_000_000_000
    assert path.stat().st_mode & 0o777 == 0o700
    assert (queue / "hold" / found["redir@x.test"][1]).stat().st_mode & 0o777 == 0o710
    assert (queue / "maildrop" / found["drop@x.test"][1]).stat().st_mode & 0o777 == 0o740


def test_long_ids_for_new_files(original: Path, queue: Path) -> None:
    run(original, replace(PARAMS, enable_long_queue_ids=True))
    assert all("z" in queue_id for _, queue_id, _ in queued().values())


def test_long_id_that_is_taken(original: Path, queue: Path) -> None:
    (queue / "incoming/4jXh3q1Xq6zJBKB").write_bytes(b"in use")
    run(original)
    assert (queue / "incoming/4jXh3q1Xq6zJBKB").read_bytes() == b"in use"
    (queue / "incoming/4jXh3q1Xq6zJBKB").unlink()
    assert len(queued()) == 6


def test_content_and_its_flags(original: Path, queue: Path) -> None:
    run(original)
    name, queue_id, _ = queued()["verp@x.test"]
    with QueueFile(DIRECTORY.path(name, queue_id)) as file:
        assert file.preamble.flags == (
            ContentFlag.EIGHTBIT_BODY | ContentFlag.LONG_LINES | ContentFlag.MIME_CONTENT
        )
        assert file.header().endswith(b"From: verp@x.test\r\n")
        body = "\r\nbödy\r\n".encode() + b"x" * 5000 + b"\r\n"
        assert b"".join(file.body()) == body
        assert file.envelope().message_id == "<20261122202857.F2BB821EE72@mail.test>"
        assert file.preamble.arrival == pytest.approx(1795379337.993361)


def test_reasons(original: Path, queue: Path) -> None:
    run(original)
    _, queue_id, _ = queued()["a@x.test"]
    one, three = ReasonLog(DIRECTORY, "defer").read(queue_id)
    assert (one.address, one.reason) == ("one@deferred.test", "try again later")
    with QueueFile(DIRECTORY.path("deferred", queue_id)) as file:
        assert [one.offset, three.offset] == [recipient.offset for recipient in file.recipients()]


def test_second_run_imports_nothing(original: Path, queue: Path) -> None:
    run(original)
    for path in queue.glob("*/*"):
        if path.is_file() and path.parent.name != "import":
            path.unlink()  # delivered meanwhile
    assert run(original) == Tally(known=6)
    shutil.copytree(original, original.with_name("copy"))
    assert run(original.with_name("copy")) == Tally(known=6)
    shutil.copy(FILES / "bcc", original / "deferred/F362F21EE73")
    (original / "deferred/F362F21EE73").chmod(0o700)
    assert run(original) == Tally(imported=1, known=6)


def test_what_is_left_out(original: Path, queue: Path) -> None:
    (original / "incoming/AAAAA1").write_bytes(b"being received")
    damaged = (FILES / "bcc").read_bytes()
    for number, data in enumerate((b"", b"nonsense", damaged[:-2], damaged[:700])):
        path = original / f"deferred/BBBBB{number}"
        path.write_bytes(data)
        path.chmod(0o700)
    os.mkfifo(original / "maildrop/CCCCC1", 0o700)
    (original / "maildrop/CCCCC2").symlink_to("/etc/passwd")
    tally = run(original)
    assert tally == Tally(imported=6, unfinished=1, failed=6)
    assert sorted(os.listdir("import")) == ["record"]


def test_remote_context(original: Path, queue: Path) -> None:
    for name in ("deferred/F2BB821EE72", "maildrop/1ADF121EC61"):
        path = original / name
        path.write_bytes(path.read_bytes().replace(b"\x15rewrite_context=local",
                                                   b"\x16rewrite_context=remote"))  # fmt: skip
    run(original)
    for sender in ("verp@x.test", "drop@x.test"):
        name, queue_id, _ = queued()[sender]
        with QueueFile(DIRECTORY.path(name, queue_id)) as file:
            assert file.envelope().rewrite_context == "invalid.test"
            assert file.envelope().flags & EnvelopeFlag.RELAYED


def test_stray_line_ends(original: Path, queue: Path) -> None:
    path = original / "deferred/F2BB821EE72"
    data = path.read_bytes()
    path.write_bytes(data.replace("bödy".encode(), b"b\nod\r"))
    run(original)
    name, queue_id, _ = queued()["verp@x.test"]
    with QueueFile(DIRECTORY.path(name, queue_id)) as file:
        assert b"".join(file.body()).startswith(b"\r\nb od \r\n")


def test_running_postfix(original: Path, queue: Path) -> None:
    (original / "pid").mkdir()
    with (original / "pid/master.pid").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SpoolError, match="running"):
            run(original)
    spool = Spool(str(original))
    with (original / "pid/master.pid").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    spool.close()
    assert run(original).imported == 6


def test_wrong_directories(tmp_path: Path, queue: Path) -> None:
    with pytest.raises(SpoolError, match="no Postfix queue directory"):
        Spool(str(tmp_path))


def test_two_imports(original: Path, queue: Path) -> None:
    (queue / "import").mkdir()
    held = Staging(DIRECTORY)
    with pytest.raises(ImportUnderWay):
        run(original)
    assert not held.knows(Key(QueueId("EC17D21E004"), 1, 2))
    held.close()
    assert run(original).imported == 6


def test_torn_line_of_the_record(original: Path, queue: Path) -> None:
    run(original)
    record = queue / "import/record"
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines) + lines[0][:20])
    assert run(original) == Tally(known=6)
    assert record.read_text() == "".join(lines)


CALLS: Final = ("fsync", "rename", "write", "fchmod", "pwritev", "unlink", "close", "utime")


def dies_at(number: int, original: Path) -> bool:
    """Whether an import in another process was killed at its nth system call that matters."""
    pid = os.fork()
    if pid == 0:
        try:
            die_at(number)
            run(original)
        except BaseException:  # noqa: BLE001 - a test's child must not return
            os._exit(2)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 9)
    return status == 9


def die_at(number: int) -> None:
    left = number

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **named: object) -> object:
            nonlocal left
            if left == 0:
                os._exit(9)
            left -= 1
            return call(*arguments, **named)

        return wrapped

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def test_killed_at_any_point(original: Path, queue: Path) -> None:
    """Whatever the instant, the next run makes it whole: each message is there once."""
    for name in ("active", "incoming", "hold"):
        shutil.rmtree(original / name)
    number = 0
    seen: set[int] = set()  # how many messages were in the queue when it died
    while dies_at(number, original):
        seen.add(len(queued()))
        run(original)
        (_, queue_id, _) = queued()["a@x.test"]
        assert set(queued()) == {"a@x.test", "verp@x.test", "drop@x.test"}
        assert sorted(os.listdir("import")) == ["record"]
        assert len(ReasonLog(DIRECTORY, "defer").read(queue_id)) == 2
        assert sum(1 for _ in DIRECTORY.scan("defer")) == 1
        for path in [path for path in queue.rglob("*") if path.is_file()]:
            path.unlink()
        number += 1
    assert seen == {0, 1, 2, 3}
    assert number > 20
