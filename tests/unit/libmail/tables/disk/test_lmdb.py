"""LMDB tables: reading, changing, and what happens when files change under a reader."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from libmail.files.freshness import outdated
from libmail.tables import TableRetry, lookup_now, open_table
from libmail.tables.disk.lmdb_file import LmdbTable, OpenFile, to_bytes, to_text
from libmail.tables.disk.lmdb_writer import LmdbWriter
from libmail.tables.table import TableError, TableOptions

SMALL = 1 << 16


def entries(*pairs: str, null: bool = True) -> dict[bytes, bytes]:
    end = b"\0" if null else b""
    split = (pair.split("=") for pair in pairs)
    return {to_bytes(key) + end: to_bytes(value) + end for key, value in split}


def other(key: bytes) -> bytes:
    return key[:-1] if key.endswith(b"\0") else key + b"\0"


@pytest.fixture
def writer(tmp_path: Path) -> LmdbWriter:
    return LmdbWriter("lmdb:t", str(tmp_path / "t.lmdb"), SMALL)


@pytest.mark.parametrize("kind", ["lmdb", "hash", "btree", "dbm"])
@pytest.mark.parametrize("null", [True, False])
def test_lookup(writer: LmdbWriter, tmp_path: Path, kind: str, null: bool) -> None:
    writer.rebuild(entries("key=value", "b=2", null=null))
    table = open_table(f"{kind}:{tmp_path / 't'}", strict=True)
    assert lookup_now(table, "KEY") == "value"
    assert lookup_now(table, "ke") is None
    assert lookup_now(table, "") is None
    assert lookup_now(table, "x" * 1000) is None


def test_a_rebuild_is_seen_at_once(writer: LmdbWriter, tmp_path: Path) -> None:
    writer.rebuild(entries("a=1", "b=2"))
    table = open_table(f"lmdb:{tmp_path / 't'}")
    assert lookup_now(table, "a") == "1"
    inode = os.stat(tmp_path / "t.lmdb").st_ino
    run_elsewhere(tmp_path, "writer.rebuild({b'a\\0': b'new\\0'})")
    assert (lookup_now(table, "a"), lookup_now(table, "b")) == ("new", None)
    assert os.stat(tmp_path / "t.lmdb").st_ino == inode
    assert os.listdir(tmp_path) == ["t.lmdb"]


def run_elsewhere(tmp_path: Path, statement: str) -> None:
    """Run a statement in another process: LMDB opens a file once in a process."""
    code = (
        "from libmail.tables.disk.lmdb_writer import LmdbWriter\n"
        f"writer = LmdbWriter('lmdb:t', {str(tmp_path / 't.lmdb')!r}, {SMALL})\n{statement}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_file_that_outgrows_the_map(writer: LmdbWriter, tmp_path: Path) -> None:
    writer.rebuild(entries("a=1"))
    table = open_table(f"lmdb:{tmp_path / 't'}", map_size=SMALL)
    assert lookup_now(table, "a") == "1"
    run_elsewhere(tmp_path, "writer.rebuild({b'%05d\\0' % i: b'x' * 400 for i in range(9000)})")
    assert lookup_now(table, "08999") == "x" * 400


def test_add_until_the_map_is_full(writer: LmdbWriter, tmp_path: Path) -> None:
    for start in range(0, 2000, 500):
        writer.add(
            {b"%05d\0" % i: b"y" * 300 for i in range(start, start + 500)},
            replace=False,
            other=other,
        )
    assert lookup_now(open_table(f"lmdb:{tmp_path / 't'}"), "01999") == "y" * 300


def test_a_replaced_file_is_noticed(
    writer: LmdbWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libmail.tables.disk.lmdb_file._CHECK_INTERVAL", 0.0)
    writer.rebuild(entries("a=1"))
    table = LmdbTable("lmdb:t", str(tmp_path / "t.lmdb"), TableOptions())
    assert lookup_now(table, "a") == "1"
    LmdbWriter("lmdb:u", str(tmp_path / "u.lmdb"), SMALL).rebuild(entries("a=2"))
    os.rename(tmp_path / "u.lmdb", tmp_path / "t.lmdb")
    assert outdated() == str(tmp_path / "t.lmdb")
    assert lookup_now(table, "a") == "2"
    assert outdated() == ""


def test_a_removed_file_is_still_used(
    writer: LmdbWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libmail.tables.disk.lmdb_file._CHECK_INTERVAL", 0.0)
    writer.rebuild(entries("a=1"))
    table = LmdbTable("lmdb:t", str(tmp_path / "t.lmdb"), TableOptions())
    os.unlink(tmp_path / "t.lmdb")
    assert lookup_now(table, "a") == "1"


def test_two_tables_share_a_file(writer: LmdbWriter, tmp_path: Path) -> None:
    writer.rebuild(entries("a=1"))
    first, second = (open_table(f"{kind}:{tmp_path / 't'}") for kind in ("lmdb", "hash"))
    assert (lookup_now(first, "a"), lookup_now(second, "a")) == ("1", "1")
    first.close()
    assert lookup_now(second, "a") == "1"


def test_duplicates_in_both_conventions(writer: LmdbWriter, tmp_path: Path) -> None:
    writer.rebuild(entries("a=1", null=False))
    assert writer.add(entries("a=2", "b=3"), replace=False, other=other) == [b"a\0"]
    assert writer.add(entries("a=4"), replace=True, other=other) == [b"a\0"]
    file = OpenFile(str(tmp_path / "t.lmdb"), SMALL)
    assert file.items() == [(b"a\0", b"4\0"), (b"b\0", b"3\0")]


def test_delete(writer: LmdbWriter, tmp_path: Path) -> None:
    writer.rebuild(entries("a=1", "b=2"))
    assert writer.delete([(b"a\0", b"a"), (b"none\0", b"none"), (b"", b"\0")]) == 1
    assert lookup_now(open_table(f"lmdb:{tmp_path / 't'}"), "a") is None


def test_what_is_no_database_is_replaced_by_a_build(writer: LmdbWriter, tmp_path: Path) -> None:
    (tmp_path / "t.lmdb").write_bytes(b"garbage" * 5000)
    with pytest.raises(TableRetry):
        lookup_now(open_table(f"lmdb:{tmp_path / 't'}"), "a")
    writer.rebuild(entries("a=1"))
    assert lookup_now(open_table(f"lmdb:{tmp_path / 't'}"), "a") == "1"


def test_impossible_key(writer: LmdbWriter, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="too long"):
        writer.rebuild({b"x" * 600: b"y"})
    assert os.listdir(tmp_path) == []


def test_reader_takes_the_lock_of_postfix(writer: LmdbWriter, tmp_path: Path) -> None:
    writer.rebuild(entries("a=1"))
    held: list[bool] = []

    class Watched(OpenFile):
        def _begin(self) -> lmdb.Transaction:
            code = (
                "import fcntl,os,sys\n"
                f"fd = os.open({str(tmp_path / 't.lmdb')!r}, os.O_RDWR)\n"
                "try: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                "except OSError: sys.exit(3)\n"
            )
            done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
            held.append(done.returncode == 3)
            return super()._begin()

    file = Watched(str(tmp_path / "t.lmdb"), SMALL)
    assert file.get(b"a") == b"1\0"
    assert held == [True]
    with open(tmp_path / "t.lmdb", "r+b") as handle:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_bytes_that_are_not_utf8() -> None:
    assert to_text(to_bytes("a\udce9")) == "a\udce9"
