"""postfix upgrade-configuration: what it changes in an old master.cf."""

from __future__ import annotations

from pathlib import Path

from commands.postfix.upgrade import upgrade_configuration
from libmail.config import open_config, read_master_cf

OLD = """\
# an old file
pickup fifo n - n 60 1 pickup
qmgr unix n - n 300 1 oqmgr
smtp inet n - n - - smtpd
  -o smtpd_banner=hello"""


def services(path: Path) -> set[tuple[str, str]]:
    return {(entry.name, entry.type) for entry in read_master_cf(str(path))}


def test_missing_services_are_added_once(tmp_path: Path) -> None:
    (tmp_path / "main.cf").touch()
    master = tmp_path / "master.cf"
    master.write_text(OLD)
    master.chmod(0o640)
    upgrade_configuration(open_config(str(tmp_path)))
    text = master.read_text()
    assert text.startswith(f"{OLD}\n")
    found = services(tmp_path)
    assert {("smtp", "unix"), ("retry", "unix"), ("postlog", "unix-dgram")} <= found
    assert ("pickup", "unix") not in found
    assert master.stat().st_mode & 0o777 == 0o640
    upgrade_configuration(open_config(str(tmp_path)))
    assert master.read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main.cf", "master.cf"]
