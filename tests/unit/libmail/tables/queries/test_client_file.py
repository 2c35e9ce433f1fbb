"""Client files, and their settings in main.cf."""

from __future__ import annotations

from pathlib import Path

import pytest

from libmail.config import Config, open_config
from libmail.tables.queries.client_file import ClientFile
from libmail.tables.table import TableConfigError, TableOptions, run_now
from tests.unit.libmail.tables.recorder import Recorder

SETTINGS = """
# A comment
hosts = inet:db.example.org,
    unix:/run/db
user=someone
query = SELECT x FROM y WHERE z = '%s' AND $cost > 1
expansion_limit = 7
flag = Yes
empty =
pause = 2m
"""


def client_file(tmp_path: Path, text: str, log: Recorder | None = None) -> ClientFile:
    path = tmp_path / "x.cf"
    path.write_text(text)
    return ClientFile("mysql", str(path), TableOptions(log=log or Recorder()))


def test_values(tmp_path: Path) -> None:
    client = client_file(tmp_path, SETTINGS)
    assert client.text("hosts") == "inet:db.example.org,    unix:/run/db"
    assert client.text("user") == "someone"
    assert client.text("query") == "SELECT x FROM y WHERE z = '%s' AND $cost > 1"
    assert client.text("nothing", "default") == "default"
    assert client.text("empty", "default") == ""
    assert client.int("expansion_limit", 0) == 7
    assert client.int("size_limit", 3) == 3
    assert client.yes("flag", default=False)
    assert client.yes("other", default=True)
    assert client.seconds("pause", 1.0) == 120.0
    assert client.seconds("timeout", 1.5) == 1.5
    assert client.is_set("empty")
    assert not client.is_set("nothing")


def test_settings_in_main_cf(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(
        "mydomain = example.org\nstaff_base = dc=$mydomain\nstaff_limit = 3\n"
    )
    config = open_config(str(tmp_path))
    client = ClientFile("ldap", "staff", TableOptions(config=config))
    assert client.text("base") == "dc=example.org"
    assert client.int("limit", 0) == 3
    assert client.text("scope", "sub") == "sub"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("expansion_limit = many", "bad numerical"),
        ("expansion_limit = 99", "99"),
        ("no equals sign", "missing '='"),
        ("= x", "missing attribute name"),
        ("user = a\0b", "null byte"),
    ],
)
def test_unusable(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(TableConfigError, match=problem):
        client_file(tmp_path, text).int("expansion_limit", 0, high=50)


def test_other_mistakes(tmp_path: Path) -> None:
    client = client_file(tmp_path, "flag = maybe\npause = long\nquery =\n")
    with pytest.raises(TableConfigError, match="bad boolean configuration"):
        client.yes("flag", default=True)
    with pytest.raises(TableConfigError, match="bad time value"):
        client.seconds("pause", 1)
    for name in ("query", "dbname"):
        with pytest.raises(TableConfigError, match=f"x.cf: {name}: must not be empty"):
            client.text(name, required=True)
    with pytest.raises(TableConfigError, match=r"^open /does/not/exist\.cf: No such file"):
        ClientFile("mysql", "/does/not/exist.cf", TableOptions())
    bad = Config("").override([("staff_base", "${unclosed")])
    with pytest.raises(TableConfigError, match="staff_base"):
        ClientFile("ldap", "staff", TableOptions(config=bad)).text("base")


def test_the_last_of_two_settings_counts(tmp_path: Path) -> None:
    log = Recorder()
    client = client_file(tmp_path, "  lost = 1\nuser = a\nuser = a\nuser = b\n", log)
    assert client.text("user") == "b"
    assert log.lines[0].endswith('logical line must not start with whitespace: "  lost = 1"')
    assert log.lines[1].endswith("x.cf, line 4: overriding earlier entry: user=b")


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("user@example.com", True),
        ("user@EXAMPLE.com", True),
        ("a@b@example.com", True),
        ("user@other.org", True),
        ("user@sub.example.com", False),
        ("user", False),
        ("example.com", False),
        ("@example.com", False),
        ("user@", False),
    ],
)
def test_domain(tmp_path: Path, key: str, allowed: bool) -> None:
    client = client_file(tmp_path, "domain = example.com, inline:{other.org=x}\n")
    assert run_now(client.domains().allows(key)) is allowed
    assert run_now(client_file(tmp_path, "").domains().allows(key))
