"""smtp(8) logs in to a smarthost: Debian's Postfix, which asks Debian's Dovecot, or Cyrus."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.system.conftest import MakePostfix, MakeSystem
from tests.system.dovecot import LOGIN, OTHER, PASSWORD, Dovecot
from tests.system.harness import MailSystem, RealPostfix, free_port
from tests.system.test_cyrus import AUXPROP, sasldb
from tests.system.test_cyrus import LOGIN as CYRUS_LOGIN
from tests.system.test_cyrus import PASSWORD as CYRUS_PASSWORD

pytestmark = pytest.mark.root
MESSAGE = b"Subject: test\r\n\r\nhello\r\n"


def smarthost(make_postfix: MakePostfix, dovecot: Dovecot, *master: str) -> RealPostfix:
    """Relays for those that have logged in, and for nobody else."""
    system = make_postfix(
        main={
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": str(dovecot.socket),
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_client_restrictions": "",
        }
    )
    system.configure({}, master)
    system.start()
    return system


def client(make_system: MakeSystem, nexthop: str, logins: str, **more: str) -> MailSystem:
    """logins: entries of a table that only root can read."""
    system = make_system(
        main={
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_password_maps": "texthash:$config_directory/sasl_passwd",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_connection_cache_destinations": nexthop,
            **more,
        },
        privileged=True,
    )
    secrets = system.config_directory / "sasl_passwd"
    secrets.write_text(logins)
    secrets.chmod(0o600)
    system.route("next.test", f"smtp:{nexthop}")
    system.start()
    return system


def tells_nothing(*systems: MailSystem) -> None:
    for form in (PASSWORD, f"\0{LOGIN}\0{PASSWORD}", f"\0{OTHER}\0{PASSWORD}"):
        encoded = base64.b64encode(form.encode()).decode()
        for system in systems:
            assert form not in system.log_text()
            assert encoded not in system.log_text()


@pytest.mark.parametrize(
    ("words", "method"),
    [("", "SCRAM-SHA-256"), *((name, name.upper())
     for name in ("scram-sha-1", "cram-md5", "login", "plain"))],
)  # fmt: skip
def test_mechanisms(
    make_system: MakeSystem,
    make_postfix: MakePostfix,
    dovecot: Dovecot,
    words: str,
    method: str,
) -> None:
    server = smarthost(make_postfix, dovecot)
    nexthop = f"[127.0.0.1]:{server.smtp_port}"
    ours = client(
        make_system,
        nexthop,
        f"{nexthop} {LOGIN}:{PASSWORD}\n",
        smtp_sasl_mechanism_filter=words,
    )
    ours.send("a@client.test", ["x@next.test"], MESSAGE)
    ours.wait_for_log(r"to=<x@next\.test>.* dsn=2\.0\.0, status=sent")
    server.wait_for_log(f"sasl_method={method}, sasl_username={LOGIN}")
    tells_nothing(ours)


@pytest.mark.parametrize(
    "method", ["SCRAM-SHA-256", "SCRAM-SHA-1", "DIGEST-MD5", "CRAM-MD5", "LOGIN", "PLAIN"]
)
def test_cyrus(
    make_system: MakeSystem, make_postfix: MakePostfix, short_tmp: Path, method: str
) -> None:
    """The smarthost has the Cyrus library, and accounts made by saslpasswd2."""
    short_tmp.chmod(0o755)
    sasldb(short_tmp, **{CYRUS_LOGIN: "server.test"})
    server = make_postfix(
        main={
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_local_domain": "server.test",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_client_restrictions": "",
        }
    )
    folder = server.config_directory / "sasl"
    folder.mkdir()
    (folder / "smtpd.conf").write_text(AUXPROP.format(top=short_tmp))
    server.start()
    nexthop = f"[127.0.0.1]:{server.smtp_port}"
    ours = client(
        make_system,
        nexthop,
        f"{nexthop} {CYRUS_LOGIN}:{CYRUS_PASSWORD}\n",
        smtp_sasl_mechanism_filter=method,
    )
    ours.send("a@client.test", ["x@next.test"], MESSAGE)
    ours.wait_for_log(r"to=<x@next\.test>.* dsn=2\.0\.0, status=sent")
    server.wait_for_log(f"sasl_method={method}, sasl_username={CYRUS_LOGIN}")


def test_each_sender_logs_in(
    make_system: MakeSystem, make_postfix: MakePostfix, dovecot: Dovecot
) -> None:
    server = smarthost(make_postfix, dovecot)
    nexthop = f"[127.0.0.1]:{server.smtp_port}"
    ours = client(
        make_system,
        nexthop,
        f"anna@client.test {LOGIN}:{PASSWORD}\n@bert.test {OTHER}:{PASSWORD}\n"
        f"{nexthop} {LOGIN}:wrong\n",
        smtp_sender_dependent_authentication="yes",
        smtp_sasl_mechanism_filter="plain",
    )
    for number, sender in enumerate(("anna@client.test", "x@bert.test", "anna@client.test"), 1):
        ours.send(sender, ["x@next.test"], MESSAGE)
        ours.wait_for_log(r"to=<x@next\.test>.* status=sent", count=number)
    told = [line.rpartition("sasl_username=")[2] for line in server.log_lines("sasl_username=")]
    assert told == [LOGIN, OTHER, LOGIN]
    server.allow("authentication failed")
    server.allow("Connection lost to authentication server")
    ours.send("stranger@client.test", ["x@next.test"], MESSAGE)
    ours.wait_for_log(
        r"dsn=4\.7\.8, status=deferred \(SASL authentication failed; server"
        r" 127\.0\.0\.1\[127\.0\.0\.1\] said: 535 5\.7\.8 Error: authentication failed"
    )
    tells_nothing(ours)


def test_wrapper_mode(
    make_system: MakeSystem, make_postfix: MakePostfix, dovecot: Dovecot, tmp_path: Path
) -> None:
    """Port 465: TLS from the first octet, and only then the password."""
    issued = Authority(tmp_path).issue("mx.test", "mx.test")
    port = free_port()
    server = smarthost(
        make_postfix,
        dovecot,
        f"127.0.0.1:{port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes"
        f" -o smtpd_tls_security_level=encrypt -o smtpd_tls_cert_file={issued.certificate}"
        f" -o smtpd_tls_key_file={issued.key} -o smtpd_tls_auth_only=yes",
    )
    nexthop = f"[127.0.0.1]:{port}"
    ours = client(
        make_system,
        nexthop,
        f"{nexthop} {LOGIN}:{PASSWORD}\n",
        smtp_tls_wrappermode="yes",
        smtp_tls_security_level="encrypt",
        smtp_sasl_security_options="noplaintext",
        smtp_sasl_tls_security_options="noanonymous",
        smtp_sasl_mechanism_filter="plain, login",
    )
    ours.send("a@client.test", ["x@next.test"], MESSAGE)
    ours.wait_for_log(r"to=<x@next\.test>.* tls=encrypt, dsn=2\.0\.0, status=sent")
    server.wait_for_log(f"sasl_method=PLAIN, sasl_username={LOGIN}")
    tells_nothing(ours)
