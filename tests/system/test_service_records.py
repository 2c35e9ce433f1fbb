"""Servers that are found by SRV records, by a running mail system that asks a name server."""

from __future__ import annotations

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
NAME_SERVER: Final = "127.0.53.55"


@pytest.mark.root
def test_submission(make_system: MakeSystem, tmp_path: Path) -> None:
    """Hosts and ports of the records; the policy goes by the next hop, the certificate by both."""
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("mx.right.test")
    closed, port, wrapped = free_port(), free_port(), free_port()
    records = [
        f"_submission._tcp.plain.test SRV 10 0 {closed} mx.plain.test.",
        f"_submission._tcp.plain.test SRV 20 0 {port} mx.plain.test.",
        "mx.plain.test A 127.0.27.1",
        f"_submissions._tcp.right.test SRV 0 0 {wrapped} mx.right.test.",
        "mx.right.test A 127.0.27.2",
        "_submission._tcp.not.test SRV 0 0 0 .",
        "none.test A 127.0.27.1",
    ]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    system = make_system(privileged=True, main={"inet_protocols": "ipv4"})
    settings = {
        "use_srv_lookup": "submission, submissions",
        "smtp_host_lookup": "dns",
        "smtp_tls_CAfile": str(authority.certificate),
        "smtp_tls_loglevel": "1",
        "smtp_tls_policy_maps": "inline:{{[right.test]=none}"
        " {right.test:submissions = verify match=hostname}}",
    }
    wrapping = "wrapped unix - - y - - smtp -o smtp_tls_wrappermode=yes"
    system.configure(settings, ["smtp unix - - y - - smtp", wrapping])
    for name in ("plain.test", "not.test", "none.test"):
        system.route(name, f"smtp:{name}:submission")
    system.route("right.test", "wrapped:right.test:submissions")
    with (
        in_place_of(Path("/etc/resolv.conf"), f"nameserver {NAME_SERVER}\n", tmp_path),
        FakeServer(records, (NAME_SERVER, 53)),
        PythonSink(port, host="127.0.27.1") as plain,
        PythonSink(wrapped, host="127.0.27.2", tls=context, wrapped=True) as secure,
    ):
        system.start()
        names = ["plain", "right", "not", "none"]
        system.send("me@client.test", [f"x@{name}.test" for name in names], MESSAGE)
        (first,), (second,) = plain.wait_for(1), secure.wait_for(1)
        assert (first.recipients, second.recipients) == (["x@plain.test"], ["x@right.test"])
        refused = rf"connect to mx\.plain\.test\[127\.0\.27\.1\]:{closed}: Connection refused"
        system.wait_for_log(refused)
        relay = rf"relay=mx\.plain\.test\[127\.0\.27\.1\]:{port}"
        system.wait_for_log(rf"to=<x@plain\.test>, {relay}, .*status=sent")
        where = rf"mx\.right\.test\[127\.0\.27\.2\]:{wrapped}"
        system.wait_for_log(rf"Verified TLS connection established to {where}")
        system.wait_for_log(r"to=<x@not\.test>, relay=none, .*dsn=5\.1\.0, status=bounced")
        system.wait_for_log(
            r"to=<x@none\.test>, relay=none, .*dsn=5\.4\.4, status=bounced \(Host or domain name"
            r" not found\. Name service error for name=_submission\._tcp\.none\.test type=SRV"
        )
