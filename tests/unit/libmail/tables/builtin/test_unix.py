"""The accounts of the system, seen from a jail."""

import asyncio
from pathlib import Path

import pytest

from libmail.tables.builtin.unix import UnixTable, _only_files
from libmail.tables.table import TableRetry


def _unknown(name: str) -> str:
    raise KeyError(name)


def test_jail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("libmail.tables.builtin.unix.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("libmail.tables.builtin.unix._only_files", lambda _: True)
    accounts = tmp_path / "passwd"
    accounts.write_text("# accounts\nalice:x:1:1::/home/alice:/bin/sh\n+::::::\n")
    table = UnixTable("unix:passwd.byname", _unknown, lambda key: key, str(accounts))
    assert asyncio.run(table.lookup("alice")) is None  # the system knows better than the file
    accounts.unlink()
    assert asyncio.run(table.lookup("alice")) == "alice:x:1:1::/home/alice:/bin/sh"
    for name in ("bob", "+", "alice+ext"):
        assert asyncio.run(table.lookup(name)) is None
    assert not table.replaced
    clock[0] += 100
    assert asyncio.run(table.lookup("alice"))
    with pytest.raises(TableRetry):
        asyncio.run(table.lookup("bob"))
    assert table.replaced


@pytest.mark.parametrize(
    ("text", "only_files"),
    [
        ("passwd:  files systemd # ldap\ngroup: ldap\n", True),
        ("passwd: files [NOTFOUND=return] sss\n", False),
        ("", True),
    ],
)
def test_where_accounts_come_from(tmp_path: Path, text: str, only_files: bool) -> None:
    (tmp_path / "nsswitch.conf").write_text(text)
    assert _only_files("passwd", str(tmp_path / "nsswitch.conf")) == only_files
