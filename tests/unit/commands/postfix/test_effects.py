"""What `postfix check` says about settings and services that do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.postfix.effects import missing_programs, settings_without_effect
from libmail.config import open_config, read_master_cf

ROOT = Path(__file__).parents[4]
NONE = "this parameter has no effect"


def _remarks(folder: Path, main: str, master: str = "") -> list[str]:
    (folder / "main.cf").write_text(main)
    (folder / "master.cf").write_text(master)
    config = open_config(str(folder))
    found = settings_without_effect(config, read_master_cf(str(folder)))
    return [line.removeprefix(f"{folder}/") for line in found]


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        ("fork_delay = 7", [f"main.cf, line 1: fork_delay: {NONE}"]),
        ("fork_delay = 1s", []),
        ("smtp_sasl_path = x", []),
        ("# one\nfork_attempts = 7", [f"main.cf, line 2: fork_attempts: {NONE}"]),
        ("mime_header_checks = $header_checks", []),
        ("html_directory = /usr/share/doc", []),
        ("myhostname = a.test\nmy_own = smtpd_milters", []),
    ],
)  # fmt: skip
def test_main_cf(tmp_path: Path, main: str, expected: list[str]) -> None:
    assert _remarks(tmp_path, main + "\n") == expected


def test_master_cf(tmp_path: Path) -> None:
    master = (
        "smtp inet n - n - - smtpd\n"
        "submission inet n - n - - smtpd\n  -o fork_delay=7 -o header_checks=\n"
    )
    expected = [f"master.cf, line 2: fork_delay: {NONE}"]
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
