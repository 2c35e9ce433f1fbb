"""Indexed tables that follow their sources."""

import os
from pathlib import Path

import pytest

from libmail.config import Config
from libmail.config.main_cf import parse_main_cf
from libmail.config.master_cf import parse_master_cf
from libmail.privileges import Identity
from libmail.tables.building.source import BadSource
from libmail.tables.building.upkeep import (
    DistrustedSource,
    KeptTable,
    kept_tables,
)
from libmail.tables.registry import open_table
from libmail.tables.table import lookup_now

OWNER = Identity("me", os.geteuid(), os.getegid(), ())


def configuration(text: str) -> Config:
    entries, _ = parse_main_cf(text, "main.cf")
    return Config("/etc/postfix", entries)


@pytest.mark.parametrize(
    ("main", "master", "expected"),
    [
        ("", "", ["lmdb:/etc/aliases*"]),
        ("alias_maps=\nalias_database=", "", []),
        ("table_auto_rebuild=no", "", []),
        (
            "alias_maps=hash:/a, nis:mail.aliases\nalias_database=\n"
            "d=/etc/postfix\ntransport_maps = regexp:/r, lmdb:$d/t btree:/etc/b",
            "",
            ["hash:/a*", "lmdb:/etc/postfix/t", "btree:/etc/b"],
        ),
        (
            "alias_maps=\nalias_database=\nvirtual_alias_maps = unionmap:{hash:/u,cdb:/v}\n"
            "relocated_maps = proxy:hash:/p\nsmtpd_client_restrictions = check_client_access\n"
            "  { hash:/x, default_action=DUNNO }, some-hash:/n hash:relative",
            "",
            ["hash:/u", "cdb:/v", "hash:/p", "hash:/x"],
        ),
        (
            "alias_maps=\nalias_database=",
            "25 inet n - n - - smtpd -o smtpd_helo_restrictions=check_helo_access,dbm:/h\n",
            ["dbm:/h"],
        ),
        (  # caches, whatever else names them
            "alias_maps=\nalias_database=\nd=/var\nverified = btree:$d/verify\n"
            "smtp_tls_session_cache_database = btree:$d/scache\n"
            "address_verify_map = proxy:$verified\npostscreen_cache_map = lmdb:$d/screen\n"
            "lmtp_sasl_auth_cache_name = hash:$d/auth\nproxy_write_maps = proxy:hash:/w\n"
            "proxy_read_maps = $proxy_write_maps, hash:$d/screen, hash:/t",
            "smtps inet n - n - - smtpd -o smtpd_tls_session_cache_database=lmdb:/s\n",
            ["hash:/t"],
        ),
    ],
)
def test_which_tables(main: str, master: str, expected: list[str]) -> None:
    tables = kept_tables(configuration(main), parse_master_cf(master, "master.cf"))
    assert [f"{t.kind}:{t.name}{'*' if t.aliases else ''}" for t in tables] == expected


def source(tmp_path: Path, text: str, time: int = 1_700_000_000) -> Path:
    path = tmp_path / "table"
    path.write_text(text)
    os.utime(path, (time, time))
    return path


def found(path: Path, key: str) -> str | None:
    return lookup_now(open_table(f"lmdb:{path}"), key)


def test_a_table_follows_its_source(tmp_path: Path) -> None:
    config = configuration("")
    path = source(tmp_path, "root: alice\n")
    table = KeptTable("hash", str(path), aliases=True)
    assert table.outdated(config)
    assert table.rebuild(config, OWNER) == f"{path}.lmdb"
    assert not table.outdated(config)
    assert not table.differs(config)
    assert found(path, "root") == "alice"
    source(tmp_path, "root: bob\n", time=1_600_000_000)  # a copy of an older file
    assert not table.outdated(config)
    assert table.differs(config)
    table.rebuild(config, OWNER)
    assert found(path, "root") == "bob"


@pytest.mark.parametrize(
    ("text", "aliases", "line"),
    [
        ("a b\nlonely\n", False, 2),
        ("a: b\nlonely\n", True, 2),
        ("a: b\n\xff: c\n", True, 2),
        ('a b\n"half c\n', False, 2),
    ],
)
def test_a_bad_source_changes_nothing(tmp_path: Path, text: str, aliases: bool, line: int) -> None:
    config = configuration("smtputf8_enable = yes")
    path = source(tmp_path, "a: old\n" if aliases else "a old\n")
    table = KeptTable("lmdb", str(path), aliases)
    table.rebuild(config, OWNER)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadSource, match=f"table, line {line}: "):
        table.rebuild(config, OWNER)
    assert found(path, "a") == "old"


def test_without_a_source_there_is_nothing_to_do(tmp_path: Path) -> None:
    table = KeptTable("lmdb", str(tmp_path / "verify_cache"), aliases=False)
    assert not table.outdated(configuration(""))
    assert not table.differs(configuration(""))


def test_who_is_trusted(tmp_path: Path) -> None:
    path = source(tmp_path, "a b\n")
    table = KeptTable("lmdb", str(path), aliases=False)
    config = configuration("")
    tmp_path.chmod(0o755)
    path.chmod(0o644)
    table.rebuild(config, OWNER)
    if os.geteuid() == 0:
        os.chown(path, 4321, -1)
    with pytest.raises(DistrustedSource, match=f"^{path} belongs to user "):
        table.rebuild(config, Identity("somebody", 12345, 12345, ()))
    os.chown(path, os.geteuid(), -1)
    path.chmod(0o664)
    with pytest.raises(DistrustedSource, match=f"^{path} is group or other writable"):
        table.rebuild(config, OWNER)
    path.chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(DistrustedSource, match=f"^{tmp_path} is group or other writable"):
        table.rebuild(config, OWNER)
