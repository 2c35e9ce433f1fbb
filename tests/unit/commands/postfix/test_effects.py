"""What `postfix check` says about settings and services that do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.postfix.effects import missing_programs, settings_without_effect
from libmail.config import open_config, read_master_cf

ROOT = Path(__file__).parents[4]
YET = "this parameter has no effect yet"


@pytest.fixture(autouse=True)
def _not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever they are today."""
    words = frozenset({"tcp_windowsize", "message_strip_characters"})
    monkeypatch.setattr("commands.postfix.effects.NOT_YET", words)


def _remarks(folder: Path, main: str, master: str = "") -> list[str]:
    (folder / "main.cf").write_text(main)
    (folder / "master.cf").write_text(master)
    config = open_config(str(folder))
    found = settings_without_effect(config, read_master_cf(str(folder)))
    return [line.removeprefix(f"{folder}/") for line in found]


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        ("tcp_windowsize = 1", [f"main.cf, line 1: tcp_windowsize: {YET}"]),
        ("tcp_windowsize = 0", []),
        ("smtp_sasl_path = x", []),
        ("# one\ntcp_windowsize = 1", [f"main.cf, line 2: tcp_windowsize: {YET}"]),
        ("mime_header_checks = $header_checks", []),
        ("fork_attempts = 7", ["main.cf, line 1: fork_attempts: this parameter has no effect"]),
        ("html_directory = /usr/share/doc", []),
        ("myhostname = a.test\nmy_own = smtpd_milters", []),
    ],
)  # fmt: skip
def test_main_cf(tmp_path: Path, main: str, expected: list[str]) -> None:
    assert _remarks(tmp_path, main + "\n") == expected


def test_master_cf(tmp_path: Path) -> None:
    master = (
        "smtp inet n - n - - smtpd\n"
        "submission inet n - n - - smtpd\n  -o tcp_windowsize=1 -o header_checks=\n"
    )
    expected = [f"master.cf, line 2: tcp_windowsize: {YET}"]
    assert _remarks(tmp_path, "", master) == expected


def test_programs(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("#!/bin/sh\n")
    (tmp_path / "there").chmod(0o755)
    (tmp_path / "main.cf").write_text(f"daemon_directory = {tmp_path}\n")
    (tmp_path / "master.cf").write_text(
        "smtp inet n - n - - smtpd\nrewrite unix - - n - - trivial-rewrite\n"
        "own unix - - n - - there\nabsent unix - - n - 1 absent\n"
    )
    found = missing_programs(open_config(str(tmp_path)), read_master_cf(str(tmp_path)))
    line = f"{tmp_path}/master.cf, line 4: service absent: {tmp_path}/absent: no such program"
    assert list(found) == [line]


def test_a_fresh_installation_starts_without_warnings() -> None:
    folder = str(ROOT / "etc/postfix")
    config, entries = open_config(folder), read_master_cf(folder)
    assert not [*settings_without_effect(config, entries), *missing_programs(config, entries)]
