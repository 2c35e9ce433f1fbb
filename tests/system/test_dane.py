"""DANE in a running mail system, with a name server that validates, and one that does not."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Authority
from tests.system.conftest import MakeSystem
from tests.system.harness import free_port
from tests.system.mounts import in_place_of
from tests.system.sink import PythonSink
from tests.unit.libmail.dns.fake_server import FakeServer

MESSAGE: Final = b"Subject: test\r\n\r\nhello\r\n"
NAME_SERVER: Final = "127.0.53.54"
HOSTS: Final = {"right": "127.0.26.1", "wrong": "127.0.26.1", "none": "127.0.26.2"}


@pytest.mark.root
def test_whose_mail_goes(make_system: MakeSystem, tmp_path: Path) -> None:
    """Also in a jail: nothing of it needs the file system."""
    issued = Authority(tmp_path / "ca").issue("mx.right.test")
    port = free_port()
    digest = hashlib.sha256(issued.public_key()).hexdigest()
    records = [f"{name}.test MX 10 mx.{name}.test." for name in HOSTS]
    records += [f"mx.{name}.test A {address}" for name, address in HOSTS.items()]
    records += [f"_{port}._tcp.mx.right.test TLSA 3 1 1 {digest}"]
    records += [f"_{port}._tcp.mx.wrong.test TLSA 3 1 1 {'00' * 32}"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    system = make_system(privileged=True, main={"inet_protocols": "ipv4"})
    settings = {
        "smtp_tcp_port": str(port),
        "smtp_dns_support_level": "dnssec",
        "smtp_host_lookup": "dns",
        "smtp_tls_security_level": "dane",
        "smtp_tls_loglevel": "1",
    }
    system.configure(settings, ["smtp unix - - y - - smtp"])
    for name in HOSTS:
        system.route(f"{name}.test", f"smtp:{name}.test")
    with (
        in_place_of(Path("/etc/resolv.conf"), f"nameserver {NAME_SERVER}\n", tmp_path),
        FakeServer(records, (NAME_SERVER, 53)),
        PythonSink(port, host="127.0.26.1", tls=context) as secure,
        PythonSink(port, host="127.0.26.2") as plain,
    ):
        system.start()
        system.send("me@client.test", [f"x@{name}.test" for name in HOSTS], MESSAGE)
        (first,), (second,) = secure.wait_for(1), plain.wait_for(1)
        assert (first.recipients, second.recipients) == (["x@right.test"], ["x@none.test"])
        mx = rf"mx\.right\.test\[127\.0\.26\.1\]:{port}"
        system.wait_for_log(rf"smtp\[.*: Verified TLS connection established to {mx}: TLSv1")
        system.wait_for_log(
            r"to=<x@wrong.test>, .*dsn=4\.7\.5, status=deferred "
            r"\(Server certificate not verified\)"
        )
        assert len(secure.messages) == 1
