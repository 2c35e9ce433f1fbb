"""TLS with the programs of others at the other end, at each level, in both directions."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree

import pytest

from tests.certificates import Authority, Issued, openssl
from tests.system.conftest import MakePostfix, MakeSystem
from tests.system.exim import real_exim
from tests.system.harness import MailSystem, free_port, need_tool
from tests.system.processes import PATIENCE, wait_until

MESSAGE: Final = b"Subject: test\r\n\r\nhello\r\n"
ESTABLISHED: Final = re.compile(r"(\w+) TLS connection established to (?:\S+): TLSv1\.3 with")
DELIVERED: Final = re.compile(r"to=<x@(\S+)\.test>, .*dsn=([\d.]+), status=(\w+)(.*)")
BOXES: Final = {"virtual_mailbox_domains": "mailbox.test", "virtual_mailbox_maps": "static:alice/"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("mx.test", "mx.test", kind="rsa")


def certified(system: MailSystem, issued: Issued, authority: Authority) -> dict[str, str]:
    """Parameters of a server with this certificate, and of a client that trusts its authority."""
    etc = system.config_directory
    (etc / "chain.pem").write_bytes(issued.chain.read_bytes())
    (etc / "authority.pem").write_bytes(authority.certificate.read_bytes())
    if system.privileged:
        (etc / "chain.pem").chmod(0o600)
    return {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": str(etc / "chain.pem"),
        "smtp_tls_CAfile": str(etc / "authority.pem"),
        "smtp_tls_loglevel": "1",
    }


def levels(issued: Issued) -> dict[str, str]:
    """Options of a transport for each level, and for peers that are not the right one."""
    digest = openssl("x509", "-in", str(issued.certificate), "-noout", "-fingerprint", "-sha256")
    right = digest.decode().strip().partition("=")[2]
    wrong = right.replace("A", "B").replace("0", "1")
    of_fingerprint = "smtp_tls_fingerprint_digest=sha256 -o smtp_tls_fingerprint_cert_match"
    return {
        "none": "smtp_tls_security_level=none",
        "may": "smtp_tls_security_level=may",
        "encrypt": "smtp_tls_security_level=encrypt",
        "fingerprint": f"smtp_tls_security_level=fingerprint -o {of_fingerprint}={right}",
        "verify": "smtp_tls_security_level=verify -o smtp_tls_verify_cert_match=mx.test",
        "secure": "smtp_tls_security_level=secure -o smtp_tls_secure_cert_match=mx.test",
        "badfinger": f"smtp_tls_security_level=fingerprint -o {of_fingerprint}={wrong}",
        "badname": "smtp_tls_security_level=secure -o smtp_tls_secure_cert_match=other.test",
    }


EXPECTED: Final = {
    "none": (None, "2.0.0", "sent"),
    "may": ("Trusted", "2.0.0", "sent"),
    "encrypt": ("Trusted", "2.0.0", "sent"),
    "fingerprint": ("Verified", "2.0.0", "sent"),
    "verify": ("Verified", "2.0.0", "sent"),
    "secure": ("Verified", "2.0.0", "sent"),
    "badfinger": ("Untrusted", "4.7.5", "deferred"),
    "badname": ("Trusted", "4.7.5", "deferred"),
}


def sends_at_each_level(
    sender: MailSystem,
    port: int,
    issued: Issued,
    authority: Authority,
    *,
    misnamed: str = "Trusted",
) -> None:
    """Send a message at each level, and compare what the log says of it.

    misnamed: the word for a server with the name of another one.
    """
    services = [
        f"{name} unix - - n - - smtp -o {options}" for name, options in levels(issued).items()
    ]
    sender.configure(certified(sender, issued, authority), services)
    for name in EXPECTED:
        sender.route(f"{name}.test", f"{name}:[127.0.0.1]:{port}")
    sender.configure({"smtp_tls_note_starttls_offer": "no"})
    sender.start()
    for name, (trust, dsn, status) in EXPECTED.items():
        before = len(sender.log_text())
        sender.send("a@mail.test", [f"x@{name}.test"], MESSAGE)
        sender.wait_for_log(rf"to=<x@{name}\.test>, ")
        said = sender.log_text()[before:]
        found = ESTABLISHED.search(said)
        trust = misnamed if name == "badname" else trust
        assert (found[1] if found else None) == trust, (name, said)
        delivered = DELIVERED.search(said)
        assert delivered is not None
        assert delivered.group(1, 2, 3) == (name, dsn, status), said
        if status == "deferred":
            assert "Server certificate not " in delivered[4]


@pytest.mark.root
def test_to_debians_postfix(
    make_system: MakeSystem, make_postfix: MakePostfix, issued: Issued, authority: Authority
) -> None:
    receiver = make_postfix(main={"relay_domains": "test", "default_transport": "discard"})
    receiver.configure({**certified(receiver, issued, authority), "relay_transport": "discard"})
    receiver.start()
    sends_at_each_level(make_system(), receiver.smtp_port, issued, authority)


@pytest.mark.root
def test_from_debians_postfix(
    make_system: MakeSystem, make_postfix: MakePostfix, issued: Issued, authority: Authority
) -> None:
    receiver = make_system(main={"relay_domains": "test", "relay_transport": "discard"})
    receiver.configure(certified(receiver, issued, authority))
    receiver.start()
    port = receiver.smtp_port
    sends_at_each_level(make_postfix(main={}), port, issued, authority, misnamed="Untrusted")


@pytest.mark.root
def test_to_exim(make_system: MakeSystem, issued: Issued, authority: Authority) -> None:
    """Which has the library GnuTLS."""
    sender = make_system()
    with real_exim(certificate=issued) as exim:
        sender.configure(
            {
                **certified(sender, issued, authority),
                "smtp_tls_security_level": "secure",
                "smtp_tls_secure_cert_match": "mx.test",
                "virtual_mailbox_domains": None,
                "relay_domains": "virtual.test",
            }
        )
        sender.route("virtual.test", f"smtp:[127.0.0.1]:{exim.port}")
        sender.start()
        sender.send("a@mail.test", ["alice@virtual.test"], MESSAGE)
        sender.wait_for_log("Verified TLS connection established to .*: TLSv1.3 with")
        sender.wait_for_log(r"to=<alice@virtual\.test>, .*tls=secure, dsn=2\.0\.0, status=sent")
        wait_until(lambda: exim.maildir(), exim.log)
        assert re.search("<= a@mail.test .* X=TLS1.3:", exim.log())


@pytest.mark.root
def test_from_exim(make_system: MakeSystem, issued: Issued, authority: Authority) -> None:
    receiver = make_system(main=BOXES)
    receiver.configure(
        {**certified(receiver, issued, authority), "smtpd_tls_security_level": "encrypt",
         "smtpd_tls_loglevel": "1"}
    )  # fmt: skip
    receiver.start()
    with real_exim(receiver.smtp_port, certificate=issued, trusts=authority) as exim:
        client = [need_tool("swaks"), "--server", "127.0.0.1", "--port", str(exim.port)]
        mail = ["--from", "a@mail.test", "--to", "alice@mailbox.test"]
        done = subprocess.run([*client, *mail], capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout
        wait_until(lambda: receiver.log_lines("status=sent"), exim.log)
        assert re.search("=> alice@mailbox.test .* X=TLS1.3:.* CV=yes", exim.log())
    receiver.wait_for_log("Anonymous TLS connection established from localhost.*: TLSv1.3 with")


def test_gnutls(make_system: MakeSystem, issued: Issued, authority: Authority) -> None:
    program = need_tool("gnutls-cli")
    system = make_system()
    system.configure(certified(system, issued, authority))
    system.start()
    for priority, version in (("NORMAL:-VERS-TLS1.3", "TLS1.2"), ("NORMAL", "TLS1.3")):
        command = [program, "--starttls-proto=smtp", f"--port={system.smtp_port}", "127.0.0.1"]
        trust = [f"--x509cafile={authority.certificate}", "--verify-hostname=mx.test"]
        done = subprocess.run(
            [*command, *trust, f"--priority={priority}", "--crlf"],
            input=b"QUIT\n",
            capture_output=True,
            timeout=PATIENCE,
        )
        told = done.stdout.decode()
        assert "Status: The certificate is trusted." in told, (told, done.stderr)
        assert f"- Description: ({version}" in told
        assert "221 2.0.0 Bye" in told


@pytest.mark.parametrize("at_once", [False, True])
def test_msmtp(
    make_system: MakeSystem, issued: Issued, authority: Authority, at_once: bool
) -> None:
    program = need_tool("msmtp")
    system, port = make_system(main=BOXES), free_port()
    system.configure(
        certified(system, issued, authority),
        [f"127.0.0.1:{port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes"],
    )
    system.start()
    command = [program, "--host=127.0.0.1", f"--port={port if at_once else system.smtp_port}"]
    tls = [
        "--tls=on",
        f"--tls-starttls={'off' if at_once else 'on'}",
        "--tls-host-override=mx.test",
    ]
    trust = [f"--tls-trust-file={authority.certificate}"]
    done = subprocess.run(
        [*command, *tls, *trust, "--from=a@mail.test", "alice@mailbox.test"],
        input=MESSAGE.replace(b"\r\n", b"\n"),
        env={"PATH": os.environ["PATH"], "HOME": str(system.top)},
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    system.wait_for_log(r"to=<alice@mailbox\.test>, .*status=sent")


@pytest.fixture
def scanned(make_system: MakeSystem) -> Iterator[ElementTree.Element]:
    """What sslscan finds where TLS was turned on by the command for it."""
    program = need_tool("sslscan")
    system = make_system()
    if os.geteuid() == 0:
        os.chown(system.config_directory / "main.cf", system.user.pw_uid, system.user.pw_gid)
    assert system.run("postfix", "tls", "enable-server").returncode == 0
    system.start()
    done = subprocess.run(
        [program, "--xml=-", "--starttls-smtp", f"127.0.0.1:{system.smtp_port}"],
        capture_output=True,
        timeout=PATIENCE,
    )
    yield ElementTree.fromstring(done.stdout)
    system.allow("warning: TLS library problem")
    system.allow("non-SMTP command|SSL_accept error|too many errors")


def test_a_scanner_finds_nothing_weak(scanned: ElementTree.Element) -> None:
    enabled = {
        f"{one.get('type')}{one.get('version')}"
        for one in scanned.iter("protocol")
        if one.get("enabled") == "1"
    }
    assert enabled == {"tls1.2", "tls1.3"}
    ciphers = [one.attrib for one in scanned.iter("cipher")]
    assert len(ciphers) > 5
    assert {one["strength"] for one in ciphers} <= {"strong", "acceptable"}
    assert min(int(one["bits"]) for one in ciphers) >= 128
    assert not [
        one["cipher"] for one in ciphers if re.search("ADH|AECDH|NULL|RC4|DES", one["cipher"])
    ]
    assert not [
        one for one in scanned.iter("renegotiation") if one.get("supported") != one.get("secure")
    ]
    assert all(one.get("supported") == "0" for one in scanned.iter("compression"))
    assert all(one.get("vulnerable") == "0" for one in scanned.iter("heartbleed"))
