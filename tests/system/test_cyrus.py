"""Clients that log in by the Cyrus library: a real saslauthd, a real sasldb, and slow ones."""

from __future__ import annotations

import base64
import os
import signal
import smtplib
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.system.conftest import MakePostfix, MakeSystem
from tests.system.harness import MailSystem, need_tool
from tests.system.mounts import in_place_of
from tests.system.processes import PATIENCE, wait_until

LOGIN: Final = "test"
PASSWORD: Final = "testpass"
AUXPROP: Final = "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {top}/sasldb2\n"
SASLAUTHD: Final = "pwcheck_method: saslauthd\nsaslauthd_path: {top}/mux\n"
CONTENT: Final = b"Subject: logged in\r\n\r\nbody\r\n"


def submission(
    make_system: MakeSystem, top: Path, config: str, *, chroot: str = "n", **more: str
) -> MailSystem:
    """A system where nobody may send but those who have logged in."""
    top.chmod(0o755)
    (top / "smtpd.conf").write_text(config.format(top=top))
    system = make_system(
        main={
            "smtpd_sasl_auth_enable": "yes",
            "cyrus_sasl_config_path": str(top),
            "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_sasl_authenticated_header": "yes",
            **more,
        },
        privileged=True,
    )
    system.configure({}, [f"127.0.0.1:{system.smtp_port} inet n - {chroot} - - smtpd"])
    system.start()
    return system


def sasldb(top: Path, **logins: str) -> None:
    """The accounts, made as administrators make them; anyone may read them here."""
    path = top / "sasldb2"
    for login, realm in logins.items():
        command = [need_tool("saslpasswd2"), "-p", "-c", "-f", str(path), "-u", realm, login]
        subprocess.run(command, input=PASSWORD.encode(), check=True)
    path.chmod(0o644)


@contextmanager
def saslauthd(top: Path, tmp_path: Path) -> Iterator[None]:
    """It checks the passwords of accounts, one of which is ours for the time of the test."""
    program = need_tool("saslauthd")
    made = subprocess.run(
        [need_tool("openssl"), "passwd", "-6", PASSWORD], capture_output=True, check=True
    )
    entries = {
        "/etc/passwd": f"{LOGIN}:x:4711:4711::/:/bin/false\n",
        "/etc/shadow": f"{LOGIN}:{made.stdout.decode().strip()}:19000:0:99999:7:::\n",
    }
    with ExitStack() as stack:
        for name, entry in entries.items():
            path = Path(name)
            stack.enter_context(in_place_of(path, path.read_text() + entry, tmp_path))
        errors = stack.enter_context((tmp_path / "errors").open("wb"))
        process = subprocess.Popen(
            [program, "-a", "shadow", "-d", "-n", "2", "-m", str(top)],
            stdin=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            wait_until((top / "mux").exists, (tmp_path / "errors").read_text)
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def answers(system: MailSystem, *lines: str) -> list[tuple[int, bytes]]:
    """What the server says to a client from elsewhere."""
    with system.smtp() as client:
        client.ehlo("smtp.ntnu.edu.tw")
        return [client.docmd(line) for line in lines]


def plain(login: str, password: str = PASSWORD) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{login}\0{password}".encode()).decode()


SLIDES: Final = "AUTH PLAIN dGVzdAB0ZXN0AHRlc3RwYXNz"
WRONG: Final = (535, b"5.7.8 Error: authentication failed: authentication failure")


def the_dialogue_of_the_slides(system: MailSystem) -> None:
    with system.smtp() as client:
        client.ehlo("smtp.ntnu.edu.tw")
        assert {*client.esmtp_features["auth"].split()} == {"DIGEST-MD5", "PLAIN", "CRAM-MD5"}
        assert client.docmd(SLIDES) == (235, b"2.7.0 Authentication successful")
        assert client.docmd("MAIL FROM: <yzlai@hotmail.com>")[0] == 250
        assert client.docmd("RCPT TO:<a@remote.test>")[0] == 250
    assert answers(system, plain(LOGIN, "wrong"), plain("nobody")) == [WRONG, WRONG]
    assert answers(system, "MAIL FROM:<a@b.test>", "RCPT TO:<a@remote.test>")[1][0] == 554


@pytest.mark.root
def test_slides_auxprop(make_system: MakeSystem, short_tmp: Path) -> None:
    sasldb(short_tmp, test="mail.test")
    config = AUXPROP + "mech_list: DIGEST-MD5 PLAIN CRAM-MD5\n"
    system = submission(make_system, short_tmp, config)
    system.allow("SASL PLAIN authentication failed|Password verification failed")
    the_dialogue_of_the_slides(system)
    assert PASSWORD not in system.log_text()


@pytest.mark.root
def test_slides_saslauthd(make_system: MakeSystem, short_tmp: Path, tmp_path: Path) -> None:
    config = SASLAUTHD + "mech_list: DIGEST-MD5 PLAIN CRAM-MD5\n"
    with saslauthd(short_tmp, tmp_path):
        system = submission(make_system, short_tmp, config)
        system.allow("SASL PLAIN authentication failed|Password verification failed")
        the_dialogue_of_the_slides(system)
    # It has ended: nobody knows whether the password is right.
    system.allow("cannot connect to saslauthd server")
    ((code, text),) = answers(system, SLIDES)
    assert (code, text) == (454, b"4.7.0 Temporary authentication failure: generic failure")


@pytest.mark.root
def test_security_options(make_system: MakeSystem, short_tmp: Path) -> None:
    sasldb(short_tmp, test="mail.test")
    system = submission(
        make_system, short_tmp, AUXPROP, smtpd_sasl_security_options="noplaintext, noanonymous"
    )
    with system.smtp() as client:
        client.ehlo()
        offered = {*client.esmtp_features["auth"].split()}
    assert offered >= {"SCRAM-SHA-256", "SCRAM-SHA-1", "DIGEST-MD5", "CRAM-MD5"}
    assert not offered & {"PLAIN", "LOGIN", "ANONYMOUS", "EXTERNAL"}


@pytest.mark.root
@pytest.mark.parametrize(
    "mechanism",
    ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"],
)
def test_mechanisms(
    make_system: MakeSystem, make_postfix: MakePostfix, short_tmp: Path, mechanism: str
) -> None:
    """The client is Debian's Postfix, with the library's other end."""
    sasldb(short_tmp, test="mail.test")
    system = submission(make_system, short_tmp, AUXPROP)
    peer = make_postfix(
        main={
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_password_maps": f"static:{LOGIN}:{PASSWORD}",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_sasl_mechanism_filter": mechanism,
        }
    )
    peer.route(system.name, f"smtp:[127.0.0.1]:{system.smtp_port}")
    peer.configure({"mydestination": "peer.test", "myhostname": "peer.test"})
    peer.start()
    peer.send("a@peer.test", [f"{system.user.pw_name}@{system.name}"], CONTENT)
    system.wait_for_log(f"client=.*, sasl_method={mechanism}, sasl_username={LOGIN}")
    system.wait_for_queue_empty()
    assert f"(Authenticated sender: {LOGIN})".encode() in system.mailbox.read_bytes()


@pytest.mark.root
def test_local_domain(make_system: MakeSystem, short_tmp: Path) -> None:
    sasldb(short_tmp, test="mail.test", anna="realm.test")
    system = submission(make_system, short_tmp, AUXPROP, smtpd_sasl_local_domain="realm.test")
    system.allow("SASL PLAIN authentication failed|Password verification failed")
    found = answers(system, plain("test"), plain("anna"))
    assert [code for code, _ in found] == [535, 235]
    assert answers(system, plain("test@mail.test"))[0][0] == 235


@pytest.mark.root
@pytest.mark.parametrize("chroot", ["n", "y"])
def test_a_slow_server_holds_up_nobody_else(
    make_system: MakeSystem, short_tmp: Path, chroot: str
) -> None:
    """saslauthd, played by one that answers when it is told to; its socket may be in the jail."""
    asked, go = threading.Semaphore(0), threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(4096)
            asked.release()
            go.wait(PATIENCE)
            connection.sendall(b"\x00\x02OK")

    def serve(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as server:
        system = submission(
            make_system,
            short_tmp,
            SASLAUTHD if chroot == "n" else "saslauthd_path: /mux\npwcheck_method: saslauthd\n",
            chroot=chroot,
            smtpd_recipient_restrictions="",
        )
        socket_path = (short_tmp if chroot == "n" else system.queue_directory) / "mux"
        server.bind(str(socket_path))
        socket_path.chmod(0o777)
        server.listen(50)
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        with ExitStack() as stack:
            waiting = [stack.enter_context(system.smtp()) for _ in range(8)]
            for client in waiting:
                client.ehlo()
                client.putcmd(plain(LOGIN))
            for _ in waiting:
                assert asked.acquire(timeout=PATIENCE)
            system.send("a@b.test", [f"{system.user.pw_name}@{system.name}"], CONTENT)
            go.set()
            assert [client.getreply()[0] for client in waiting] == [235] * len(waiting)


@pytest.mark.root
def test_hostile(make_system: MakeSystem, short_tmp: Path) -> None:
    """What is no login ends as a failure of one session, whatever the library makes of it."""
    sasldb(short_tmp, test="mail.test")
    system = submission(make_system, short_tmp, AUXPROP, smtpd_hard_error_limit="1000")
    system.allow("SASL")
    for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-256", "NTLM"):
        for response in (b"", b"\0", b"\0\0\0", b"a" * 9000, b"\xff" * 100, b"n,,n=,r=", b"=" * 50):
            words = base64.b64encode(response).decode() or "="
            with system.smtp() as client:
                client.ehlo()
                code, text = client.docmd(f"AUTH {mechanism}")
                for _ in range(5):
                    if code != 334:
                        break
                    code, text = client.docmd(words)
                assert code in (454, 500, 501, 535), (mechanism, response, text)
                assert client.noop()[0] == 250
    with system.smtp() as client, pytest.raises(smtplib.SMTPAuthenticationError):
        client.login(LOGIN, "wrong")
    assert answers(system, SLIDES)[0][0] == 235
