"""What `postfix start` and `postfix reload` do before they turn to master(8)."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from commands.postfix import control
from libmail.config import Config, open_config


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(control, "info", lines.append)
    monkeypatch.setattr(control, "warning", lambda text: lines.append(f"warning: {text}"))
    return lines


def configuration(folder: Path, main: str) -> Config:
    folder.chmod(0o755)
    owner = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else "nobody"
    (folder / "main.cf").write_text(
        f"compatibility_level = 3.6\nmail_owner = {owner}\nalias_database =\n{main}\n"
    )
    return open_config(str(folder))


def test_tables_are_rebuilt_where_the_source_can_be_trusted(
    tmp_path: Path, said: list[str]
) -> None:
    good, bad, open_to_all = (tmp_path / name for name in ("good", "bad", "open"))
    for path, text in ((good, "a b\n"), (bad, "lonely\n"), (open_to_all, "a b\n")):
        path.write_text(text)
        path.chmod(0o644)
    open_to_all.chmod(0o666)
    config = configuration(
        tmp_path, f"alias_maps =\ntransport_maps = hash:{good} hash:{bad} hash:{open_to_all}"
    )
    control.rebuild_tables(config, ())
    assert said == [
        f"{good}.lmdb: rebuilt from {good}",
        f"warning: {bad}, line 1: expected format: key whitespace value; not rebuilding hash:{bad}",
        f"warning: {open_to_all} is group or other writable; not rebuilding hash:{open_to_all}",
    ]
    said.clear()
    bad.unlink()
    open_to_all.unlink()
    control.rebuild_tables(config, ())
    assert said == []
