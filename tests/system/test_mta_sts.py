"""MTA-STS by the plug-in of others, postfix-mta-sts-resolver: a socketmap of policies.

Policies are in its cache, as if they had been fetched a moment ago: there is no network for it. In
`test_mta_sts_service.py` it fetches them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Authority
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port, need_tool
from tests.system.processes import is_listening, wait_until
from tests.system.sink import PythonSink
from tests.system.test_smtp_tls import context

MESSAGE: Final = b"Subject: test\r\n\r\nhello\r\n"
DOMAIN: Final = "localhost"  # which has an address wherever this runs


class Resolver:
    """The plug-in. port: of its socketmap."""

    def __init__(self, folder: Path, *, timeout: int = 1, authorities: Path | None = None) -> None:
        """timeout: seconds for a fetch. authorities: that vouch for web servers."""
        program = Path(sys.executable).with_name("mta-sts-daemon")
        self._program = str(program) if program.exists() else need_tool("mta-sts-daemon")
        self._cache = folder / "cache.sqlite"
        self._settings = folder / "mta-sts.yml"
        self.port = free_port()
        self._environment = dict(os.environ)
        if authorities is not None:
            self._environment["SSL_CERT_FILE"] = str(authorities)
        zone = {"strict_testing": False, "timeout": timeout, "tlsrpt": True}
        settings = {
            "host": "127.0.0.1",
            "port": self.port,
            "cache_grace": 86400,
            "cache": {"type": "sqlite", "options": {"filename": str(self._cache)}},
            "default_zone": zone,
            "zones": {"quiet": zone | {"tlsrpt": False}},
        }
        self._settings.write_text(json.dumps(settings))  # which is YAML, too
        self.start()

    def start(self) -> None:
        command = [self._program, "-c", str(self._settings)]
        self._process = subprocess.Popen(command, env=self._environment)
        wait_until(lambda: is_listening(self.port))

    def keep(self, mode: str, *hosts: str) -> None:
        """Have the policy of the domain in the cache."""
        body = {"version": "STSv1", "mode": mode, "mx": list(hosts), "max_age": 604800}
        with closing(sqlite3.connect(self._cache)) as cache, cache:
            cache.execute(
                "insert or replace into sts_policy_cache (domain, ts, pol_id, pol_body)"
                " values (?, ?, ?, ?)",
                (DOMAIN, int(time.time()), "20260101", json.dumps(body)),
            )

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def resolver(tmp_path: Path) -> Iterator[Resolver]:
    found = Resolver(tmp_path)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def sender(
    make_system: MakeSystem, authority: Authority, resolver: Resolver, zone: str
) -> MailSystem:
    system = make_system(
        main={
            "smtp_tls_policy_maps": f"socketmap:inet:127.0.0.1:{resolver.port}:{zone}",
            "smtp_tls_security_level": "may",
            "smtp_tls_CAfile": "$config_directory/authority.pem",
            "smtp_tls_loglevel": "1",
            "smtp_host_lookup": "native",
        }
    )
    (system.config_directory / "authority.pem").write_bytes(authority.certificate.read_bytes())
    return system


@pytest.mark.parametrize("zone", ["postfix", "quiet"])
def test_whose_mail_goes(
    make_system: MakeSystem, authority: Authority, resolver: Resolver, zone: str
) -> None:
    """With the attributes for reports, and without."""
    system = sender(make_system, authority, resolver, zone)
    right, wrong = free_port(), free_port()
    named, other = authority.issue(DOMAIN, DOMAIN), authority.issue("other.test", "other.test")
    system.route("right.test", f"smtp:[{DOMAIN}]:{right}")
    system.route("wrong.test", f"smtp:[{DOMAIN}]:{wrong}")
    system.route("none.test", f"smtp:[127.0.0.1]:{wrong}")
    system.start()
    with (
        PythonSink(right, tls=context(named)) as first,
        PythonSink(wrong, tls=context(other)) as second,
    ):
        resolver.keep("enforce", DOMAIN)
        system.send("a@mail.test", ["x@right.test"], MESSAGE)
        system.wait_for_log(r"to=<x@right\.test>, .*dsn=2\.0\.0, status=sent")
        system.wait_for_log(rf"Verified TLS connection established to {DOMAIN}\[127")
        system.send("a@mail.test", ["x@wrong.test"], MESSAGE)
        system.wait_for_log(r"to=<x@wrong\.test>, .*dsn=4\.7\.5, status=deferred \(Server certif")
        system.send("a@mail.test", ["x@none.test"], MESSAGE)  # has no policy
        system.wait_for_log(r"to=<x@none\.test>, .*dsn=2\.0\.0, status=sent")
        resolver.keep("testing", DOMAIN)
        system.send("a@mail.test", ["y@wrong.test"], MESSAGE)
        system.wait_for_log(r"to=<y@wrong\.test>, .*dsn=2\.0\.0, status=sent")
        assert (len(first.messages), len(second.messages)) == (1, 2)


def test_one_that_does_not_run(
    make_system: MakeSystem, authority: Authority, resolver: Resolver
) -> None:
    """Mail waits: nobody knows whether it may go."""
    system = sender(make_system, authority, resolver, "postfix")
    port = free_port()
    system.route("right.test", f"smtp:[{DOMAIN}]:{port}")
    system.allow("warning: .*(socketmap|Connection refused)")
    system.allow("warning: TLS policy lookup for")
    resolver.keep("enforce", DOMAIN)
    resolver.stop()
    system.start()
    with PythonSink(port, tls=context(authority.issue(DOMAIN, DOMAIN))) as sink:
        system.send("a@mail.test", ["x@right.test"], MESSAGE)
        system.wait_for_log(r"to=<x@right\.test>, .*dsn=4\.\d\.\d, status=deferred")
        resolver.start()
        assert system.run("postqueue", "-f").returncode == 0
        sink.wait_for(1)
        system.wait_for_log(r"to=<x@right\.test>, .*dsn=2\.0\.0, status=sent")
