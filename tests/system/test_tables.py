"""Tables over the network and behind proxymap in a running system, also while they are away."""

from __future__ import annotations

import smtplib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port
from tests.system.processes import PATIENCE, session_members, wait_until
from tests.system.servers import Memcached
from tests.system.sink import PythonSink
from tests.system.table_servers import TableServer

MESSAGE = b"Subject: test\r\n\r\nx\r\n"
ALIASES = {"nick@mail.test": "alice@virtual.test", "two words@mail.test": "alice@virtual.test"}


def server_of(kind: str, entries: dict[str, str] | None = None) -> TableServer:
    return TableServer(kind, free_port(), ALIASES if entries is None else entries)


@pytest.mark.parametrize("via", ["", "proxy:"])
@pytest.mark.parametrize("kind", ["tcp", "socketmap"])
def test_mail_is_routed(make_system: MakeSystem, kind: str, via: str) -> None:
    with server_of(kind) as server:
        system = make_system(main={"virtual_alias_maps": f"{via}{server.table}"})
        system.start()
        system.send("a@client.test", ["nick@mail.test", '"two words"@mail.test'], MESSAGE)
        system.wait_for_queue_empty()
        assert len(system.maildir("alice")) == 2
        with system.smtp() as client:
            client.ehlo()
            assert client.mail("a@client.test")[0] == 250
            code, text = client.rcpt("nobody-here@mail.test")
            assert (code, text[:5]) == (550, b"5.1.1")
        done = system.run("postmap", "-q", "nick@mail.test", f"{via}{server.table}")
        assert (done.returncode, done.stdout) == (0, b"alice@virtual.test\n"), done.stderr
        keys = b"x\nnick@mail.test\nnick@mail.test\n"
        done = system.run("postmap", "-q", "-", f"{via}{server.table}", stdin=keys)
        assert done.stdout == b"nick@mail.test\talice@virtual.test\n" * 2, done.stderr


def allow_problems(system: MailSystem) -> None:
    """What is logged while a table is away."""
    for text in (
        "lookup error",
        "lookup failure",
        "lookup problem",
        "connect to TCP map|connect to 127.0.0.1:",
        "read TCP map reply",
        "virtual_alias_maps map lookup problem",
    ):
        system.allow(text)


class Sender(threading.Thread):
    """Sends messages one after the other, each again while it is answered with 4xx."""

    def __init__(self, system: MailSystem, count: int) -> None:
        super().__init__()
        self._system = system
        self._count = count
        self.accepted = 0
        self.delayed = 0
        self.refused: list[str] = []
        self.give_up = threading.Event()

    def run(self) -> None:
        while self.accepted < self._count and not self.refused and not self.give_up.is_set():
            number = self.accepted
            try:
                self._system.send("a@client.test", [f"user{number}@mail.test"], MESSAGE)
            except smtplib.SMTPRecipientsRefused as error:
                self._not_accepted(*next(iter(error.recipients.values())))
            except smtplib.SMTPResponseException as error:
                self._not_accepted(error.smtp_code, error.smtp_error)
            else:
                self.accepted += 1

    def _not_accepted(self, code: int, text: bytes | str) -> None:
        if code // 100 == 4:
            self.delayed += 1
            self.give_up.wait(0.02)
        else:
            self.refused.append(f"{code} {text!r}")


@pytest.mark.parametrize("via", ["", "proxy:"])
@pytest.mark.parametrize("kind", ["tcp", "socketmap"])
def test_a_server_that_stops_makes_mail_wait(make_system: MakeSystem, kind: str, via: str) -> None:
    entries = {f"user{number}@mail.test": "alice@virtual.test" for number in range(60)}
    with server_of(kind, entries) as server:
        system = make_system(
            main={
                "virtual_alias_maps": f"{via}{server.table}",
                "notify_classes": "",  # cleanup that meets the problem is worth a notice
                "minimal_backoff_time": "1s",
                "maximal_backoff_time": "1s",
                "queue_run_delay": "1s",
                "smtpd_error_sleep_time": "0",
            }
        )
        allow_problems(system)
        system.start()
        sender = Sender(system, 60)
        sender.start()
        try:
            wait_until(lambda: sender.accepted > 15, lambda: sender.refused)
            server.stop()
            wait_until(lambda: sender.delayed > 3 or sender.refused, lambda: sender.accepted)
            server.start()
            sender.join(PATIENCE)
        finally:
            sender.give_up.set()
            sender.join()
        assert sender.refused == []
        assert sender.accepted == 60
        system.wait_for_queue_empty()
        assert len(system.maildir("alice")) == 60


def test_transport_table_that_is_away(make_system: MakeSystem) -> None:
    """What is in the queue waits there."""
    server = server_of("tcp", {"x@far.test": "discard:"})  # asked for whole addresses only
    system = make_system(
        main={
            "transport_maps": server.table,
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "1s",
            "queue_run_delay": "1s",
        }
    )
    allow_problems(system)
    system.allow("transport_maps lookup failure|problem talking to service rewrite")
    system.start()
    system.sendmail("-f", "", "x@far.test", stdin=b"Subject: x\n\nx\n")
    system.wait_for_deferred(1, PATIENCE)
    server.start()
    try:
        system.wait_for_log(r"to=<x@far\.test>.*status=sent")
        system.wait_for_queue_empty()
    finally:
        server.stop()


def test_proxymap_serves_commands(make_system: MakeSystem) -> None:
    system = make_system()
    source = system.config_directory / "names"
    source.write_text("a 1\nb 2\n")
    assert system.run("postmap", str(source)).returncode == 0
    table = f"proxy:lmdb:{source}"
    cache = f"proxy:btree:{system.top}/data/cache"
    system.configure({"proxy_read_maps": table, "proxy_write_maps": cache})
    system.start()
    assert system.run("postmap", "-q", "a", table).stdout == b"1\n"
    assert system.run("postmap", "-s", table).stdout == b"a\t1\nb\t2\n"
    assert system.run("postmap", "-i", cache, stdin=b"k v\nl w\n").returncode == 0
    assert system.run("postmap", "-d", "k", cache).returncode == 0
    assert system.run("postmap", "-d", "k", cache).returncode == 1
    assert system.run("postmap", "-q", "l", cache.removeprefix("proxy:")).stdout == b"w\n"
    system.allow("unapproved table|to approve this table|static:secret")
    done = system.run("postmap", "-q", "a", "proxy:static:secret")
    assert done.returncode == 1
    assert b'proxymap service is not configured for table "static:secret"' in done.stderr
    system.wait_for_log("to approve this table for read-only access, list proxy:static:secret in")


def test_without_proxymap_in_master_cf(make_system: MakeSystem) -> None:
    system = make_system(
        main={"virtual_alias_maps": "proxy:inline:{{nick@mail.test=alice@virtual.test}}"},
        master=["-proxymap/unix", "-proxywrite/unix"],
    )
    system.start()
    system.send("a@client.test", ["nick@mail.test"], MESSAGE)
    system.wait_for_queue_empty()
    assert len(system.maildir("alice")) == 1


@pytest.fixture(scope="module")
def memcached() -> Iterator[Memcached]:
    server = Memcached()
    yield server
    server.close()


def client_file(
    system: MailSystem, memcached: Memcached, *lines: str, name: str = "memcache.cf"
) -> str:
    path = system.config_directory / name
    path.write_text(memcached.client_file(*lines))
    return f"memcache:{path}"


@pytest.mark.parametrize("via", ["", "proxy:"])
def test_memcache(make_system: MakeSystem, memcached: Memcached, via: str) -> None:
    """memcached alone: without it mail waits."""
    system = make_system()
    allow_problems(system)
    system.allow("connect to 127.0.0.1:|database memcache:")
    table = f"{via}{client_file(system, memcached, 'key_format = a:%s', 'max_try = 1')}"
    system.configure({"virtual_alias_maps": table, "smtpd_error_sleep_time": "0"})
    memcached.store("a:nick@mail.test", "alice@virtual.test")
    system.start()
    system.send("a@client.test", ["nick@mail.test"], MESSAGE)
    system.wait_for_queue_empty()
    assert len(system.maildir("alice")) == 1
    memcached.stop()

    def reply() -> int:
        with system.smtp() as client:
            client.ehlo()
            client.mail("a@client.test")
            return client.rcpt("fresh@mail.test")[0]

    try:
        assert reply() == 451
    finally:
        memcached.start()
    memcached.store("a:fresh@mail.test", "alice@virtual.test")
    wait_until(lambda: reply() == 250)
    system.send("a@client.test", ["fresh@mail.test"], MESSAGE)
    system.wait_for_queue_empty()
    assert len(system.maildir("alice")) == 2


def test_memcache_before_a_table(make_system: MakeSystem, memcached: Memcached) -> None:
    """memcached gets what the table says, and the table goes on without it."""
    system = make_system()
    system.allow("connect to 127.0.0.1:|database memcache:")
    backup = "inline:{nick@mail.test=alice@virtual.test}"
    table = client_file(system, memcached, "key_format = b:%s", f"backup = {backup}", "max_try = 1")
    system.configure({"virtual_alias_maps": table})
    system.start()
    system.send("a@client.test", ["nick@mail.test"], MESSAGE)
    system.wait_for_queue_empty()
    other = client_file(
        system, memcached, "key_format = b:%s", "backup = inline:{other=x}", name="other.cf"
    )
    done = system.run("postmap", "-q", "nick@mail.test", other)
    assert done.stdout == b"alice@virtual.test\n", done.stderr
    assert system.run("postmap", "-s", other).stdout == b"other\tx\n"
    memcached.stop()
    try:
        system.send("a@client.test", ["nick@mail.test"], MESSAGE)
        system.wait_for_queue_empty()
    finally:
        memcached.start()
    assert len(system.maildir("alice")) == 2


def chrooted(system: MailSystem) -> list[str]:
    """All services in the jail but proxymap and those that cannot be there."""
    outside = ("proxymap", "proxywrite", "local", "virtual", "postlog")
    lines = []
    for line in system.master.values():
        words = line.split()
        words[4] = "n" if words[0] in outside else "y"
        lines.append(" ".join(words))
    return lines


@pytest.mark.root
def test_from_the_jail(make_system: MakeSystem, short_tmp: Path) -> None:
    """A socket that can only be reached from outside of the jail, and the accounts."""
    short_tmp.chmod(0o755)
    with TableServer("socketmap", short_tmp / "s", ALIASES) as server:
        system = make_system(privileged=True, main={"virtual_alias_maps": f"proxy:{server.table}"})
        system.configure({}, chrooted(system))
        system.start()
        me = f"{system.user.pw_name}@mail.test"
        system.send("a@client.test", ["nick@mail.test", me], MESSAGE)
        system.wait_for_queue_empty()
        assert len(system.maildir("alice")) == 1
        with system.smtp() as client:
            client.ehlo()
            client.mail("a@client.test")
            assert client.rcpt("no-such-user@mail.test")[0] == 550
        titles = [process.title() for process in session_members(system.session)]
        assert any(title.startswith("proxymap") for title in titles), titles


def test_a_table_that_is_not_there(make_system: MakeSystem) -> None:
    """What does not need it goes on."""
    system = make_system(
        main={
            "smtpd_recipient_restrictions": (
                "check_recipient_access inline:{needs@virtual.test=with_table},"
                " permit_mynetworks, reject"
            ),
            "smtpd_restriction_classes": "with_table",
            "with_table": "check_recipient_access regexp:/nonexistent/table",
        }
    )
    system.allow("open /nonexistent/table: No such file")
    system.allow("regexp:/nonexistent/table lookup error")
    system.start()
    with system.smtp() as client:
        client.ehlo()
        assert client.mail("a@client.test")[0] == 250
        assert client.rcpt("alice@virtual.test")[0] == 250
        assert client.rcpt("needs@virtual.test")[0] == 451
    system.wait_for_log("error: open /nonexistent/table: No such file or directory")


def test_a_table_that_must_be_there(make_system: MakeSystem) -> None:
    """daemon_table_open_error_is_fatal: the program does not start, and its mail waits."""
    system = make_system(
        main={
            "daemon_table_open_error_is_fatal": "yes",
            "service_throttle_time": "1s",
            "transport_retry_time": "1s",
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "1s",
            "queue_run_delay": "1s",
        }
    )
    table = system.config_directory / "addresses"
    port = free_port()
    system.configure({"smtp_generic_maps": f"regexp:{table}"})
    for text in ("fatal: open .*: No such file", "throttling", "exit status 1", "transport smtp"):
        system.allow(text)
    system.route("next.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    system.send("a@client.test", ["x@next.test"], MESSAGE)
    system.wait_for_log(f"smtp.*fatal: open {table}: No such file or directory")
    with PythonSink(port) as sink:
        table.write_text("/^a@/ b@client.test\n")
        wait_until(lambda: sink.messages)
        assert sink.messages[0].sender == "b@client.test"
        system.wait_for_queue_empty()
