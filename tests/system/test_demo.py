"""`make demo`, without make: it works, says what it does, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.system.harness import ROOT
from tests.system.processes import PATIENCE


def run_demo(tmp_path: Path, user: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "packaging/demo")],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        user=user,
    )


def test_demo(tmp_path: Path) -> None:
    done = run_demo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("by SMTP", "sendmail -t", "status=sent", "Mail queue is empty", "stopped"):
        assert said in done.stdout, done.stdout
    assert "Traceback" not in done.stderr
