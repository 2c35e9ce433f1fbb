"""Debian's Dovecot as authentication server; it runs as root, as in production."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.system.harness import free_port, need_tool
from tests.system.processes import PATIENCE

__all__ = ["LOGIN", "OTHER", "PASSWORD", "Dovecot"]

LOGIN: Final = "anna@login.test"
PASSWORD: Final = "a secret of Anna"
OTHER: Final = "bert"  # his password is the same

CONFIG: Final = """\
protocols =
base_dir = {top}/run
state_dir = {top}/state
log_path = {top}/log
ssl = no
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
disable_plaintext_auth = no
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {top}/users
}}
service auth {{
  unix_listener {top}/auth {{
    mode = 0666
  }}
  inet_listener {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""


class Dovecot:
    """Its authentication server. socket, port: where it listens."""

    def __init__(self, top: Path) -> None:
        self._program = need_tool("dovecot")
        self.top = top
        self.socket = top / "auth"
        self.port = free_port()
        (top / "users").write_text(
            "".join(f"{name}:{{plain}}{PASSWORD}\n" for name in (LOGIN, OTHER))
        )
        (top / "dovecot.conf").write_text(CONFIG.format(top=top, port=self.port))
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [self._program, "-F", "-c", str(self.top / "dovecot.conf")]
        mortal = [need_tool("setpriv"), "--pdeathsig", "TERM"]
        with (self.top / "errors").open("wb") as errors:
            self.process = subprocess.Popen(
                [*mortal, *command],
                stdin=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError((self.top / "errors").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, and what it started, also what does not listen to its end."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.socket.unlink(missing_ok=True)
