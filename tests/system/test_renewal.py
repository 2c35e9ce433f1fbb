"""Certificates that are renewed while clients come: no reload, and no handshake that fails.

CERTIFICATE_CHANGES says how many changes there are; a fifth of them are bad.
"""

from __future__ import annotations

import os
import smtplib
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.certificates import Authority, Issued
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port
from tests.system.processes import PATIENCE, session_members, wait_until

CHANGES = int(os.environ.get("CERTIFICATE_CHANGES", "10"))
BAD = ("another key", "half written", "expired")
STAYS = "the old certificate stays in use"


class Site:
    """A system with a certificate in two files, and one for a name in a file of its own."""

    def __init__(self, system: MailSystem, folder: Path) -> None:
        self.system = system
        self.authority = Authority(folder)
        self.port = free_port()
        etc = system.config_directory
        self.pair = etc / "cert.pem", etc / "key.pem"
        self.live = etc / "live.pem"  # a link, as some programs have it
        self.archive = etc / "archive"
        self.archive.mkdir()
        self.current = self.named = self.authority.issue("mail.test", "mail.test")
        self.renew(self.current)
        self.rename(self.authority.issue("other.test", "other.test"))
        (etc / "sni").write_text(f"other.test {self.live}\n")
        self._contexts = {name: self._asking_for(name) for name in ("mail.test", "other.test")}
        system.configure(
            {
                "smtpd_tls_security_level": "may",
                "smtpd_tls_eccert_file": str(self.pair[0]),
                "smtpd_tls_eckey_file": str(self.pair[1]),
                "tls_server_sni_maps": f"lmdb:{etc}/sni",
            },
            [f"127.0.0.1:{self.port} inet n - n - - smtpd\n  -o smtpd_tls_wrappermode=yes"],
        )

    def renew(self, certificate: Issued, key: Issued | None = None, length: int = -1) -> None:
        """Write the pair, in place, one file after the other."""
        data = certificate.certificate.read_bytes()
        self.pair[0].write_bytes(data if length < 0 else data[:length])
        self.pair[1].write_bytes((key or certificate).key.read_bytes())
        self.pair[1].chmod(0o600)

    def rename(self, issued: Issued) -> None:
        """Have the link lead to another file."""
        file = self.archive / f"{len(list(self.archive.iterdir()))}.pem"
        file.write_bytes(issued.chain.read_bytes())
        self.live.unlink(missing_ok=True)
        self.live.symlink_to(file)
        self.named = issued

    def shown(self, name: str = "mail.test") -> bytes:
        """The certificate that a client is shown, and finds good."""
        with smtplib.SMTP_SSL(
            "127.0.0.1", self.port, "client.test", timeout=PATIENCE, context=self._contexts[name]
        ) as client:
            return self._certificate(client)

    def shown_after_starttls(self) -> bytes:
        with self.system.smtp() as client:
            client.starttls(context=self._contexts["mail.test"])
            return self._certificate(client)

    def _asking_for(self, name: str) -> ssl.SSLContext:
        """A context that asks for a name, whatever host smtplib has connected to."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        wrap = context.wrap_socket
        context.wrap_socket = lambda sock, server_hostname=None: wrap(  # type: ignore[method-assign, assignment, misc]
            sock, server_hostname=name
        )
        return context

    @staticmethod
    def _certificate(client: smtplib.SMTP) -> bytes:
        assert isinstance(client.sock, ssl.SSLSocket)
        found = client.sock.getpeercert(binary_form=True)
        assert found is not None
        return found

    def shows(self, issued: Issued, name: str = "mail.test") -> None:
        """Wait until clients are shown this one."""
        wanted = issued.der()
        wait_until(lambda: self.shown(name) == wanted, self.system.end_of_log)


@pytest.fixture(params=["rootless", pytest.param("privileged", marks=pytest.mark.root)])
def site(request: pytest.FixtureRequest, make_system: MakeSystem, tmp_path: Path) -> Site:
    system = make_system(privileged=request.param == "privileged")
    site = Site(system, tmp_path)
    os.chmod(site.archive, 0o755)
    if os.geteuid() == 0 and not system.privileged:
        for path in system.config_directory.rglob("*"):
            os.lchown(path, system.user.pw_uid, system.user.pw_gid)
    return site


@contextmanager
def load(site: Site) -> Iterator[Counter[str]]:
    """Clients that come as fast as they can. What goes wrong for one is raised at the end."""
    counts: Counter[str] = Counter()
    errors: list[BaseException] = []
    done = threading.Event()

    def come(name: str) -> None:
        while not done.is_set() and not errors:
            try:
                site.shown_after_starttls() if not name else site.shown(name)
            except BaseException as error:  # noqa: BLE001 (raised below)
                errors.append(error)
            counts[name] += 1

    threads = [
        threading.Thread(target=come, args=(name,)) for name in ("", "mail.test", "other.test")
    ]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        done.set()
        for thread in threads:
            thread.join()
    for error in errors:
        raise error


def test_renewal_under_load(site: Site) -> None:
    system = site.system
    system.allow(STAYS)
    system.start()
    old = site.current
    bad = 0
    with load(site) as counts:
        for number in range(1, CHANGES + 1):
            issued = site.authority.issue("mail.test", "mail.test", label=f"new{number}")
            if number % 5:
                site.renew(issued)
                site.shows(issued)
                old = issued
                continue
            kind = BAD[bad % len(BAD)]
            bad += 1
            if kind == "expired":
                late = site.authority.issue("mail.test", "mail.test", days=-1, label=f"l{number}")
                site.renew(late)
            else:
                length = 300 if kind == "half written" else -1
                site.renew(issued, key=old if kind == "another key" else issued, length=length)
            system.wait_for_log(STAYS, count=bad)
            site.shows(old)
            named = site.authority.issue("other.test", "other.test", label=f"named{number}")
            site.rename(named)
            site.shows(named, "other.test")
    assert min(counts.values()) > CHANGES
    print(f"{sum(counts.values())} sessions, {CHANGES} changes")
    for words in ("SSL_accept error", "TLS library problem", "not available"):
        assert not system.log_lines(words)


def test_new_processes_have_what_was_good(site: Site) -> None:
    """While what is in the files is bad: after a reload, too, and for a name in a table."""
    system = site.system
    system.configure({"max_use": "1", "sessions_per_process": "1"})
    system.allow(STAYS)
    system.start()
    site.shows(site.current)
    strange = site.authority.issue("mail.test", "mail.test", label="strange")
    _be_watched(site)
    _only_those_have_contents(system)
    site.renew(site.current, key=strange)
    site.live.unlink()
    site.live.write_bytes(site.named.chain.read_bytes()[:-30])
    system.wait_for_log(STAYS, count=2)
    assert system.run("postfix", "reload").returncode == 0
    system.wait_for_log("reload -- version")
    for _ in range(3):
        assert site.shown() == site.shown_after_starttls() == site.current.der()
        assert site.shown("other.test") == site.named.der()
    site.renew(strange)
    site.shows(strange)


def test_authorities_are_followed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Clients with a certificate of another authority are trusted as soon as that one is."""
    system = site.system
    other = Authority(tmp_path_factory.mktemp("other"))
    known = system.config_directory / "known.pem"
    known.write_bytes(site.authority.certificate.read_bytes())
    more = {"smtpd_tls_CAfile": str(known), "smtpd_tls_ask_ccert": "yes"}
    system.configure({**more, "smtpd_tls_loglevel": "1"})
    context = ssl.create_default_context(cafile=str(site.authority.certificate))
    context.check_hostname = False
    context.load_cert_chain(str(other.issue("client.test").chain))
    system.start()

    def visit() -> None:
        with system.smtp() as client:
            client.starttls(context=context)
            client.ehlo()

    visit()
    system.wait_for_log("Untrusted TLS connection established from localhost")
    both = (site.authority.certificate, other.certificate)
    known.write_bytes(b"".join(one.read_bytes() for one in both))

    def is_trusted() -> bool:
        visit()
        return bool(system.log_lines(": Trusted TLS connection established from localhost"))

    wait_until(is_trusted, system.end_of_log)


def _be_watched(site: Site) -> None:
    """Have what is in the files found good: tablewatch has noticed it.

    A change before its first look is none to it, and a new process may use one before it does.
    """
    for number in range(10):
        site.current = site.authority.issue("mail.test", "mail.test", label=f"first{number}")
        site.renew(site.current)
        with suppress(TimeoutError):
            site.system.wait_for_log(rf"{site.pair[0]}: renewed", timeout=10)
            break
    site.shows(site.current)


def _only_those_have_contents(system: MailSystem) -> None:
    """No process but master and tablewatch has a way to the certificates that are kept."""
    if os.geteuid() != 0:
        return  # nobody may look
    have = set()
    for process in session_members(system.session):
        for link in Path(f"/proc/{process.pid}/fd").glob("*"):
            with suppress(OSError):
                if "approved files" in os.readlink(link):
                    have.add(process.title().split()[0].rpartition("/")[2])
    assert have == {"master", "tablewatch"}
