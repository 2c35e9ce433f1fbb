"""Passwords, as our clients say them and as we say them to others, are nowhere to be found.

Everything is told that can be: -v, the highest log level of TLS, notices of every class; and the
processes that know the passwords crash.
"""

from __future__ import annotations

import base64
import os
import signal
import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from libmail.sasl.passwords import hash_password
from tests.certificates import Authority
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port
from tests.system.processes import session_members, wait_until
from tests.system.sink import PythonSink
from tests.system.test_oauth2 import give
from tests.system.token_server import TokenServer, error, tokens

LOGIN, PASSWORD = "anna", "what anna knows"
OTHER, SECRET = "relay", "what we know"
CONTENT = b"Subject: test\r\n\r\nhello\r\n"
SERVICES = (
    "relay unix - - n - - smtp -v",
    "127.0.0.1:{port} inet n - n - - smtpd -v -o smtpd_tls_loglevel=4",
)


def shapes(login: str, password: str) -> Iterator[bytes]:
    """How a password could be seen."""
    for text in (password, f"\0{login}\0{password}"):
        yield text.encode()
        yield base64.b64encode(text.encode())


def found(folder: Path, kept: frozenset[str], secrets: Sequence[bytes]) -> list[str]:
    """Files with a secret in them. kept: those that are there to have them."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in kept]
    return [
        f"{path}: {secret!r}" for path in files for secret in secrets if secret in path.read_bytes()
    ]


def processes(system: MailSystem, program: str) -> list[int]:
    found = []
    for process in session_members(system.session):
        about = Path(f"/proc/{process.pid}")
        with suppress(OSError):  # it may be ending
            title = f" {(about / 'cmdline').read_text()} "
            if (about / "comm").read_text().startswith(program) or f" {program} " in title:
                found.append(process.pid)
    return found


def secured(system: MailSystem) -> smtplib.SMTP:
    """A session in TLS; who the server is does not matter here."""
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    client = system.smtp()
    client.starttls(context=trust)
    client.ehlo()
    return client


@pytest.mark.root
def test_nowhere(make_system: MakeSystem, tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("mx.test", "mx.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    told: list[str] = []

    def script(verb: str, line: str) -> str | None:
        """It repeats what it was told, and refuses the first message in a way that is reported."""
        if verb == "CONNECT":
            return "220 sink.test ESMTP"
        if verb == "AUTH":
            told.append(line)
            return f"235 2.7.0 thanks for {line.split()[-1]}"
        return "501 5.5.2 what" if verb == "MAIL" and len(told) == 1 else None

    with PythonSink(free_port(), script=script, keywords=("AUTH PLAIN",), tls=context) as sink:
        system = make_system(
            main={
                "default_transport": "relay",
                "relayhost": f"[127.0.0.1]:{sink.port}",
                "notify_classes": "data, policy, protocol, resource, software",
                "smtp_tls_security_level": "encrypt",
                "smtp_tls_loglevel": "4",
                "smtp_sasl_auth_enable": "yes",
                "smtp_sasl_password_maps": "texthash:$config_directory/passwords",
                "smtp_sasl_tls_security_options": "noanonymous",
                "smtp_connection_cache_destinations": f"[127.0.0.1]:{sink.port}",
                "smtpd_tls_security_level": "may",
                "smtpd_tls_chain_files": f"{issued.key}, {issued.certificate}",
                "smtpd_sasl_auth_enable": "yes",
                "smtpd_sasl_type": "table",
                "smtpd_sasl_path": "texthash:$config_directory/logins",
            },
            privileged=True,
        )
        system.configure(
            {"error_notice_recipient": f"{system.user.pw_name}@mail.test"},
            [line.format(port=system.smtp_port) for line in SERVICES],
        )
        folder = system.config_directory
        (folder / "passwords").write_text(f"[127.0.0.1]:{sink.port} {OTHER}:{SECRET}\n")
        (folder / "logins").write_text(f"{LOGIN} {hash_password(PASSWORD)}\n")
        system.allow("SASL|501 5.5.2|authentication failed|killed by signal")
        system.start()
        right = base64.b64encode(f"\0{LOGIN}\0{PASSWORD}".encode()).decode()
        with secured(system) as client:
            assert client.docmd(f"AUTH PLAIN {right} x")[0] == 501  # a mistake, which is reported
        client = secured(system)
        client.login(LOGIN, PASSWORD)
        for number in range(2):
            client.sendmail(f"a{number}@mail.test", ["x@elsewhere.test"], CONTENT)
            system.wait_for_log("status=(bounced|sent).*(501|250) ", count=number + 1)
        assert len(told) == 2
        for program in ("smtpd", "smtp"):
            crash(system, program)
        wait_until(lambda: len(system.log_lines("killed by signal 11")) >= 2, system.log_text)
        client.close()
        system.wait_for_queue_empty()
    reports = system.mailbox.read_bytes()
    for said in (
        b" In:  AUTH PLAIN <masked>",
        b" Out: AUTH PLAIN <masked>",
        b"thanks for <masked>",
    ):
        assert said in reports
    secrets = [*shapes(LOGIN, PASSWORD), *shapes(OTHER, SECRET)]
    assert found(system.top, frozenset({"passwords"}), secrets) == []


def crash(system: MailSystem, program: str) -> None:
    """The memory of a process that has changed its ids is root's alone, also as a core."""
    pids = processes(system, program)
    assert pids, program
    for pid in pids:
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0
        os.kill(pid, signal.SIGSEGV)


def shown_by_proc(system: MailSystem) -> bytes:
    """What /proc has of the processes for anybody, and for their user."""
    files = [
        Path(f"/proc/{process.pid}/{name}")
        for process in session_members(system.session)
        for name in ("cmdline", "environ")
    ]
    return b"".join(file.read_bytes() for file in files if file.exists())


@pytest.mark.root
def test_tokens_nowhere(make_system: MakeSystem, tmp_path: Path) -> None:
    """Access tokens, refresh tokens and the client's secret; both servers repeat what they hear."""
    refresh, other, access = "1//a-refresh-token", "1//another-one", "ya29.an-access-token"
    told: list[str] = []

    def script(verb: str, line: str) -> str | None:
        if verb == "CONNECT":
            return "220 sink.test ESMTP"
        if verb == "AUTH":
            told.append(line)
            return f"{235 if len(told) > 1 else 454} 4.7.0 {line.split()[-1]} {access}"
        return None

    def gives(path: str, form: dict[str, str]) -> bytes:
        said = form.get("refresh_token", "")
        if len(server.asked) == 1:
            return error("invalid_grant", f"no {said} for {form['client_secret']}")
        return tokens(access, refresh_token=other)

    with (
        TokenServer(tmp_path, gives) as server,
        PythonSink(free_port(), script=script, keywords=("AUTH XOAUTH2",)) as sink,
    ):
        nexthop = f"[127.0.0.1]:{sink.port}"
        system = make_system(
            main={
                "default_transport": "relay",
                "relayhost": nexthop,
                "notify_classes": "data, policy, protocol, resource, software",
                "smtp_sasl_auth_enable": "yes",
                "smtp_sasl_password_maps": f"inline:{{ {{{nexthop}=anna:{{oauth2}}anna}} }}",
                "smtp_sasl_security_options": "noanonymous",
            },
            master=("relay unix - - n - - smtp -v", "oauth2 unix - - n 3600 1 oauth2 -v"),
            privileged=True,
        )
        system.configure({"error_notice_recipient": f"{system.user.pw_name}@mail.test"})
        server.account(system.config_directory / "oauth2", "anna")
        system.allow("no access token|454 4.7.0|killed by signal")
        give(system, refresh)
        system.start()
        for number, outcome in enumerate(("deferred.*agree again", "deferred.*said: 454", "sent")):
            system.sendmail("-f", "a@mail.test", "x@elsewhere.test", stdin=CONTENT)
            system.wait_for_log(f"status={outcome}")
            if not number:
                give(system, f"{refresh}-2")
        for program in ("oauth2", "smtp"):
            crash(system, program)
        wait_until(lambda: len(system.log_lines("killed by signal 11")) >= 2, system.log_text)
        said = shown_by_proc(system) + system.run("postconf").stdout
    secrets = [
        one
        for text in (refresh, other, access, "our-client-secret")
        for one in shapes("anna", text)
    ]
    secrets += [line.split()[-1].encode() for line in told]
    assert len(told) == 2
    assert not [secret for secret in secrets if secret in said]
    assert found(system.top, frozenset({"anna"}), secrets) == []
    kept = system.top / "data/oauth2/anna"
    assert kept.stat().st_mode & 0o777 == 0o600
