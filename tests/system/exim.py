"""A real Exim as the peer. Needs root.

Debian's packages of Exim and of Postfix exclude each other, so packaging/test-packages only unpacks
Exim. It takes mail for virtual.test into Maildirs and sends all other mail to `next_port`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.certificates import Authority, Issued
from tests.system.harness import free_port, need_tool
from tests.system.processes import is_listening, kill_session, wait_until

EXIM: Final = Path("/var/cache/posthorn-tests/exim4/usr/sbin/exim4")
OWNER: Final = "Debian-exim"
CONFIGURATION: Final = """\
exim_path = {exim}
primary_hostname = exim.test
spool_directory = {top}/spool
log_file_path = {top}/log/%slog
pid_file_path = {top}/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
{server}
rfc1413_hosts =
host_lookup =
keep_environment =
message_size_limit = 100M
deliver_drop_privilege = true
acl_smtp_rcpt = accept
acl_smtp_data = accept
begin routers
mailbox:
  driver = accept
  domains = virtual.test
  transport = maildir
next:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = next
begin transports
maildir:
  driver = appendfile
  directory = {top}/mail/alice
  maildir_format
next:
  driver = smtp
  port = {next_port}
{client}
begin retry
* * F,1h,1s
"""


class RealExim:
    """Use `real_exim`. port: where it listens; next_port: where it sends what is not its own."""

    def __init__(
        self, next_port: int, certificate: Issued | None, trusts: Authority | None
    ) -> None:
        if not EXIM.exists():
            need_tool(str(EXIM))
        self.port = free_port()
        self.top = Path(tempfile.mkdtemp(prefix="ex-"))
        owner = pwd.getpwnam(OWNER)
        self.top.chmod(0o755)
        for name in ("spool", "log", "mail"):
            (self.top / name).mkdir()
            os.chown(self.top / name, owner.pw_uid, owner.pw_gid)
        text = CONFIGURATION.format(
            exim=EXIM,
            top=self.top,
            port=self.port,
            next_port=next_port,
            server=self._server(certificate),
            client=self._client(trusts),
        )
        (self.top / "conf").write_text(text)
        self._command = [str(EXIM), "-C", str(self.top / "conf")]
        self._daemon = subprocess.Popen(
            [*self._command, "-bdf", "-q2s"],
            start_new_session=True,
            env={"PATH": "/usr/bin:/bin"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: is_listening(self.port), self.log)

    def _server(self, certificate: Issued | None) -> str:
        if certificate is None:
            return "tls_advertise_hosts ="
        lines = ["tls_advertise_hosts = *"]
        pair = (("tls_certificate", certificate.certificate), ("tls_privatekey", certificate.key))
        for name, path in pair:
            lines.append(f"{name} = {self._copied(path, name)}")
        return "\n".join(lines)

    def _client(self, trusts: Authority | None) -> str:
        if trusts is None:
            return ""
        return (
            f"  tls_verify_certificates = {self._copied(trusts.certificate, 'authority')}\n"
            "  tls_verify_hosts = *\n  tls_verify_cert_hostnames =\n  hosts_require_tls = *"
        )

    def _copied(self, path: Path, name: str) -> Path:
        """A copy of a file that only Exim may read."""
        copy = self.top / name
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o400)
        owner = pwd.getpwnam(OWNER)
        os.chown(copy, owner.pw_uid, owner.pw_gid)
        return copy

    def log(self) -> str:
        """Its log."""
        return "".join(path.read_text() for path in sorted((self.top / "log").iterdir()))

    def maildir(self) -> list[bytes]:
        """What was delivered here."""
        folder = self.top / "mail/alice/new"
        return [path.read_bytes() for path in folder.iterdir()] if folder.is_dir() else []

    def stop(self) -> None:
        """Ends every process of it and removes its files."""
        self._daemon.terminate()
        self._daemon.wait()
        kill_session(self._daemon.pid)
        shutil.rmtree(self.top)


@contextmanager
def real_exim(
    next_port: int = 1, *, certificate: Issued | None = None, trusts: Authority | None = None
) -> Iterator[RealExim]:
    """An Exim that runs. certificate: its own. trusts: whose certificate the next one must have."""
    exim = RealExim(next_port, certificate, trusts)
    try:
        yield exim
    finally:
        exim.stop()
