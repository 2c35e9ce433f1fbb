"""my.cnf."""

from __future__ import annotations

from pathlib import Path

import pytest

from libmail.tables.sql.mysql_options import read_options


def test_groups_and_includes(tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "a.cnf").write_text("[mail]\nport=3307\n")
    (more / "b.txt").write_text("[mail]\nport=1\n")
    (tmp_path / "one.cnf").write_text("[client]\nuser = included\n")
    (tmp_path / "my.cnf").write_text(
        "# comment\n[mysqld]\nuser=mysql\n[client]\nuser=me # not me\n; comment\nssl_ca = /ca\n"
        f"quick\n!includedir {more}\n!include {tmp_path}/one.cnf\n!includedir /nowhere\n"
    )
    found = read_options([f"{tmp_path}/none.cnf", f"{tmp_path}/my.cnf"], ["client", "mail"])
    assert found == {"user": "included", "ssl-ca": "/ca", "quick": "", "port": "3307"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a b", "a b"),
        ("'a # b'", "a # b"),
        ('"a b"', "a b"),
        ("a\\tb", "a\tb"),
        ("a\\sb", "a b"),
        ("a\\\\tb", "a\\tb"),
        ("a\\\\", "a\\"),
        ("\\\\\\\\", "\\\\"),
        ("a\\xb", "a\\xb"),
        ("", ""),
    ],
)
def test_values(tmp_path: Path, text: str, value: str) -> None:
    (tmp_path / "my.cnf").write_text(f"[client]\npassword={text}\n")
    assert read_options([f"{tmp_path}/my.cnf"], ["client"]) == {"password": value}


def test_file_that_includes_itself(tmp_path: Path) -> None:
    path = tmp_path / "my.cnf"
    path.write_text(f"[client]\nuser=x\n!include {path}\n")
    assert read_options([str(path)], ["client"]) == {"user": "x"}
