"""What tablewatch approves: only what is good; what is bad is told once, when nobody writes."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from daemons.tablewatch import certificates
from daemons.tablewatch.certificates import CertificateKeeper
from libmail.files.approved import ApprovedFiles, Contents
from libmail.tls.certificate_files import CertificateFiles


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    warning = info


def judge(files: CertificateFiles, contents: Contents) -> str:
    return "it is bad" if b"bad" in contents else ""


class World:
    """One certificate in a file, and what becomes of it."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "c"
        self.files = CertificateFiles((str(self.path),))
        self.approved = ApprovedFiles()
        self.found = [self.files]
        self.keeper = self.begun()

    def begun(self) -> CertificateKeeper:
        return CertificateKeeper(self.approved, lambda: self.found, judge)

    def write(self, data: bytes) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.rename(self.path)

    def good(self) -> bytes | None:
        contents = self.approved.contents().get(self.files.key)
        return contents[0] if contents else None


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(certificates, "LOG", log)
    return log


def test_good_ones_replace_older_ones(tmp_path: Path, log: Log) -> None:
    world = World(tmp_path)
    world.write(b"one")
    assert world.keeper.look(settled=True)
    assert (world.good(), log.lines) == (b"one", [])
    assert not world.keeper.look(settled=True)
    world.write(b"two")
    assert world.keeper.look(settled=False)
    assert (world.good(), log.lines) == (b"two", [f"{world.path}: renewed"])
    assert base64.b64decode(world.keeper.value(str(world.path))) == b"two"


def test_bad_ones_do_not(tmp_path: Path, log: Log) -> None:
    world = World(tmp_path)
    world.write(b"one")
    world.keeper.look(settled=True)
    world.write(b"bad")
    assert not world.keeper.look(settled=False)
    assert log.lines == []  # the rest may be still to come
    for _ in range(3):
        assert not world.keeper.look(settled=True)
    assert log.lines == ["it is bad; the old certificate stays in use"]
    assert world.good() == b"one"
    assert base64.b64decode(world.keeper.value(str(world.path))) == b"one"
    world.path.unlink()
    world.keeper.look(settled=True)
    assert "No such file" in log.lines[1]
    world.write(b"one")  # as before
    assert not world.keeper.look(settled=True)
    world.write(b"three")
    assert world.keeper.look(settled=True)
    assert world.good() == b"three"


def test_without_anything_good_nothing_is_said(tmp_path: Path, log: Log) -> None:
    """Whoever uses it does so."""
    world = World(tmp_path)
    world.write(b"bad")
    assert not world.keeper.look(settled=True)
    assert (world.good(), log.lines) == (None, [])


def test_the_next_one_goes_on_with_what_was_good(tmp_path: Path, log: Log) -> None:
    world = World(tmp_path)
    world.write(b"one")
    world.keeper.look(settled=True)
    world.write(b"bad")
    assert not world.begun().look(settled=True)
    assert (world.good(), len(log.lines)) == (b"one", 1)
    world.found = []  # not configured any more
    assert world.begun().look(settled=True)
    assert world.approved.contents() == {}
