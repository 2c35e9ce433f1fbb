"""Reports of TLS handshakes, to the collector of tlsrpt-reporter."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Authority
from tests.system.conftest import MakeSystem
from tests.system.harness import free_port
from tests.system.mounts import in_place_of
from tests.system.processes import wait_until
from tests.system.sink import PythonSink
from tests.unit.libmail.dns.fake_server import FakeServer

MESSAGE: Final = b"Subject: test\r\n\r\nhello\r\n"
NAME_SERVER: Final = "127.0.53.56"
SECURE, PLAIN = "127.0.26.11", "127.0.26.12"
HOSTS: Final = {"right": SECURE, "wrong": SECURE, "none": PLAIN, "silent": SECURE}


class Collector:
    """tlsrpt-collectd, with its database."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.database = folder / "collected"
        self.log = folder / "log"
        command = "from tlsrpt_reporter.tlsrpt import tlsrpt_collectd_main; tlsrpt_collectd_main()"
        options = {
            "storage": f"sqlite://{self.database}",
            "socketname": path,
            "socketmode": "0666",
            "logfilename": self.log,
            "pidfilename": folder / "pid",
            "max_uncommited_datagrams": 1,
            "dump_path_for_invalid_datagram": folder / "invalid",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen([sys.executable, "-c", command, *words])

    def _rows(self, query: str) -> list[tuple[str, str, int]]:
        """None while the collector is making its tables."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=60)) as database:
            try:
                return database.execute(query).fetchall()
            except sqlite3.OperationalError:
                return []

    def policies(self) -> dict[str, tuple[int, int]]:
        """By domain: type of the policy, handshakes that failed."""
        rows = self._rows("SELECT domain, policy, cntrfailure FROM finalresults")
        return {domain: (json.loads(text)["policy-type"], failed) for domain, text, failed in rows}

    def failures(self) -> dict[str, int]:
        """By domain: what went wrong, as a number."""
        rows = self._rows("SELECT domain, reason, cntr FROM failures")
        return {domain: json.loads(text)["c"] for domain, text, _ in rows}


@contextlib.contextmanager
def collector(folder: Path, path: Path) -> Iterator[Collector]:
    pytest.importorskip("tlsrpt_reporter")
    folder.mkdir()
    path.parent.mkdir(parents=True)
    made = Collector(folder, path)
    try:
        wait_until(path.is_socket)
        yield made
    finally:
        made.process.terminate()
        made.process.wait()


@pytest.mark.root
def test_what_a_collector_hears(make_system: MakeSystem, tmp_path: Path) -> None:
    """From within a jail, of domains that want it."""
    issued = Authority(tmp_path / "ca").issue("mx.right.test")
    port = free_port()
    digest = hashlib.sha256(issued.public_key()).hexdigest()
    records = [f"{name}.test MX 10 mx.{name}.test." for name in HOSTS]
    records += [f"mx.{name}.test A {address}" for name, address in HOSTS.items()]
    records += [
        f'_smtp._tls.{name}.test TXT "v=TLSRPTv1; " "rua=mailto:tls@{name}.test"'
        for name in HOSTS
        if name != "silent"
    ]
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
        "smtp_tlsrpt_enable": "yes",
        "smtp_tlsrpt_socket_name": "run/tlsrpt/socket",
    }
    system.configure(settings, ["smtp unix - - y - - smtp"])
    for name in HOSTS:
        system.route(f"{name}.test", f"smtp:{name}.test")
    with (
        in_place_of(Path("/etc/resolv.conf"), f"nameserver {NAME_SERVER}\n", tmp_path),
        FakeServer(records, (NAME_SERVER, 53)),
        PythonSink(port, host=SECURE, tls=context) as secure,
        PythonSink(port, host=PLAIN) as plain,
        collector(tmp_path / "c", system.queue_directory / "run/tlsrpt/socket") as told,
    ):
        system.start()
        system.send("me@client.test", [f"x@{name}.test" for name in HOSTS], MESSAGE)
        secure.wait_for(2)
        plain.wait_for(1)
        wait_until(lambda: len(told.policies()) == 3)
        assert told.policies() == {"right.test": (1, 0), "wrong.test": (1, 1), "none.test": (9, 1)}
        assert told.failures() == {"wrong.test": 203, "none.test": 201}
        system.wait_for_log(
            rf"TLSRPT: status=success, domain=right\.test, receiving_mx=mx\.right\.test\[{SECURE}\]"
        )
        system.wait_for_log(r"domain=none\.test, .*, failure_type=starttls_not_supported")
        assert not [line for line in told.log.read_text().splitlines() if "ERROR" in line]
