"""REQUIRETLS (RFC 8689): what comes with it waits, travels on, or comes back."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Sequence
from typing import Final, Self

import pytest

from tests.certificates import Authority
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port
from tests.system.processes import PATIENCE
from tests.system.sink import KEYWORDS, PythonSink

MESSAGE: Final = b"Subject: secret\r\nTLS-Required: no\r\n\r\nwords of a body\r\n"
FIELD: Final = b"\r\nRequire-TLS-ESMTP: yes\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Sink(PythonSink):
    """A server with TLS that remembers the MAIL commands. later: it refuses the first session."""

    def __init__(self, authority: Authority, *, knows: bool, later: bool = False) -> None:
        issued = authority.issue("mx.test", "mx.test")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        words = ("REQUIRETLS", *KEYWORDS) if knows else KEYWORDS
        super().__init__(free_port(), script=self._hear, keywords=words, tls=context)
        self.commands: list[str] = []
        self._later = later

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def _hear(self, verb: str, line: str) -> str | None:
        if verb == "CONNECT":
            later, self._later = self._later, False
            return "421 4.3.0 later" if later else "220 sink.test ESMTP"
        if verb == "MAIL":
            self.commands.append(line)
        return None


def mail_system(make_system: MakeSystem, authority: Authority, **more: str) -> MailSystem:
    """One with TLS at both ends, which asks for certificates."""
    mail = make_system()
    chain, trusted = mail.config_directory / "chain.pem", mail.config_directory / "ca.pem"
    chain.write_bytes(authority.issue("mail.test", "mail.test").chain.read_bytes())
    trusted.write_bytes(authority.certificate.read_bytes())
    settings = {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": str(chain),
        "smtp_tls_security_level": "secure",
        "smtp_tls_secure_cert_match": "mx.test",
        "smtp_tls_CAfile": str(trusted),
        "smtp_requiretls_policy": "enforce",
    }
    mail.configure(settings | more)
    return mail


def submit(mail: MailSystem, recipients: Sequence[str]) -> None:
    """A message with REQUIRETLS, if there are recipients, and the server knows that."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", mail.smtp_port, timeout=PATIENCE) as client:
        client.ehlo("client.test")
        assert not client.has_extn("requiretls")
        client.starttls(context=context)
        client.ehlo("client.test")
        assert client.has_extn("requiretls") == bool(recipients)
        if recipients:
            client.sendmail("me@client.test", recipients, MESSAGE, ["REQUIRETLS"])


def test_passed_on_and_returned(make_system: MakeSystem, authority: Authority) -> None:
    """Where a server knows it, the message goes there, after a while in the queue, too; where none
    does, a report without its body goes back, whatever the way back is like."""
    mail = mail_system(make_system, authority)
    with (
        Sink(authority, knows=True, later=True) as able,
        Sink(authority, knows=False) as unable,
    ):
        mail.route("able.test", f"smtp:[127.0.0.1]:{able.port}")
        mail.route("unable.test", f"smtp:[127.0.0.1]:{unable.port}")
        mail.route("client.test", f"smtp:[127.0.0.1]:{unable.port}")
        mail.start()
        submit(mail, ["x@able.test", "y@unable.test"])
        (report,) = unable.wait_for(1)
        mail.wait_for_deferred(1)
        mail.run("postqueue", "-f")
        (passed,) = able.wait_for(1)
        mail.wait_for_queue_empty()
    assert [line.split()[-1] for line in able.commands] == ["REQUIRETLS"]
    assert FIELD in passed.content
    assert passed.content.endswith(b"words of a body\r\n")
    assert (report.sender, report.recipients) == ("", ["me@client.test"])
    told = b" ".join(report.content.split())  # lines are broken
    assert b"requires REQUIRETLS, but there is no support for it at 127.0.0.1" in told
    assert b"\r\nSubject: secret\r\n" in report.content
    assert b"words of a body" not in report.content
    assert b"\r\nTLS-Required: no\r\n" not in report.content.partition(b"\r\n\r\n")[0]
    assert not any("REQUIRETLS" in line for line in unable.commands)
    mail.wait_for_log(r"to=<x@able\.test>, .*tls=secure/requiretls, dsn=2\.0\.0, status=sent")
    mail.wait_for_log(
        r"to=<y@unable\.test>, .*tls=secure/!requiretls:none, dsn=5\.7\.30, status=bounced"
    )


def test_users_may_ask_for_it(make_system: MakeSystem, authority: Authority) -> None:
    """By an option of sendmail(1), also where that leaves a file in maildrop, or by a field."""
    mail = mail_system(make_system, authority)
    with Sink(authority, knows=True) as sink:
        mail.route("able.test", f"smtp:[127.0.0.1]:{sink.port}")
        mail.start()
        mail.halt()
        mail.sendmail("-Orequiretls=yes", "x@able.test", stdin=b"Subject: 1\n\nbody\n")
        mail.start()
        sink.wait_for(1)
        mail.sendmail("-O", "requiretls=yes", "x@able.test", stdin=b"Subject: 2\n\nbody\n")
        sink.wait_for(2)
        mail.sendmail("x@able.test", stdin=b"Subject: 3\nRequire-TLS-ESMTP: yes\n\nbody\n")
        messages = sink.wait_for(3)
        mail.wait_for_queue_empty()
    assert all(FIELD in message.content for message in messages)
    assert all(line.endswith(" REQUIRETLS") for line in sink.commands)


def test_turned_off(make_system: MakeSystem, authority: Authority) -> None:
    mail = mail_system(make_system, authority, requiretls_enable="no")
    with Sink(authority, knows=True) as sink:
        mail.route("able.test", f"smtp:[127.0.0.1]:{sink.port}")
        mail.start()
        submit(mail, [])
        mail.sendmail("x@able.test", stdin=b"Subject: x\nRequire-TLS-ESMTP: yes\n\nbody\n")
        sink.wait_for(1)
    assert not any("REQUIRETLS" in line for line in sink.commands)
