"""Names and defaults are those that `postconf -d` of Postfix 3.12 prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from commands.postconf import main
from libmail.config.installed import DEFAULT_CONFIG_DIRECTORY

ROOT = Path(__file__).parents[4]
REFERENCE = Path(__file__).with_name("defaults-3.12.txt")
OF_THE_MACHINE = {
    "mail_version", "mydomain", "myhostname", "mynetworks", "process_id", "process_name",
}  # fmt: skip


def _settings(text: str) -> dict[str, str]:
    lines = (line.partition(" =") for line in text.splitlines())
    return {name: value.strip() for name, _, value in lines}


def test_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "main.cf").write_text("")
    (tmp_path / "master.cf").write_text("")
    assert main(["-c", str(tmp_path), "-d"]) == 0
    ours = _settings(capsys.readouterr().out)
    expected = _settings(REFERENCE.read_text())
    page = (ROOT / "docs/configuration.md").read_text()
    of_our_own = set(re.findall(r"^### ([a-z0-9_]+) \(default: ", page, re.M))
    assert set(ours) == set(expected) | of_our_own
    assert not set(expected) & of_our_own
    expected["config_directory"] = DEFAULT_CONFIG_DIRECTORY
    changed = {name for name in expected if ours[name] != expected[name]}
    assert changed <= OF_THE_MACHINE
