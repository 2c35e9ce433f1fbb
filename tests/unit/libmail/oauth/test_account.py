"""Files of OAuth accounts, and of refresh tokens."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from libmail.net.http import Url
from libmail.oauth.account import (
    AccountError,
    account_names,
    account_text,
    parse_account,
    read_account,
    valid_account,
)
from libmail.oauth.store import Busy, TokenStore

OWN = "token_endpoint = https://x.test/t\nclient_id = i\n"


def test_provider() -> None:
    account = parse_account("a", "provider = google\nclient_id = i\nclient_secret = s$x\n", "/f")
    assert account.token == Url("oauth2.googleapis.com", 443, "/token")
    assert account.device == Url("oauth2.googleapis.com", 443, "/device/code")
    assert account.identity() == {"client_id": "i", "client_secret": "s$x"}
    assert account.scope == "https://mail.google.com/"
    assert "s$x" not in repr(account)


def test_own_server() -> None:
    account = parse_account("a", OWN + "scope = mail\nauthorities = /ca\n", "/f")
    assert (account.token, account.device) == (Url("x.test", 443, "/t"), None)
    assert (account.scope, account.authorities) == ("mail", "/ca")
    assert account.identity() == {"client_id": "i"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "client_id is missing"),
        ("client_id = i\n", "token_endpoint is missing"),
        ("client_id = i\nprovider = gogle\n", "unknown provider: gogle"),
        (OWN + "clientid = i\n", "unknown setting: clientid"),
        (OWN + "token_endpoint = http://x.test/t\n", "token_endpoint: not an https address"),
        (OWN + "device_endpoint = x.test\n", "device_endpoint: not an https address"),
        (OWN + "scope = ä\n", "scope: not plain text"),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    with pytest.raises(AccountError, match=f"/f: {problem}"):
        parse_account("a", text, "/f")


def test_files(tmp_path: Path) -> None:
    folder = tmp_path / "oauth2"
    assert account_names(str(folder)) == []
    folder.mkdir()
    for name in ("anna@x.test", ".hidden", "a~", "b"):
        (folder / name).write_text(OWN)
        (folder / name).chmod(0o600)
    assert account_names(str(folder)) == ["anna@x.test", "b"]
    assert read_account(str(folder), "b").client_id == "i"
    (folder / "b").chmod(0o644)
    with pytest.raises(AccountError, match="others than its owner may read or change it"):
        read_account(str(folder), "b")
    with pytest.raises(AccountError, match=r"open .*/c: No such file"):
        read_account(str(folder), "c")


@pytest.mark.parametrize("name", ["", "..", ".a", "a/b", "a b", "-t", "a\n", "x" * 200])
def test_names(name: str) -> None:
    assert not valid_account(name)


def test_text() -> None:
    text = account_text({"provider": "google", "client_id": "i", "client_secret": ""})
    assert text == "provider = google\nclient_id = i\n"


def test_refresh_tokens(tmp_path: Path) -> None:
    store = TokenStore(str(tmp_path))
    assert store.read("a") == ""
    for token in ("one", "two"):
        store.write("a", token)
        assert store.read("a") == token
    path = tmp_path / "oauth2/a"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.write_text("not a\ntoken\n")
    assert store.read("a") == ""
    with store.locked("a"):
        with pytest.raises(Busy), store.locked("a"):
            pass
        with store.locked("b"):
            pass
    with store.locked("a"):
        pass
