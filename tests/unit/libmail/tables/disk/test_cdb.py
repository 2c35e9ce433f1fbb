"""cdb: files: written, read, replaced, and broken."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.files.freshness import outdated
from libmail.tables.disk.cdb_file import CdbFile, open_named, write_cdb
from libmail.tables.table import TableConfigError, TableError, TableOptions, TableRetry, lookup_now


def write(path: Path, entries: dict[bytes, bytes]) -> None:
    write_cdb("cdb:x", f"{path}.cdb", entries, 0o640)


def test_format(tmp_path: Path) -> None:
    """The file of a program that uses tinycdb, octet for octet."""
    write(tmp_path / "x", {b"a@b.c": b"x y z", b"foo": b"bar"})
    data = (tmp_path / "x.cdb").read_bytes()
    assert len(data) == 2112
    assert data[:8] == bytes.fromhex("2008000000000000")
    assert data[2040:2048] == bytes.fromhex("4008000000000000")
    assert data[2048:].hex(" ", 16) == (
        "05000000050000006140622e63782079 "
        "207a0300000003000000666f6f626172 "
        "0000000000000000a337870b12080000 "
        "eb7c0e0a000800000000000000000000"
    )
    assert os.stat(tmp_path / "x.cdb").st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["x.cdb"]


def test_lookup(tmp_path: Path) -> None:
    many = {f"k{number}".encode(): f"v{number}".encode() for number in range(3000)}
    write(tmp_path / "x", {**many, b"null\0": b"ended\0", b"caf\xc3\xa9": b"\xc3\xa9"})
    table = open_named("cdb", f"{tmp_path}/x", TableOptions())
    assert table.spec == f"cdb:{tmp_path}/x"
    assert all(lookup_now(table, f"K{number}") == f"v{number}" for number in range(3000))
    assert lookup_now(table, "null") == "ended"
    assert lookup_now(table, "caf\xe9") == "\xe9"
    assert lookup_now(table, "k3000") is None
    assert lookup_now(table, "") is None
    table.close()


@given(entries=st.dictionaries(st.binary(), st.binary()), absent=st.binary())
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[bytes, bytes], absent: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "round"
    write(path, entries)
    file = CdbFile(f"{path}.cdb")
    assert {key: file.get(key) for key in entries} == entries
    assert file.get(absent) == entries.get(absent)
    file.close()


def test_replaced(tmp_path: Path) -> None:
    write(tmp_path / "x", {b"a": b"1"})
    table = open_named("cdb", f"{tmp_path}/x", TableOptions())
    assert outdated() != f"{tmp_path}/x.cdb"
    write(tmp_path / "x", {b"a": b"2"})
    assert lookup_now(table, "a") == "1"
    assert outdated() == f"{tmp_path}/x.cdb"
    table.close()


def test_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(TableConfigError, match=f"open database {tmp_path}/x.cdb: No such file"):
        open_named("cdb", f"{tmp_path}/x", TableOptions())
    (tmp_path / "x.cdb").write_bytes(b"x" * 2047)
    with pytest.raises(TableConfigError, match="not a cdb file"):
        open_named("cdb", f"{tmp_path}/x", TableOptions())


@given(st.binary(min_size=8, max_size=40), st.integers(0, 2200))
def test_broken_files(tmp_path_factory: pytest.TempPathFactory, junk: bytes, position: int) -> None:
    """They give another answer or a temporary error, and nothing else."""
    path = tmp_path_factory.getbasetemp() / "broken.cdb"
    write(path.with_suffix(""), {f"k{number}".encode(): b"v" * number for number in range(20)})
    data = path.read_bytes()
    path.write_bytes(data[:position] + junk + data[position + len(junk) :])
    if os.path.getsize(path) < 2048:
        return
    table = open_named("cdb", str(path.with_suffix("")), TableOptions(utf8=False))
    for number in range(20):
        try:
            lookup_now(table, f"k{number}")
        except TableRetry:
            pass
    table.close()


def test_slots_without_end(tmp_path: Path) -> None:
    """A table without an empty slot does not keep the reader for ever."""
    full = struct.pack("<II", 2048, 1) * 256 + struct.pack("<II", 0, 2048)
    (tmp_path / "x.cdb").write_bytes(full)
    table = open_named("cdb", f"{tmp_path}/x", TableOptions())
    assert lookup_now(table, "a") is None


def test_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"open database /nowhere/x\.cdb: No such file"):
        write_cdb("cdb:x", "/nowhere/x.cdb", {}, 0o600)
