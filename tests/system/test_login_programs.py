"""Mail programs log in, each in its own way, by the authentication of Debian's Dovecot."""

from __future__ import annotations

import base64
import shlex
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.dovecot import OTHER, PASSWORD, Dovecot
from tests.system.harness import MailSystem, need_tool
from tests.system.processes import PATIENCE
from tests.system.test_sasl import submission, tells_nothing

pytestmark = pytest.mark.root
SENDER = "bert@remote.test"


def run(words: Sequence[str], stdin: bytes) -> None:
    done = subprocess.run(words, input=stdin, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)


def swaks(system: MailSystem, method: str, folder: Path) -> None:
    words = [need_tool("swaks"), "--server", "127.0.0.1", "--port", str(system.smtp_port)]
    words += ["--auth", method, "--auth-user", OTHER, "--auth-password", PASSWORD]
    words += ["--from", SENDER, "--to", recipient(system), "--body", "by swaks"]
    run(words, b"")


def msmtp(system: MailSystem, method: str, folder: Path) -> None:
    (folder / "password").write_text(f"{PASSWORD}\n")
    words = [need_tool("msmtp"), "--host=127.0.0.1", f"--port={system.smtp_port}", "--tls=off"]
    words += [f"--auth={method.lower()}", f"--user={OTHER}", f"--from={SENDER}"]
    words += [f"--passwordeval=cat {shlex.quote(str(folder / 'password'))}", recipient(system)]
    run(words, b"Subject: test\n\nby msmtp\n")


def mutt(system: MailSystem, method: str, folder: Path) -> None:
    settings = folder / "muttrc"
    settings.write_text(
        f'set smtp_url="smtp://{OTHER}@127.0.0.1:{system.smtp_port}/"\n'
        f'set smtp_pass="{PASSWORD}"\nset smtp_authenticators="{method.lower()}"\n'
        f'set ssl_starttls=no\nset ssl_force_tls=no\nset from="{SENDER}"\nset copy=no\n'
        f'set use_envelope_from=yes\nset envelope_from_address="{SENDER}"\n'
    )
    words = [need_tool("mutt"), "-n", "-F", str(settings), "-s", "test", "--", recipient(system)]
    run(words, b"by mutt\n")


def thunderbird(system: MailSystem, method: str, folder: Path) -> None:
    """What Thunderbird says: no initial response to LOGIN, sizes and body types with MAIL, and a
    connection that stays open."""
    plain = base64.b64encode(f"\0{OTHER}\0{PASSWORD}".encode())
    name, password = (base64.b64encode(text.encode()) for text in (OTHER, PASSWORD))
    by_plain = ((b"AUTH PLAIN " + plain, b"235 "),)
    by_login = (
        (b"AUTH LOGIN", b"334 VXNlcm5hbWU6"),
        (name, b"334 UGFzc3dvcmQ6"),
        (password, b"235 "),
    )
    message = b"Subject: test\r\n\r\nby Thunderbird\r\n.\r\n"
    dialogue = (
        (b"EHLO [127.0.0.1]", b"250 "),
        *(by_plain if method == "PLAIN" else by_login),
        (b"MAIL FROM:<%b> BODY=8BITMIME SIZE=%d" % (SENDER.encode(), len(message)), b"250 "),
        (b"RCPT TO:<%b>" % recipient(system).encode(), b"250 "),
        (b"DATA", b"354 "),
        (message.removesuffix(b"\r\n"), b"250 2.0.0 Ok: queued as "),
        (b"QUIT", b"221 "),
    )
    with socket.create_connection(("127.0.0.1", system.smtp_port), PATIENCE) as connection:
        replies = connection.makefile("rb")
        assert replies.readline().startswith(b"220 ")
        for line, want in dialogue:
            connection.sendall(line + b"\r\n")
            while (reply := replies.readline())[3:4] == b"-":
                pass
            assert reply.startswith(want), (line, reply)


def recipient(system: MailSystem) -> str:
    return f"{system.user.pw_name}@{system.name}"


@pytest.mark.parametrize(
    ("program", "method"),
    [
        *((swaks, method) for method in ("PLAIN", "LOGIN", "CRAM-MD5")),
        *(
            (msmtp, method)
            for method in ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")
        ),
        *((mutt, method) for method in ("PLAIN", "CRAM-MD5")),
        *((thunderbird, method) for method in ("PLAIN", "LOGIN")),
    ],
)
def test_programs(
    make_system: MakeSystem,
    dovecot: Dovecot,
    tmp_path: Path,
    program: Callable[[MailSystem, str, Path], None],
    method: str,
) -> None:
    system = submission(make_system, "dovecot", str(dovecot.socket))
    program(system, method, tmp_path)
    system.wait_for_log(rf"client=.*, sasl_method={method}, sasl_username={OTHER}")
    system.wait_for_queue_empty()
    assert program.__name__ in system.mailbox.read_text().lower()
    tells_nothing(system)
