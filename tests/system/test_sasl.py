"""Clients that log in: by Debian's Dovecot, which runs as in production, as root; by a table."""

from __future__ import annotations

import base64
import smtplib
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from libmail.sasl.scram import ScramClient
from tests.certificates import Authority
from tests.system.conftest import MakeSystem
from tests.system.dovecot import LOGIN, PASSWORD, Dovecot
from tests.system.harness import MailSystem, need_tool
from tests.system.processes import PATIENCE, wait_until

CONTENT = b"Subject: logged in\r\n\r\nbody\r\n"


def submission(
    make_system: MakeSystem, kind: str, path: str, *, begin: bool = True, **more: str
) -> MailSystem:
    """A system where nobody may send but those who have logged in."""
    system = make_system(
        main={
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": kind,
            "smtpd_sasl_path": path,
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            "notify_classes": "protocol, policy, resource, software",
            "import_environment": "MAIL_CONFIG MAIL_FORBID_LATE_IMPORTS=1",
            **more,
        }
    )
    system.configure({"error_notice_recipient": system.user.pw_name})
    if begin:
        system.start()
    return system


def send(system: MailSystem, method: str, password: str = PASSWORD) -> str:
    """The answer to a message of a client that logs in so, "" if it was taken."""
    with system.smtp() as client:
        client.ehlo()
        client.esmtp_features["auth"] = method
        try:
            client.login(LOGIN, password)
            client.sendmail("a@remote.test", [f"{system.user.pw_name}@{system.name}"], CONTENT)
        except (smtplib.SMTPAuthenticationError, smtplib.SMTPResponseException) as error:
            text = error.smtp_error
            return f"{error.smtp_code} {text if isinstance(text, str) else text.decode()}"
    return ""


def scram(system: MailSystem, method: str) -> int:
    """The code of the last reply when a client proves that it knows the password."""
    with system.smtp() as client:
        client.ehlo()
        secret = ScramClient(method, LOGIN, PASSWORD)
        words = secret.first()
        code, challenge = client.docmd("AUTH", f"{method} {base64.b64encode(words).decode()}")
        assert code == 334
        words = secret.final(base64.b64decode(challenge))
        code, last = client.docmd(base64.b64encode(words).decode())
        if code == 334:
            secret.verify(base64.b64decode(last))
            code, _ = client.docmd("")
        return code


def tells_nothing(system: MailSystem) -> None:
    """Neither the log nor a message to the postmaster shows a password."""
    system.wait_for_queue_empty()
    forms = (PASSWORD, f"\0{LOGIN}\0{PASSWORD}", f"\0{LOGIN}\0wrong", "wrong")
    shown = system.log_text().encode() + system.mailbox.read_bytes()
    for form in (form.encode() for form in forms):
        assert form not in shown
        assert base64.b64encode(form) not in shown


@pytest.mark.root
@pytest.mark.parametrize("inet", [False, True])
def test_dovecot(make_system: MakeSystem, dovecot: Dovecot, inet: bool) -> None:
    where = f"inet:127.0.0.1:{dovecot.port}" if inet else str(dovecot.socket)
    system = submission(make_system, "dovecot", where, smtpd_sasl_authenticated_header="yes")
    for method in ("PLAIN", "LOGIN", "CRAM-MD5"):
        assert send(system, method) == ""
        who = f"sasl_method={method}, sasl_username={LOGIN}"
        system.wait_for_log(rf"client=.*, {who}")
    for method in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
        assert scram(system, method) == 235
    system.wait_for_queue_empty()
    assert system.mailbox.read_bytes().count(f"(Authenticated sender: {LOGIN})".encode()) == 3
    system.allow("authentication failed")
    assert send(system, "PLAIN", "wrong") == (
        "535 5.7.8 Error: authentication failed: (reason unavailable)"
    )
    system.wait_for_log(rf"SASL PLAIN authentication failed: .*, sasl_username={LOGIN}")
    tells_nothing(system)


@pytest.mark.root
def test_dovecot_restarts(make_system: MakeSystem, dovecot: Dovecot) -> None:
    system = submission(make_system, "dovecot", str(dovecot.socket))
    system.allow("Connection lost to authentication server")
    system.allow("Connect to Dovecot auth socket")
    system.allow("no SASL authentication mechanisms")
    with system.smtp() as logged_in, system.smtp() as asked:
        logged_in.login(LOGIN, PASSWORD)
        asked.ehlo()
        assert asked.docmd("AUTH LOGIN")[0] == 334
        dovecot.stop()
        # Who has logged in goes on; who was about to is asked to come again.
        assert not logged_in.sendmail(
            "a@remote.test", [f"{system.user.pw_name}@{system.name}"], CONTENT
        )
        name = base64.b64encode(LOGIN.encode()).decode()
        assert asked.docmd(name)[0] == 454
        with system.smtp() as client:
            assert client.ehlo()[0] == 421
        dovecot.start()
        wait_until(lambda: send(system, "PLAIN") == "", system.log_text)
        assert asked.docmd("NOOP")[0] == 250
        asked.login(LOGIN, PASSWORD)


def test_table(make_system: MakeSystem) -> None:
    system = submission(make_system, "table", "lmdb:$config_directory/logins", begin=False)
    done = system.run("postfix", "passwd", LOGIN, stdin=f"{PASSWORD}\n".encode())
    assert done.returncode == 0, done.stderr
    for name in ("logins", "logins.lmdb"):
        assert stat.S_IMODE((system.config_directory / name).stat().st_mode) == 0o600
    assert PASSWORD not in (system.config_directory / "logins").read_text()
    system.start()
    for method in ("PLAIN", "LOGIN"):
        assert send(system, method) == ""
    assert scram(system, "SCRAM-SHA-256") == 235
    system.allow("authentication failed")
    assert send(system, "LOGIN", "wrong") == (
        "535 5.7.8 Error: authentication failed: authentication failure"
    )
    with system.smtp() as client:
        client.ehlo()
        answers = client.mail("a@remote.test"), client.rcpt(f"anna@{system.name}")
        assert [code for code, _ in answers] == [250, 554]
    tells_nothing(system)


@pytest.fixture
def secured(make_system: MakeSystem, tmp_path: Path) -> Callable[..., MailSystem]:
    """Makes a system that asks a table, within TLS only; whom to trust is in its configuration."""
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("localhost", "localhost")

    def make(**more: str) -> MailSystem:
        system = submission(
            make_system,
            "table",
            "lmdb:$config_directory/logins",
            begin=False,
            smtpd_tls_security_level="encrypt",
            smtpd_tls_chain_files="$config_directory/key.pem, $config_directory/cert.pem",
            **more,
        )
        folder = system.config_directory
        for name, source in (("key", issued.key), ("cert", issued.certificate),
                             ("ca", authority.certificate)):  # fmt: skip
            (folder / f"{name}.pem").write_bytes(source.read_bytes())
        done = system.run("postfix", "passwd", LOGIN, stdin=f"{PASSWORD}\n".encode())
        assert done.returncode == 0, done.stderr
        return system

    return make


@pytest.mark.parametrize("protocols", [">=TLSv1.3", "TLSv1.2"])
def test_bound_to_the_channel(secured: Callable[..., MailSystem], protocols: str) -> None:
    """Our client and our server: one system sends to its own submission service."""
    system = secured(smtpd_tls_protocols=protocols)
    nexthop = f"[127.0.0.1]:{system.smtp_port}"
    system.configure(
        {
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_password_maps": f"inline:{{ {{{nexthop}={LOGIN}:{PASSWORD}}} }}",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_tls_security_level": "encrypt",
        }
    )
    system.route("next.test", f"smtp:{nexthop}")
    system.start()
    system.sendmail("-f", "a@remote.test", "x@next.test", stdin=CONTENT)
    who = f"sasl_method=SCRAM-SHA-256-PLUS, sasl_username={LOGIN}"
    system.wait_for_log(rf"client=.*, {who}")


def test_gsasl_binds(secured: Callable[..., MailSystem]) -> None:
    """GNU SASL, which msmtp uses, too."""
    gsasl = need_tool("gsasl")
    system = secured(smtpd_tls_protocols=">=TLSv1.3")
    system.start()
    ca = system.config_directory / "ca.pem"
    words = [gsasl, "--smtp", "--starttls", f"--x509-ca-file={ca}", "--quiet"]
    words += [f"--connect=localhost:{system.smtp_port}", "--mechanism=SCRAM-SHA-256-PLUS"]
    words += [f"--authentication-id={LOGIN}", f"--password={PASSWORD}", "--no-client-first"]
    done = subprocess.run(words, input=b"", capture_output=True, timeout=PATIENCE, check=False)
    assert b"235 2.7.0 Authentication successful" in done.stdout, done


def test_a_table_for_passwords_alone(make_system: MakeSystem) -> None:
    """Hashes of crypt(3): a client that prefers SCRAM is not led to try it."""
    system = submission(make_system, "table", "texthash:$config_directory/logins", begin=False)
    made = [need_tool("openssl"), "passwd", "-6", "-stdin"]
    done = subprocess.run(made, input=PASSWORD.encode(), capture_output=True, check=True)
    (system.config_directory / "logins").write_text(f"{LOGIN} {done.stdout.decode()}")
    system.start()
    with system.smtp() as client:
        client.ehlo()
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        client.login(LOGIN, PASSWORD)


def test_guessing(make_system: MakeSystem) -> None:
    """Processes count together; others log in meanwhile, though by the name that is guessed at."""
    system = submission(
        make_system,
        "table",
        "lmdb:$config_directory/logins",
        begin=False,
        smtpd_sessions_per_process="1",
        smtpd_sasl_failure_limit="3",
        smtpd_client_event_limit_exceptions="",
    )
    done = system.run("postfix", "passwd", LOGIN, stdin=f"{PASSWORD}\n".encode())
    assert done.returncode == 0, done.stderr
    system.start()
    system.allow("authentication failed")
    system.allow("Login failure limit exceeded: [45] from localhost")
    with system.smtp(), system.smtp() as waiting:  # each has a process
        waiting.ehlo()
        wrong = base64.b64encode(f"\0{LOGIN}\0wrong".encode()).decode()
        for number in range(4):
            if number % 2 or number == 2:
                code = int(send(system, "PLAIN", "wrong").split()[0])
            else:
                code = waiting.docmd("AUTH", f"PLAIN {wrong}")[0]
            assert code == (421 if number == 3 else 535)
        host, port = "127.0.0.1", system.smtp_port
        with smtplib.SMTP(host, port, source_address=("127.0.0.2", 0), timeout=120) as other:
            other.login(LOGIN, PASSWORD)
    lines = system.log_lines("SASL PLAIN authentication failed")
    assert len(lines) == 4
    system.wait_for_log(
        r"warning: Login failure limit exceeded: 4 from \S+ for service 127\.0\.0\.1:"
    )
    system.wait_for_log("status=sent")  # the postmaster is told
    tells_nothing(system)
