"""lmtp(8) against the LMTP server of Dovecot, which runs as in production: as root."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority, Issued
from tests.system.conftest import MakeSystem
from tests.system.harness import free_port, need_tool
from tests.system.processes import PATIENCE

pytestmark = pytest.mark.root

CONFIG = """\
protocols = lmtp
base_dir = {top}/run
state_dir = {top}/state
log_path = {top}/log
{tls}
first_valid_uid = 1
mail_location = maildir:{top}/mail/%n
auth_username_format = %n
passdb {{
  driver = passwd-file
  args = {top}/users
}}
userdb {{
  driver = passwd-file
  args = {top}/users
}}
service lmtp {{
  unix_listener {top}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
protocol lmtp {{
  postmaster_address = postmaster@mail.test
  recipient_delimiter = +
}}
"""


class Dovecot:
    """Its LMTP server for the users anna and otto. socket, port: where it listens."""

    def __init__(self, top: Path, certificate: Issued) -> None:
        dovecot = need_tool("dovecot")
        owner = pwd.getpwnam("nobody")
        self.top = top
        self.socket = top / "lmtp"
        self.port = free_port()
        ids = f"{owner.pw_uid}:{owner.pw_gid}"
        users = [f"{name}:{{plain}}x:{ids}::{top}/mail/{name}::\n" for name in ("anna", "otto")]
        (top / "users").write_text("".join(users))
        (top / "dovecot.conf").write_text(
            CONFIG.format(top=top, port=self.port, tls=self._tls(certificate))
        )
        (top / "mail").mkdir()
        os.chown(top / "mail", owner.pw_uid, owner.pw_gid)
        command = [dovecot, "-F", "-c", str(top / "dovecot.conf")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def _tls(self, certificate: Issued) -> str:
        copies = []
        for path in (certificate.certificate, certificate.key):
            copies.append(self.top / path.name)
            copies[-1].write_bytes(path.read_bytes())
            copies[-1].chmod(0o600)
        return f"ssl = yes\nssl_cert = <{copies[0]}\nssl_key = <{copies[1]}"

    def wait(self) -> None:
        """Until it listens."""
        deadline = time.monotonic() + PATIENCE
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                log = (self.top / "log").read_text() if (self.top / "log").exists() else ""
                raise AssertionError((self.process.communicate()[1], log))
            time.sleep(0.05)

    def mail(self, user: str) -> list[bytes]:
        """The new messages of a user."""
        folder = self.top / "mail" / user / "new"
        return [path.read_bytes() for path in folder.iterdir()] if folder.is_dir() else []

    def stop(self) -> None:
        """End it, and what it started."""
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def dovecot(short_tmp: Path, authority: Authority) -> Iterator[Dovecot]:
    server = Dovecot(short_tmp, authority.issue("lmtp.test", "lmtp.test"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def test_dovecot(make_system: MakeSystem, dovecot: Dovecot) -> None:
    """Over both kinds of socket: every recipient has a reply of its own."""
    system = make_system(privileged=True)
    system.route("unix.test", f"lmtp:unix:{dovecot.socket}")
    system.route("inet.test", f"lmtp:inet:127.0.0.1:{dovecot.port}")
    system.configure({}, ["lmtp unix - - n - - lmtp flags=DOR"])
    system.configure({"lmtp_destination_recipient_limit": "1"}, ["many unix - - n - - lmtp"])
    system.route("many.test", f"many:unix:{dovecot.socket}")
    system.start()
    body = b"first\r\n.dot\r\nFrom here\r\n" + "Grüße\r\n".encode() + b"y" * 900 + b"\r\n"
    names = ("anna@unix.test", "otto+box@inet.test")
    system.send("alice@virtual.test", names, b"Subject: one\r\n\r\n" + body)
    three = ["anna@many.test", "nobody@many.test", "otto@many.test"]
    system.send("alice@virtual.test", three, b"Subject: many\r\n\r\n" + body)
    where = rf"mail.test\[{dovecot.socket}\]"
    system.wait_for_log(
        rf"to=<anna@unix.test>, relay={where}, .*dsn=2.0.0, status=sent \(250 2.0.0"
    )
    inet = rf"relay=127.0.0.1\[127.0.0.1\]:{dovecot.port}"
    system.wait_for_log(rf"to=<otto\+box@inet.test>, {inet}, .*status=sent \(250 2.0.0 .* Saved")
    system.wait_for_log(rf"to=<anna@many.test>, relay={where}, .*status=sent")
    system.wait_for_log(rf"to=<otto@many.test>, relay={where}, .*status=sent")
    system.wait_for_log(r"to=<nobody@many.test>, .*dsn=5.1.1, status=bounced \(host .* said: 550 ")
    system.wait_for_queue_empty()
    for user, address in (("anna", "anna@unix.test"), ("otto", "otto+box@inet.test")):
        first, second = sorted(dovecot.mail(user), key=lambda text: b"Subject: many" in text)
        for message in (first, second):
            content = message.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
            assert content == body.replace(b"\r\n", b"\n")
        assert f"\nX-Original-To: {address}\nDelivered-To: {address}\n".encode() in (
            b"\n" + first.replace(b"\r\n", b"\n")
        )
    (report,) = system.maildir("alice")
    assert b"Final-Recipient: rfc822; nobody@many.test" in report
    assert report.count(b"Final-Recipient:") == 1


def test_dovecot_with_tls(make_system: MakeSystem, dovecot: Dovecot, authority: Authority) -> None:
    """STARTTLS in LMTP, with a server that must have the right name."""
    system = make_system(privileged=True)
    trusted = system.config_directory / "authority.pem"
    trusted.write_bytes(authority.certificate.read_bytes())
    system.configure(
        {
            "lmtp_tls_security_level": "secure",
            "lmtp_tls_CAfile": str(trusted),
            "lmtp_tls_loglevel": "1",
            "lmtp_tls_secure_cert_match": "lmtp.test",
        },
        [
            "lmtp unix - - n - - lmtp",
            "wrong unix - - n - - lmtp -o lmtp_tls_secure_cert_match=other.test",
        ],
    )
    system.route("right.test", f"lmtp:inet:127.0.0.1:{dovecot.port}")
    system.route("wrong.test", f"wrong:inet:127.0.0.1:{dovecot.port}")
    system.start()
    system.send("alice@virtual.test", ["anna@right.test"], b"Subject: one\r\n\r\nhello\r\n")
    system.wait_for_log(r"lmtp\[\d+\]: Verified TLS connection established to 127\.0\.0\.1\[")
    system.wait_for_log(r"to=<anna@right\.test>, .*tls=secure, dsn=2\.0\.0, status=sent")
    assert len(dovecot.mail("anna")) == 1
    system.send("alice@virtual.test", ["otto@wrong.test"], b"Subject: two\r\n\r\nhello\r\n")
    system.wait_for_log(r"to=<otto@wrong\.test>, .*status=deferred \(Server certificate not ver")
    assert not dovecot.mail("otto")
