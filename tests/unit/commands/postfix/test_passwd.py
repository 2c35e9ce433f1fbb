"""postfix passwd: which table, what becomes of its source, and who can read it."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest

from commands.postfix.passwd import set_password, with_entry
from libmail.config import open_config
from libmail.log import Fatal
from libmail.sasl.passwords import PasswordChecker

MASTER = "submission inet n - n - - smtpd\n"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", "anna new\n"),
        ("bert x\n", "bert x\nanna new\n"),
        ("bert x", "bert x\nanna new\n"),
        ("anna old\nbert x\n", "anna new\nbert x\n"),
        ("ANNA\told\n", "anna new\n"),
        (
            "# anna\n\nanna\n  old\n# more\n  and more\nbert x\n",
            "# anna\n\nanna new\n# more\nbert x\n",
        ),
        ("bert x\n  y\nanna old\n", "bert x\n  y\nanna new\n"),
        ("anna 1\nbert x\nanna 2\n", "anna new\nbert x\n"),
        ("annabel x\n", "annabel x\nanna new\n"),
    ],
)
def test_entries(text: str, want: str) -> None:
    assert with_entry(text, "anna", "new") == want


def give(folder: Path, main: str, login: str = "anna@x.test", master: str = MASTER) -> None:
    (folder / "main.cf").write_text(main)
    (folder / "master.cf").write_text(master)
    set_password(open_config(str(folder)), login)


@pytest.fixture(autouse=True)
def _typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a secret\n"))


@pytest.mark.parametrize("where", ["main", "master"])
def test_a_new_table(tmp_path: Path, where: str) -> None:
    settings = f"smtpd_sasl_type=table\nsmtpd_sasl_path=texthash:{tmp_path}/logins\n"
    if where == "main":
        give(tmp_path, settings)
    else:
        give(tmp_path, "", master=MASTER + "".join(f"  -o {one}\n" for one in settings.split()))
    path = tmp_path / "logins"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    login, entry = path.read_text().split()
    assert login == "anna@x.test"
    assert PasswordChecker().matches(entry, "a secret")


def test_an_old_table_becomes_secret(tmp_path: Path) -> None:
    path = tmp_path / "logins"
    path.write_text("bert x\n")
    path.chmod(0o644)
    give(tmp_path, f"smtpd_sasl_type = table\nsmtpd_sasl_path = texthash:{path}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("bert x\nanna@x.test {SCRAM-SHA-256}")


@pytest.mark.parametrize(
    ("main", "login", "text"),
    [
        ("", "a", "no service has smtpd_sasl_type = table"),
        ("smtpd_sasl_type = table\nsmtpd_sasl_path = nonsense", "a", "smtpd_sasl_path: open"),
        ("smtpd_sasl_type = table\nsmtpd_sasl_path = pcre:/x", "a", "no table of this type"),
        ("smtpd_sasl_type = table\nsmtpd_sasl_path = texthash:/no/x", "a", "open /no/x"),
        *(
            ("", login, "not a login")
            for login in ("", "a b", "#a", "a\0", "a\nb", '"a"', "a" * 256)
        ),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, main: str, login: str, text: str) -> None:
    with pytest.raises(Fatal, match=text):
        give(tmp_path, main + "\n", login)


def test_two_tables(tmp_path: Path) -> None:
    master = MASTER + "  -o smtpd_sasl_path=texthash:/b\n"
    with pytest.raises(Fatal, match="more than one table of logins: texthash:/a texthash:/b"):
        give(tmp_path, "smtpd_sasl_type = table\nsmtpd_sasl_path = texthash:/a\n", master=master)


def test_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    path = tmp_path / "logins"
    with pytest.raises(Fatal, match="a password has 1 to 512 octets"):
        give(tmp_path, f"smtpd_sasl_type = table\nsmtpd_sasl_path = texthash:{path}\n")
    assert not path.exists()
