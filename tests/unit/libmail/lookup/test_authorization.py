"""Which users may do something, and what they are called."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from libmail.lookup.authorization import AuthorizedUsers, LocalSenders, UserNames
from libmail.tables.maps import Maps


def _unknown(_: int) -> None:
    raise KeyError


@pytest.fixture
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the accounts, which the system can no longer see."""
    path = tmp_path / "passwd"
    path.write_text("# accounts\nroot:x:0:0::/root:/bin/sh\nnagios:x:105:7::/:/bin/false\n+\n")
    monkeypatch.setattr("libmail.lookup.authorization.pwd.getpwuid", _unknown)
    return path


def test_names_behind_a_jail(accounts: Path) -> None:
    names = UserNames(str(accounts))
    assert names.find(105) is None  # the system knows better than the file
    accounts.unlink()
    assert [names.find(uid) for uid in (105, 0, 10, 1050)] == ["nagios", "root", None, None]


def test_file_that_is_written_anew(accounts: Path) -> None:
    names = UserNames(str(accounts))
    accounts.write_text("late:x:200:200::/:/bin/sh\n")
    assert not names.replaced
    accounts.rename(accounts.with_name("outside"))  # what a jail hides is still there
    assert names.find(200) == "late"
    assert not names.replaced
    accounts.with_name("outside").unlink()  # as when another file takes its place
    assert names.replaced


def test_no_such_file(tmp_path: Path, accounts: Path) -> None:
    names = UserNames(str(tmp_path / "none"))
    assert names.find(105) is None
    assert not names.replaced


def test_users_in_a_jail(accounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "libmail.lookup.authorization.UserNames.__init__.__defaults__", (str(accounts),)
    )
    users = AuthorizedUsers("authorized_mailq_users", "nagios, icinga", "view the mail queue")
    senders = LocalSenders(Maps("m", ("inline:{nagios=monitor@x.test}",)), "<>", "")
    accounts.unlink()
    assert asyncio.run(users.allows(105))
    assert not asyncio.run(users.allows(106))
    assert users.refusal_of(106) == "User unknown(106) is not allowed to view the mail queue"
    assert asyncio.run(senders.refusal(105, "monitor@x.test")) == ""
    assert asyncio.run(senders.refusal(106, "monitor@x.test"))
