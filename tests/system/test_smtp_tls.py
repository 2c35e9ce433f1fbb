"""smtp(8) and TLS in a running mail system, with openssl's library at the other end."""

from __future__ import annotations

import ssl
from typing import Final

import pytest

from tests.certificates import Authority, Issued
from tests.system.conftest import MakeSystem
from tests.system.harness import free_port
from tests.system.sink import PythonSink

SENDER: Final = "sender@client.test"
MESSAGE: Final = b"Subject: test\r\n\r\nhello\r\n"
LARGE: Final = b"Subject: large\r\n\r\n" + (b"0123456789" * 7 + b"\r\n.dots\r\n") * 40_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("mx.test", "mx.test")


def context(issued: Issued, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(issued.certificate, issued.key)
    made.maximum_version = version
    return made


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_large_mail_and_a_session_that_goes_on(
    make_system: MakeSystem, issued: Issued, version: ssl.TLSVersion
) -> None:
    port = free_port()
    with PythonSink(port, tls=context(issued, version)) as sink:
        mail = make_system(
            main={
                "smtp_tls_security_level": "encrypt",
                "smtp_tls_loglevel": "1",
                "smtp_tls_session_cache_database": "lmdb:$data_directory/smtp_scache",
            }
        )
        mail.route("next.test", f"smtp:[127.0.0.1]:{port}")
        mail.start()
        for number, content in enumerate((LARGE, MESSAGE), 1):
            mail.send(SENDER, ["x@next.test"], content)
            sink.wait_for(number)
            mail.wait_for_queue_empty()
    large, small = sink.messages
    assert large.content.endswith(LARGE.partition(b"\r\n\r\n")[2])
    assert small.content.endswith(b"hello\r\n")
    assert sink.resumed == [False, True]
    protocol = version.name.replace("_", ".")
    peer = rf"127\.0\.0\.1\[127\.0\.0\.1\]:{port}: {protocol} with cipher "
    mail.wait_for_log(f"Untrusted TLS connection established to {peer}")
    mail.wait_for_log(f"Untrusted TLS connection reused to {peer}")
    mail.wait_for_log("tls=encrypt, dsn=2.0.0, status=sent", count=2)


def test_policies(make_system: MakeSystem, authority: Authority, issued: Issued) -> None:
    port = free_port()
    right, wrong = f"[127.0.0.1]:{port}", f"[localhost]:{port}"
    policies = f"{{{right} = secure match=mx.test}} {{{wrong} = secure match=other.test}}"
    with PythonSink(port, tls=context(issued)) as sink:
        mail = make_system(
            main={
                "smtp_tls_policy_maps": f"inline:{{ {policies} }}",
                "smtp_tls_CAfile": "$config_directory/authority.pem",
                "smtp_host_lookup": "native",
                "inet_protocols": "ipv4",
            }
        )
        (mail.config_directory / "authority.pem").write_bytes(authority.certificate.read_bytes())
        mail.route("right.test", f"smtp:[127.0.0.1]:{port}")
        mail.route("wrong.test", f"smtp:[localhost]:{port}")
        mail.start()
        mail.send(SENDER, ["x@right.test"], MESSAGE)
        mail.wait_for_log(r"to=<x@right\.test>.* tls=secure, dsn=2\.0\.0, status=sent")
        mail.send(SENDER, ["x@wrong.test"], MESSAGE)
        mail.wait_for_log(
            r"to=<x@wrong\.test>.* tls=!secure, dsn=4\.7\.5,"
            r" status=deferred \(Server certificate not verified\)"
        )
    assert len(sink.messages) == 1


def test_a_message_that_does_without_tls(make_system: MakeSystem) -> None:
    port = free_port()
    with PythonSink(port) as sink:
        mail = make_system(main={"smtp_tls_security_level": "encrypt"})
        mail.route("next.test", f"smtp:[127.0.0.1]:{port}")
        mail.start()
        mail.send(SENDER, ["strict@next.test"], MESSAGE)
        mail.send(SENDER, ["lax@next.test"], b"TLS-Required: No\r\n" + MESSAGE)
        (message,) = sink.wait_for(1)
        assert message.recipients == ["lax@next.test"]
        mail.wait_for_log(r"to=<strict@next\.test>, .*dsn=4\.7\.4, .*TLS is required, but was not")
        assert len(sink.messages) == 1
