"""What tablewatch does about a table that it cannot rebuild: only a bad source waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemons.tablewatch import tables
from daemons.tablewatch.tables import TableKeeper
from libmail.config import Config
from libmail.privileges import Identity
from libmail.tables.building.source import BadSource
from libmail.tables.building.upkeep import DistrustedSource, KeptTable
from libmail.tables.file_values import encoded
from libmail.tables.table import TableError

OWNER = Identity("me", os.geteuid(), os.getegid(), ())


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    warning = info


class Failing:
    """Rebuilding a table fails with the errors that are left."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors
        self.tries = 0

    def __call__(self, table: KeptTable, config: Config, *_: object) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        date = os.stat(table.name).st_mtime_ns
        path = table.path(config)
        Path(path).write_text("")
        os.utime(path, ns=(date, date))
        return path


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(tables, "LOG", log)
    return log


def keeper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *errors: Exception
) -> tuple[TableKeeper, KeptTable, Failing]:
    (tmp_path / "t").write_text("a b\n")
    table = KeptTable("lmdb", str(tmp_path / "t"), aliases=False)
    failing = Failing(list(errors))
    monkeypatch.setattr(KeptTable, "rebuild", lambda *args: failing(*args))
    return TableKeeper(Config("/etc/postfix"), (table,), OWNER, encoded), table, failing


@pytest.mark.parametrize(
    "error",
    [
        TableError("open database t.lmdb: No space left on device"),
        OSError(13, "Permission denied"),
        DistrustedSource("t is group or other writable"),
    ],
)
def test_what_may_pass_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log, error: Exception
) -> None:
    one, table, failing = keeper(tmp_path, monkeypatch, error, error)
    one.changed(table)
    one.catch_up()
    assert (failing.tries, len(log.lines)) == (2, 1)  # said once
    one.catch_up()
    assert failing.tries == 3
    assert log.lines[1:] == [f"{tmp_path}/t.lmdb: rebuilt from {tmp_path}/t"]
    one.catch_up()
    assert failing.tries == 3


def test_an_older_copy_is_tried_again_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    one, table, failing = keeper(tmp_path, monkeypatch, TableError("later"))
    (tmp_path / "t.lmdb").write_text("")
    os.utime(tmp_path / "t", (1_600_000_000, 1_600_000_000))
    one.catch_up()
    assert failing.tries == 0  # it is not newer than the table
    one.changed(table)
    one.catch_up()
    assert failing.tries == 2


def test_a_bad_source_waits_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    one, table, failing = keeper(tmp_path, monkeypatch, BadSource("t, line 1: no"))
    for _ in range(3):
        one.changed(table)
        one.catch_up()
    assert failing.tries == 1
    assert log.lines == [f"t, line 1: no; keeping the old content of lmdb:{tmp_path}/t"]
    date = os.stat(tmp_path / "t").st_mtime_ns
    (tmp_path / "fresh").write_text("c d\n")
    os.utime(tmp_path / "fresh", ns=(date, date))  # another file of the same date
    (tmp_path / "fresh").rename(tmp_path / "t")
    one.catch_up()
    assert failing.tries == 2
