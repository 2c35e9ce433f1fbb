"""Directories of programs that main.cf names, and that may belong to another installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.postfix.effects import ignored_directories
from libmail.config import Config, programs
from libmail.config.main_cf import parse_main_cf


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder, program in (("libexec", "master"), ("sbin", "postfix")):
        (tmp_path / "ours" / folder).mkdir(parents=True)
        (tmp_path / "ours" / folder / program).write_text(f"#!python {program}\n")
    own = {
        "daemon_directory": f"{tmp_path}/ours/libexec",
        "command_directory": f"{tmp_path}/ours/sbin",
    }
    monkeypatch.setattr(programs, "INSTALLED_DEFAULTS", own)
    return tmp_path / "ours"


def configuration(daemons: Path, commands: Path) -> Config:
    text = f"daemon_directory = {daemons}\ncommand_directory = {commands}\n"
    return Config("/etc/postfix", parse_main_cf(text, "main.cf")[0])


def test_of_another_installation(ours: Path, tmp_path: Path) -> None:
    other = tmp_path / "usr/lib/postfix/sbin"
    other.mkdir(parents=True)
    (other / "master").write_text("ELF")
    config = configuration(other, tmp_path / "not-there")
    assert programs.program_directory(config, "daemon_directory") == f"{ours}/libexec"
    assert programs.program_directory(config, "command_directory") == f"{ours}/sbin"
    (line,) = ignored_directories(config)
    for part in (str(other), "not-there", f"{ours}/libexec"):
        assert part in line


def test_our_own_by_other_names(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(ours / "libexec")  # as a package has it
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "postfix").write_bytes((ours / "sbin/postfix").read_bytes())
    config = configuration(tmp_path / "link", copies)
    assert programs.program_directory(config, "daemon_directory") == f"{tmp_path}/link"
    assert programs.program_directory(config, "command_directory") == str(copies)
    assert list(ignored_directories(config)) == []
