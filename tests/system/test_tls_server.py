"""smtpd with TLS, against openssl(1) and swaks."""

from __future__ import annotations

import re
import smtplib
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.certificates import OPENSSL, Authority, openssl
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port, need_tool
from tests.system.processes import PATIENCE, wait_until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def secure(system: MailSystem, authority: Authority, **more: str) -> None:
    """Certificates for a system, of both kinds, and a port with TLS at once."""
    for kind, parameter in (("rsa", "smtpd_tls_cert_file"), ("ec", "smtpd_tls_eccert_file")):
        target = system.config_directory / f"{kind}.pem"
        target.write_bytes(authority.issue("mail.test", "mail.test", kind=kind).chain.read_bytes())
        more[parameter] = str(target)
    system.configure(
        {"smtpd_tls_security_level": "may", "smtpd_tls_loglevel": "1"} | more,
    )


def s_client(system: MailSystem, *words: str) -> str:
    """What `openssl s_client` tells of a session with STARTTLS."""
    where = ["-connect", f"127.0.0.1:{system.smtp_port}", "-starttls", "smtp"]
    command = [OPENSSL, "s_client", *where, *words, "-ign_eof", "-crlf"]
    done = subprocess.run(command, input=b"QUIT\n", capture_output=True, timeout=PATIENCE)
    return (done.stdout + done.stderr).decode(errors="replace")


def test_versions_keys_and_names(make_system: MakeSystem, authority: Authority) -> None:
    system = make_system()
    other = _copied(system, authority.issue("other.test", "other.test").chain)
    (system.config_directory / "sni").write_text(f"other.test {other}\n")
    table = f"texthash:{system.config_directory}/sni"
    secure(system, authority, tls_server_sni_maps=table)
    system.start()
    trusted = ["-CAfile", str(authority.certificate)]
    for version in ("-tls1_2", "-tls1_3"):
        told = s_client(system, *trusted, version)
        assert "Verification: OK" in told
        assert "221 2.0.0 Bye" in told
    rsa = s_client(system, *trusted, "-sigalgs", "RSA-PSS+SHA256")
    assert "server public key is 2048 bit" in rsa.lower()
    named = s_client(system, *trusted, "-servername", "other.test")
    assert "CN = other.test" in named
    assert "CN = mail.test" in s_client(system, *trusted, "-servername", "unknown.test")
    established = "Anonymous TLS connection established from localhost"
    system.wait_for_log(established, count=5)
    system.wait_for_log(rf"{established}\S+ to other\.test: TLSv1\.3 with cipher")


def test_sessions_are_resumed_by_any_process(make_system: MakeSystem, authority: Authority) -> None:
    """With a ticket, and with TLS 1.2 and no tickets out of the cache of tlsmgr."""
    system = make_system()
    cache = "lmdb:${data_directory}/smtpd_scache"
    secure(system, authority, smtpd_tls_session_cache_database=cache, max_use="1")
    system.start()
    for words in (["-tls1_2"], ["-tls1_2", "-no_ticket"]):
        saved = str(system.top / "session")
        for _ in range(50):  # the keys, and a session, are kept some time after the first
            assert "New, TLSv1.2" in s_client(system, *words, "-sess_out", saved)
            if "Reused, TLSv1.2" in s_client(system, *words, "-sess_in", saved):
                break
        else:
            raise AssertionError("no session was resumed")
    system.wait_for_log("TLS connection reused from localhost", count=2)


def test_handshakes_are_traced(make_system: MakeSystem, authority: Authority) -> None:
    """smtpd may not write in the queue: tlsmgr makes the file, as Postfix names it."""
    system = make_system()
    secure(system, authority, smtpd_tls_loglevel="0,trace")
    system.start()
    assert "221 2.0.0 Bye" in s_client(system)
    folder = system.queue_directory / "tlstrace"
    wait_until(lambda: any(file.stat().st_size for file in folder.iterdir()))
    [trace] = folder.iterdir()
    assert re.fullmatch(r"smtpd-\d{14}\.\d{6}-127\.0\.0\.1-[0-9a-f]{6}", trace.name)
    told = trace.read_text()
    assert "ClientHello" in told
    assert "EHLO" not in told


def test_tls_at_once(make_system: MakeSystem, authority: Authority) -> None:
    system = make_system()
    port = free_port()
    secure(system, authority)
    system.configure({}, [f"127.0.0.1:{port} inet n - n - - smtpd\n  -o smtpd_tls_wrappermode=yes"])
    system.start()
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.check_hostname = False
    with smtplib.SMTP_SSL("127.0.0.1", port, timeout=PATIENCE, context=context) as client:
        assert "starttls" not in client.ehlo("x")[1].decode().lower()
        assert client.docmd("MAIL", "FROM:<a@b.test>")[0] == 250


def test_mail_of_swaks(make_system: MakeSystem, authority: Authority) -> None:
    """A level that asks for TLS, a client certificate, and what is told of them."""
    swaks = need_tool("swaks")
    system = make_system()
    own = authority.issue("client.test", usage="clientAuth")
    secure(
        system,
        authority,
        smtpd_tls_security_level="encrypt",
        smtpd_tls_ask_ccert="yes",
        smtpd_tls_received_header="yes",
        smtpd_tls_CAfile=_copied(system, authority.certificate),
    )
    system.start()
    where = ["--server", "127.0.0.1", "--port", str(system.smtp_port)]
    mail = ["--from", "a@mail.test", "--to", "alice@virtual.test", *where]
    refused = subprocess.run([swaks, *mail], capture_output=True, text=True, timeout=PATIENCE)
    assert "530 5.7.0 Must issue a STARTTLS command first" in refused.stdout
    certificate = ["--tls-cert", str(own.certificate), "--tls-key", str(own.key)]
    command = [swaks, "--tls", *certificate, *mail]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout
    system.wait_for_log("to=<alice@virtual.test>.*status=sent")
    (message,) = system.maildir("alice")
    assert re.search(
        r"\(using TLSv1\.3 with cipher \S+ \(\d+/\d+ bits\)\n"
        r"\t key-exchange \S+ .*server-signature .*\n"
        r"\t client-signature .*\)\n"
        r'\t\(Client CN "client\.test", Issuer "Test CA" \(verified OK\)\)\n'
        r"\tby mail\.test \(Postfix\) with ESMTPS id ",
        message.decode(),
    )
    system.wait_for_log("Trusted TLS connection established from localhost")


def _copied(system: MailSystem, path: Path) -> str:
    target = system.config_directory / path.name
    target.write_bytes(path.read_bytes())
    return str(target)


def test_a_key_that_cannot_be_used(make_system: MakeSystem, authority: Authority) -> None:
    """Mail goes on; who wants TLS is told to come again."""
    system = make_system()
    secure(system, authority)
    wrong = openssl("genpkey", "-algorithm", "ed25519")
    (system.config_directory / "wrong.key").write_bytes(wrong)
    system.configure({"smtpd_tls_key_file": str(system.config_directory / "wrong.key")})
    system.allow("warning: .*")
    system.start()
    with system.smtp() as client:
        client.ehlo("x")
        assert client.docmd("STARTTLS") == (454, b"4.7.0 TLS not available due to local problem")
        assert client.docmd("MAIL", "FROM:<a@b.test>")[0] == 250
