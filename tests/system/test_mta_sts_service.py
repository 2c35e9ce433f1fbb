"""MTA-STS with the service of our own: domains with policies, and what they may do to us."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from libmail.tls.policy_entry import parse_entry
from tests.certificates import Authority
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port
from tests.system.mounts import in_place_of
from tests.system.policy_server import PolicyServer, page, policy
from tests.system.processes import session_members, wait_until
from tests.system.sink import PythonSink
from tests.system.test_mta_sts import Resolver
from tests.system.test_smtp_tls import context
from tests.system.test_tlsrpt import collector
from tests.unit.libmail.dns.fake_server import FakeServer

pytestmark = pytest.mark.root

MESSAGE: Final = b"Subject: test\r\n\r\nhello\r\n"
NAME_SERVER: Final = "127.0.53.57"
WEB, RIGHT, WRONG, PLAIN = "127.0.26.21", "127.0.26.22", "127.0.26.23", "127.0.26.24"
REPORTS: Final = '"v=TLSRPTv1; rua=mailto:tls@x.test"'


class World:
    """Domains, each with a policy, an MX host and the wish for reports.

    right, wrong, plain: mail servers, with certificates for all hosts, for none, and without TLS.
    """

    def __init__(
        self, make_system: MakeSystem, folder: Path, domains: dict[str, str], **main: str
    ) -> None:
        """domains: names with the address of their MX host."""
        self.port = free_port()
        self.web = PolicyServer(folder, WEB, [f"{name}.test" for name in domains])
        self.names = FakeServer(self._records(domains), (NAME_SERVER, 53))
        authority = Authority(folder / "mx-ca")
        self.issued = authority.issue("mx.test", *(f"mx.{name}.test" for name in domains))
        other = context(Authority(folder / "other-ca").issue("mx.test", "mx.other.test"))
        self.right = PythonSink(self.port, host=RIGHT, tls=context(self.issued))
        self.wrong = PythonSink(self.port, host=WRONG, tls=other)
        self.plain = PythonSink(self.port, host=PLAIN)
        self.system = make_system(privileged=True, main={"inet_protocols": "ipv4"})
        for name, path in (("web", self.web.authority), ("mx", authority)):
            text = path.certificate.read_bytes()
            (self.system.config_directory / f"{name}.pem").write_bytes(text)
        settings = {
            "smtp_tcp_port": str(self.port),
            "smtp_host_lookup": "dns",
            "smtp_tls_CAfile": "$config_directory/mx.pem",
            "smtp_tls_loglevel": "1",
            "smtp_tls_policy_maps": "mta-sts:",
            "smtp_tls_security_level": "may",
            "mta_sts_authorities": "$config_directory/web.pem",
            "mta_sts_private_networks": "127.0.26.0/24",
        }
        self.system.configure({**settings, **main}, ["smtp unix - - y - - smtp"])
        for name in domains:
            self.system.route(f"{name}.test", f"smtp:{name}.test")

    @staticmethod
    def _records(domains: dict[str, str]) -> Iterator[str]:
        for name, address in domains.items():
            yield f"{name}.test MX 10 mx.{name}.test."
            yield f"mx.{name}.test A {address}"
            yield f"mta-sts.{name}.test A {WEB}"
            yield f'_mta-sts.{name}.test TXT "v=STSv1; id=1;"'
            yield f"_smtp._tls.{name}.test TXT {REPORTS}"

    def announce(self, name: str, number: int) -> None:
        self.names.change(f"_mta-sts.{name}.test", "TXT", f'"v=STSv1; id={number};"')

    def send(self, *names: str) -> None:
        self.system.send("me@client.test", [f"x@{name}.test" for name in names], MESSAGE)

    def entry(self, name: str, table: str = "mta-sts:") -> str:
        """What a table says, to a process of its own: postmap."""
        done = self.system.run("postmap", "-q", f"{name}.test", table)
        assert done.stderr == b""
        return done.stdout.decode().strip()

    def restart(self) -> None:
        """Nothing is left in memory then."""
        self.system.run("postfix", "reload")
        wait_until(lambda: len(self.processes()) == 1, self.system.log_text)

    def processes(self) -> list[int]:
        members = session_members(self.system.session)
        return [one.pid for one in members if "mta-sts" in one.title()]


@contextlib.contextmanager
def world(
    make_system: MakeSystem, folder: Path, domains: dict[str, str], **main: str
) -> Iterator[World]:
    made = World(make_system, folder, domains, **main)
    resolv = f"nameserver {NAME_SERVER}\noptions timeout:1\n"
    with (
        in_place_of(Path("/etc/resolv.conf"), resolv, folder),
        made.names,
        made.web,
        made.right,
        made.wrong,
        made.plain,
    ):
        yield made


def test_whose_mail_goes(make_system: MakeSystem, tmp_path: Path) -> None:
    """By mode and host; what collectors are told of it; from within a jail."""
    domains = {"good": RIGHT, "forged": WRONG, "bare": PLAIN, "moved": RIGHT, "tested": WRONG,
               "strange": RIGHT, "off": WRONG, "dead": RIGHT}  # fmt: skip
    reports = {"smtp_tlsrpt_enable": "yes", "smtp_tlsrpt_socket_name": "run/tlsrpt/socket"}
    with world(make_system, tmp_path, domains, **reports) as made:
        pages = {name: policy("enforce", f"*.{name}.test") for name in ("good", "forged", "bare")}
        pages["moved"] = policy("enforce", "mx.elsewhere.test", "*.mx.moved.test")
        pages["tested"] = policy("testing", "mx.tested.test")
        pages["strange"] = policy("testing", "mx.elsewhere.test")
        pages["off"] = policy("none")
        pages["dead"] = page(b"gone", status=410)
        made.web.pages = {f"{name}.test": text for name, text in pages.items()}
        path = made.system.queue_directory / "run/tlsrpt/socket"
        with collector(tmp_path / "c", path) as told:
            made.system.allow("TLS policy lookup for moved.test/mx.moved.test")
            made.system.start()
            made.send(*domains)
            log = made.system
            log.wait_for_log(r"Verified TLS connection established to mx\.good\.test\[127")
            for name in ("good", "tested", "strange", "off", "dead"):
                log.wait_for_log(rf"to=<x@{name}\.test>, .*dsn=2\.0\.0, status=sent")
            deferred = r"dsn=4\.7\.\d, status=deferred"
            log.wait_for_log(rf"to=<x@forged\.test>, .*{deferred} \(Server certificate not veri")
            log.wait_for_log(rf"to=<x@bare\.test>, .*{deferred} \(TLS is required, but was not")
            log.wait_for_log(
                rf"to=<x@moved\.test>, .*{deferred} \(mx\.moved\.test is not among the MX hosts of"
                r" the MTA-STS policy of moved\.test"
            )
            log.wait_for_log(r"mta-sts\[.*: good\.test: policy fetched: mode=enforce, mx=1, max_a")
            log.wait_for_log(
                r"mta-sts\[.*: dead\.test: policy not fetched, none is in force: "
                r"mta-sts\.dead\.test: HTTP status 410"
            )
            wait_until(lambda: len(told.policies()) == len(domains))
            kinds = {name: told.policies()[f"{name}.test"] for name in domains}
            kept, broken = (2, 0), (2, 1)
            assert kinds == {**dict.fromkeys(domains, broken), "good": kept, "off": (9, 0)}
            assert told.failures() == {
                "forged.test": 203,
                "bare.test": 201,
                "moved.test": 205,
                "tested.test": 203,
                "strange.test": 205,
                "dead.test": 301,
            }
            assert not [line for line in told.log.read_text().splitlines() if "ERROR" in line]
        assert sum(made.web.asked.values()) == len(domains)
        assert made.entry("good").startswith(
            "secure match=.good.test servername=hostname policy_type=sts policy_domain=good.test"
        )
        assert made.entry("off") == ""
        assert sum(made.web.asked.values()) == len(domains)


def alike(entry: str) -> tuple[object, ...]:
    """What an entry says, apart from the order of what has none."""
    found = parse_entry(entry, "")
    sts, several = found.sts, (found.match, found.sts.strings, found.sts.mx_patterns)
    return found.level, found.server_name, sts.policy_type, sts.domain, *map(frozenset, several)


def test_the_plug_in_beside(make_system: MakeSystem, tmp_path: Path) -> None:
    """postfix-mta-sts-resolver fetches the same policies: the same entries, and the same reports,
    but for policies in testing."""
    domains = {"good": RIGHT, "forged": WRONG, "moved": RIGHT, "tested": WRONG, "dead": RIGHT}
    reports = {"smtp_tlsrpt_enable": "yes", "smtp_tlsrpt_socket_name": "run/tlsrpt/socket"}
    ours = {"lmtp_tls_policy_maps": "mta-sts:", "lmtp_tls_CAfile": "$smtp_tls_CAfile"}
    with world(make_system, tmp_path, domains, **reports, **ours) as made:
        pages = {name: policy("enforce", f"*.{name}.test", "a.test") for name in domains}
        pages["moved"] = policy("enforce", "mx.elsewhere.test")
        pages["tested"] = policy("testing", "mx.tested.test")
        pages["dead"] = page(b"gone", status=410)
        made.web.pages = {f"{name}.test": text for name, text in pages.items()}
        authorities = made.web.authority.certificate
        plugin = Resolver(tmp_path, timeout=60, authorities=authorities)
        path = made.system.queue_directory / "run/tlsrpt/socket"
        try:
            theirs = f"socketmap:inet:127.0.0.1:{plugin.port}:postfix"
            made.system.configure({"smtp_tls_policy_maps": theirs})
            made.system.allow("TLS policy lookup for moved.test/mx.moved.test")
            with collector(tmp_path / "c", path) as told:
                made.system.start()
                for name in ("good", "forged", "moved"):
                    assert alike(made.entry(name)) == alike(made.entry(name, theirs))
                for name in ("tested", "dead"):
                    assert made.entry(name, theirs) == ""
                made.send(*domains)
                for name in ("good", "tested", "dead"):
                    made.system.wait_for_log(rf"to=<x@{name}\.test>, .*dsn=2\.0\.0, status=sent")
                for name in ("forged", "moved"):
                    made.system.wait_for_log(rf"to=<x@{name}\.test>, .*dsn=4\.7\.5, status=defer")
                wait_until(lambda: len(told.policies()) == len(domains))
                assert told.policies() == {
                    "good.test": (2, 0),
                    "forged.test": (2, 1),
                    "moved.test": (2, 1),
                    "tested.test": (9, 0),
                    "dead.test": (9, 0),
                }
                assert told.failures() == {"forged.test": 203, "moved.test": 205}
        finally:
            plugin.stop()


def test_one_fetch_for_all(make_system: MakeSystem, tmp_path: Path) -> None:
    """However many deliveries and processes want it."""
    with world(make_system, tmp_path, {"good": RIGHT}) as made:
        made.web.pages["good.test"] = policy("enforce", "mx.good.test")
        made.web.hold.clear()
        made.system.start()
        for _ in range(20):
            made.send("good")
        wait_until(lambda: made.web.asked["good.test"] == 1, made.system.log_text)
        made.web.hold.set()
        made.right.wait_for(20)
        assert made.web.asked["good.test"] == 1


def test_dane_goes_first(make_system: MakeSystem, tmp_path: Path) -> None:
    """A policy does not help where DANE fails, and does not harm where DANE is enough."""
    domains = {"both": WRONG, "forged": RIGHT, "sts": RIGHT}
    dane = {"smtp_tls_security_level": "dane", "smtp_dns_support_level": "dnssec"}
    with world(make_system, tmp_path, domains, **dane) as made:
        for name in domains:
            made.web.pages[f"{name}.test"] = policy("enforce", f"mx.{name}.test")
        digest = hashlib.sha256(made.issued.public_key()).hexdigest()
        made.names.change(f"_{made.port}._tcp.mx.forged.test", "TLSA", f"3 1 1 {'00' * 32}")
        other = Authority(tmp_path / "dane-ca").issue("x.test")
        made.wrong.tls = context(other)
        key = hashlib.sha256(other.public_key()).hexdigest()
        assert key != digest
        made.names.change(f"_{made.port}._tcp.mx.both.test", "TLSA", f"3 1 1 {key}")
        made.system.start()
        made.send(*domains)
        for name in ("both", "sts"):
            made.system.wait_for_log(rf"to=<x@{name}\.test>, .*dsn=2\.0\.0, status=sent")
            made.system.wait_for_log(rf"Verified TLS connection established to mx\.{name}\.test")
        made.system.wait_for_log(r"to=<x@forged\.test>, .*status=deferred \(Server certificate no")


def test_changes(make_system: MakeSystem, tmp_path: Path) -> None:
    """A policy stays in force until it is over, over restarts, whatever comes; a new id counts."""
    with world(make_system, tmp_path, {"good": RIGHT, "short": RIGHT}) as made:
        made.web.pages["good.test"] = policy("enforce", "mx.good.test")
        made.web.pages["short.test"] = policy("enforce", "mx.short.test", max_age=2)
        made.system.start()
        first = made.entry("good")
        assert "{ policy_string = mode: enforce }" in first
        assert "mx_host_pattern=mx.short.test" in made.entry("short")

        made.web.pages["good.test"] = policy("testing", "*.good.test")
        made.restart()
        assert made.entry("good") == first  # the same id
        made.announce("good", 2)
        made.restart()
        assert "{ policy_string = mode: testing } { policy_string = mx: *.good.test }" in (
            second := made.entry("good")
        )
        assert made.web.asked["good.test"] == 2

        made.web.pages["good.test"] = page(b"oops", status=500)
        made.announce("good", 3)
        made.restart()
        assert made.entry("good") == second
        made.system.wait_for_log(
            r"good\.test: policy not fetched, the one of before stays in force: .* 500"
        )
        made.names.change("_mta-sts.good.test", "TXT")
        made.restart()
        assert made.entry("good") == second

        made.names.change("_mta-sts.short.test", "TXT")
        made.restart()
        wait_until(lambda: made.entry("short") == "", made.system.log_text)


LIES: Final = {
    "wrong type": (page(b"version: STSv1\n", media="text/html"), "sts-policy-invalid",
                   "the policy is not of type text/plain"),
    "no policy": (page(b"<html>"), "sts-policy-invalid", "a line of the policy is no field"),
    "elsewhere": (page(b"", "Location: https://mta-sts.good.test/.well-known/mta-sts.txt",
                       status=302), "sts-policy-fetch-error", "HTTP status 302"),
    "huge": (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"x: y\r\n" * 100_000,
             "sts-policy-fetch-error", "answer too long"),
    "no HTTP": (b"220 mx.test ESMTP\r\n\r\n", "sts-policy-fetch-error", "not an HTTP server"),
    "nothing": (b"", "sts-policy-fetch-error", "answer cut short"),
    "slow": (None, "sts-policy-fetch-error", "timed out"),
}  # fmt: skip


def test_lies(make_system: MakeSystem, tmp_path: Path) -> None:
    """Mail goes as it would without MTA-STS; who fails is reported with the reason."""
    domains = {f"lie{number}": RIGHT for number in range(len(LIES))}
    with world(make_system, tmp_path, domains, mta_sts_fetch_timeout="15s") as made:
        for name, (text, _, _) in zip(domains, LIES.values(), strict=True):
            if text is not None:
                made.web.pages[f"{name}.test"] = text
        made.system.start()
        for name, (_, failure, reason) in zip(domains, LIES.values(), strict=True):
            assert made.entry(name) == (
                f"secure policy_type=sts policy_domain={name}.test policy_mode=testing"
                f" policy_failure={failure}"
            )
            made.system.wait_for_log(
                rf"{name}\.test: policy not fetched, none is in force: .*{re.escape(reason)}"
            )
        made.send(*domains)
        made.right.wait_for(len(domains))
        assert made.web.asked["good.test"] == 0


def test_strangers(make_system: MakeSystem, tmp_path: Path) -> None:
    """A server with another name, one that nobody knows, and none of the Internet."""
    domains = {"good": RIGHT, "inner": RIGHT}
    with world(make_system, tmp_path, domains) as made:
        made.names.change("_mta-sts.other.test", "TXT", '"v=STSv1; id=1"')
        made.names.change("mta-sts.other.test", "A", WEB)
        made.names.change("mta-sts.inner.test", "A", "127.0.0.1")
        made.system.start()
        assert made.entry("other").endswith("policy_failure=sts-webpki-invalid")
        made.system.wait_for_log(r"other\.test: .*: mta-sts\.other\.test: Hostname mismatch")
        assert made.entry("inner").endswith("policy_failure=sts-policy-fetch-error")
        made.system.wait_for_log(r"inner\.test: .*: mta-sts\.inner\.test: not at a public address")
        made.system.configure({"mta_sts_authorities": "$config_directory/mx.pem"})
        made.restart()
        assert made.entry("good").endswith("policy_failure=sts-webpki-invalid")
        assert made.web.asked == {}


def test_a_service_that_does_not_run(make_system: MakeSystem, tmp_path: Path) -> None:
    """Mail waits, with a warning that says for what; and goes when it is there."""
    with world(make_system, tmp_path, {"good": RIGHT}) as made:
        made.web.pages["good.test"] = policy("enforce", "mx.good.test")
        made.system.configure({"master_service_disable": "mta-sts/unix"})
        made.system.allow("mta-sts: lookup error|TLS policy lookup for good.test")
        made.system.start()
        made.send("good")
        made.system.wait_for_log(r"to=<x@good\.test>, .*dsn=4\.\d\.\d, status=deferred")
        made.system.wait_for_log(
            r"warning: .*: table mta-sts: lookup error: connect to private/mta-sts"
        )
        made.system.configure({"master_service_disable": ""})
        made.system.run("postfix", "reload")
        wait_until(lambda: made.entry("good") != "", made.system.log_text)
        made.system.run("postqueue", "-f")
        made.right.wait_for(1)


def test_killed(make_system: MakeSystem, tmp_path: Path) -> None:
    """While it fetches: mail waits, and the next one asks again."""
    with world(make_system, tmp_path, {"good": RIGHT}) as made:
        made.web.pages["good.test"] = policy("enforce", "mx.good.test")
        made.web.hold.clear()
        made.system.allow("killed by signal 9|mta-sts: lookup error|TLS policy lookup for good")
        made.system.start()
        made.send("good")
        wait_until(lambda: made.web.asked["good.test"] == 1, made.system.log_text)
        for pid in made.processes():
            os.kill(pid, signal.SIGKILL)
        made.system.wait_for_log(r"to=<x@good\.test>, .*status=deferred")
        made.web.hold.set()
        made.system.run("postqueue", "-f")
        made.right.wait_for(1)


def test_nobody_needs_it(make_system: MakeSystem) -> None:
    """Where no table names it, it does not run."""
    system: MailSystem = make_system()
    system.start()
    assert not [one for one in session_members(system.session) if "mta-sts" in one.title()]
    assert not (system.queue_directory / "private/mta-sts").exists()
