"""Damaged queue files, and what is no queue file at all, end in `corrupt` and disturb nobody."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port
from tests.system.processes import wait_until

MESSAGE: Final = b"Subject: test\r\n\r\n" + b"a line of text\r\n" * 100
CUTS: Final = 4


@dataclass(slots=True)
class Vandal:
    """Puts damaged copies of a good queue file into queues."""

    system: MailSystem
    good: bytes
    dice: random.Random
    planted: set[str]

    @property
    def unbound(self) -> bytes:
        """The good one, without the checksum that says whose it is."""
        return self.good[:96] + bytes(4) + self.good[100:]

    def damaged(self) -> Iterator[bytes]:
        yield b""
        yield b"\0" * len(self.good)
        yield self.dice.randbytes(len(self.good))
        yield self.dice.randbytes(128) + self.good[128:]
        yield self.good[:8] + self.dice.randbytes(120) + self.good[128:]
        yield self.good[:-1]
        for _ in range(CUTS):
            yield self.good[: self.dice.randrange(len(self.good))]

    def plant(self, queue: str, contents: Iterable[bytes] | None = None, mode: int = 0o700) -> None:
        """A file for each content, by default one of each kind, complete by its mode."""
        for content in self.damaged() if contents is None else contents:
            name = f"{self.dice.randrange(1 << 64):016X}"
            folder = self.system.queue_directory / queue
            path = folder / (f"{name[0]}/{name}" if queue == "deferred" else name)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            new = self.system.queue_directory / "active" / f"new-{name}"  # no queue file's name
            new.write_bytes(content)
            for made in (path.parent, new) if path.parent != folder else (new,):
                os.chown(made, self.system.user.pw_uid, self.system.user.pw_gid)
            new.chmod(mode)
            new.rename(path)
            self.planted.add(name)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def vandal(make_system: MakeSystem, request: pytest.FixtureRequest) -> Vandal:
    """With a message that waits for a host that is down, which is copied."""
    system = make_system()
    system.route("down.test", f"smtp:[127.0.0.1]:{free_port()}")
    system.allow("corrupt|showq.*: warning: open ")
    system.start()
    system.send("alice@virtual.test", ["x@down.test", "y@down.test"], MESSAGE)
    deferred = system.queue_directory / "deferred"
    wait_until(lambda: names(deferred), system.end_of_log)
    (path,) = (path for path in deferred.rglob("*") if path.is_file())
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return Vandal(system, path.read_bytes(), random.Random(seed), set())


def all_put_aside(vandal: Vandal) -> None:
    """Each is in corrupt, with a warning; the good one is where it was; other mail flows."""
    system = vandal.system
    corrupt = system.queue_directory / "corrupt"
    wait_until(lambda: names(corrupt) >= vandal.planted, system.end_of_log)
    for name in vandal.planted:
        system.wait_for_log(f"warning: .*{name}.*corrupt")
    system.send("a@client.test", ["alice@virtual.test"], MESSAGE)
    system.wait_for_log("to=<alice@virtual.test>.*status=sent")
    assert names(corrupt) == vandal.planted
    assert len(system.queued()) == len(names(corrupt)) + 1


def test_while_the_system_runs(vandal: Vandal) -> None:
    for queue in ("incoming", "deferred", "maildrop"):
        vandal.plant(queue)
    listed = vandal.system.run("postqueue", "-p")
    assert listed.returncode == 0, listed.stderr
    vandal.system.run("postqueue", "-f")
    all_put_aside(vandal)


def test_while_it_is_down(vandal: Vandal) -> None:
    vandal.system.halt()
    for queue in ("incoming", "active", "deferred", "maildrop"):
        vandal.plant(queue)
    vandal.system.start()
    all_put_aside(vandal)


def test_held_files(vandal: Vandal) -> None:
    """They stay where they are until somebody releases them."""
    vandal.plant("hold")
    system = vandal.system
    assert system.run("postqueue", "-p").returncode == 0
    assert system.run("postsuper", "-H", "ALL").returncode == 0
    system.run("postqueue", "-f")
    all_put_aside(vandal)


def test_what_is_no_queue_file(make_system: MakeSystem) -> None:
    """Neither read nor followed nor removed; a FIFO makes nobody wait."""
    system = make_system()
    system.allow("corrupt|showq.*: not a regular file")
    system.start()
    secret = system.top / "secret"
    secret.write_bytes(b"secret")
    ours = (system.user.pw_uid, system.user.pw_gid)
    made = system.top / "made"  # and moved in as it is, lest somebody meets it half made
    made.mkdir()
    sockets = []
    for number, queue in enumerate(("incoming", "deferred", "maildrop", "hold", "active")):
        name = f"ABCDEF{number}"
        (made / f"{name}1").mkdir()
        (made / f"{name}2").symlink_to(secret)
        os.mkfifo(made / f"{name}3", 0o700)
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(str(made / f"{name}4"))
        (made / f"{name}5").symlink_to("nowhere")
        (made / "README").write_bytes(b"x")
        (made / "-rf").write_bytes(b"x")
        (made / ".hidden").write_bytes(b"x")
        (made / ("x" * 200)).write_bytes(b"x")
        (made / os.fsdecode(b"\xff\n\x1b[2J")).write_bytes(b"x")
        for path in made.iterdir():
            os.chown(path, *ours, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(0o700)
        for path in list(made.iterdir()):
            path.rename(system.queue_directory / queue / path.name)
    system.run("postqueue", "-f")
    for _ in range(3):
        system.send("a@client.test", ["alice@virtual.test"], MESSAGE)
        system.sendmail("-f", "a@client.test", "alice@virtual.test", stdin=b"Subject: x\n\nx\n")
    wait_until(lambda: len(system.maildir("alice")) == 6, system.end_of_log)
    listed = system.run("postqueue", "-p")
    assert listed.returncode == 0, listed.stderr
    assert b"secret" not in listed.stdout
    assert secret.read_bytes() == b"secret"
    for each in sockets:
        each.close()


def test_files_that_cannot_be_opened(vandal: Vandal) -> None:
    """They wait until somebody has put their rights in order."""
    system = vandal.system
    system.allow("Permission denied")
    for queue in ("incoming", "deferred"):
        vandal.plant(queue, contents=[vandal.unbound], mode=0o100)
    names = "|".join(vandal.planted)
    system.run("postqueue", "-f")
    system.wait_for_log(f"warning: open active ({names}): Permission denied", count=2)
    system.send("a@client.test", ["alice@virtual.test"], MESSAGE)
    system.wait_for_log("to=<alice@virtual.test>.*status=sent")
    system.wait_for_deferred(3)
    for path in system.queued():
        path.chmod(0o700)
    system.run("postqueue", "-f")
    system.wait_for_log(f"({names}): to=<x@down.test>.*status=deferred", count=2)
