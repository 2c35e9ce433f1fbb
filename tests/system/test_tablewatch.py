"""Tables that change while mail flows: no reload, nothing lost, bounced or deferred by it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import Instance, free_port
from tests.system.processes import wait_until
from tests.system.sink import PythonSink

MESSAGE = b"Subject: test\r\n\r\nbody\r\n"
CHANGES = int(os.environ.get("TABLE_CHANGES", "12"))


@pytest.fixture
def system() -> Iterator[Instance]:
    system = Instance()
    etc = system.config_directory
    system.configure(
        {
            "alias_maps": f"hash:{etc}/aliases",
            "alias_database": f"hash:{etc}/aliases",
            "transport_maps": f"hash:{etc}/transport",
            "local_recipient_maps": "",
        }
    )
    try:
        yield system
    finally:
        system.stop()


class Table:
    """A source that is replaced, and what the running system makes of it."""

    def __init__(self, system: Instance, name: str) -> None:
        self._system = system
        self.path = system.config_directory / name

    def write(self, text: str) -> None:
        fresh = Path(f"{self.path}.new")
        fresh.write_text(text)
        fresh.rename(self.path)

    def wait_for(self, key: str, value: str) -> None:
        """Until a lookup gives the value."""

        def found() -> str:
            done = self._system.run("postmap", "-q", key, f"hash:{self.path}")
            return done.stdout.decode().rstrip("\n")

        wait_until(lambda: found() == value, self._system.end_of_log)


def test_missing_tables_are_built_at_the_start(system: Instance) -> None:
    aliases, transport = Table(system, "aliases"), Table(system, "transport")
    aliases.write("list: alice@virtual.test\n")
    transport.write("void.test discard:\n")
    system.start()
    system.send("a@mail.test", ["list@mail.test", "x@void.test"], MESSAGE)
    system.wait_for_queue_empty()
    assert len(system.maildir("alice")) == 1
    system.wait_for_log(r"to=<x@void.test>, relay=none, .*status=sent")


def test_tables_change_under_load(system: Instance) -> None:
    aliases, transport = Table(system, "aliases"), Table(system, "transport")
    ports = free_port(), free_port()
    aliases.write("list: alice@virtual.test\nv: x0\n")
    transport.write(f"next.test smtp:[127.0.0.1]:{ports[0]}\nv x0\n")
    system.start()
    system.allow(r"aliases, line 2: need name:value pair; keeping the old content of hash:")
    system.allow(r"transport, line 2: expected format: key whitespace value; keeping the old")
    sent = 0
    done = threading.Event()

    def load() -> None:
        nonlocal sent
        while not done.is_set():
            system.send("a@mail.test", ["list@mail.test", "b@next.test"], MESSAGE)
            sent += 1

    with PythonSink(ports[0]) as first, PythonSink(ports[1]) as second:
        sender = threading.Thread(target=load)
        sender.start()
        try:
            for number in range(1, CHANGES + 1):
                if number % 4 == 0:
                    aliases.write("list: nobody-at-all\nlonely\n")
                    transport.write("next.test error:bad\nlonely\n")
                    system.wait_for_log("keeping the old", count=number // 4 * 2)
                    continue
                user = ("alice", "bob")[number % 2]
                port = ports[number % 2]
                aliases.write(f"list: {user}@virtual.test\nv: x{number}\n")
                transport.write(f"next.test smtp:[127.0.0.1]:{port}\nv x{number}\n")
                aliases.wait_for("v", f"x{number}")
                transport.wait_for("v", f"x{number}")
                # What trivial-rewrite said is remembered for a second: a change may come sooner.
                arrived = (first, second)[number % 2].messages
                before = len(arrived)
                wait_until(lambda: len(arrived) > before, system.end_of_log)  # noqa: B023
        finally:
            done.set()
            sender.join()
        system.wait_for_queue_empty()
        assert len(first.messages) + len(second.messages) == sent
        assert min(len(first.messages), len(second.messages)) > 0
    alice = len(system.maildir("alice"))
    bob = (system.top / "vmail/bob").read_bytes().count(b"\nSubject: test\n")
    assert min(alice, bob) > 0
    assert alice + bob == sent
    assert "status=deferred" not in system.log_text()
    assert "status=bounced" not in system.log_text()


def test_what_was_read_as_a_whole_is_read_anew(system: Instance) -> None:
    """Text tables and files in match lists, for processes that serve somebody all the time."""
    etc = system.config_directory
    domains = etc / "domains"
    (etc / "aliases").write_text("")
    (etc / "transport").write_text("")
    domains.write_text("void.test\n")
    (etc / "senders").write_text("/^bad@/ REJECT go away\n")
    system.configure(
        {
            "relay_domains": str(domains),
            "relay_transport": "discard:relayed",
            "smtpd_sender_restrictions": f"check_sender_access regexp:{etc}/senders",
            "smtpd_delay_reject": "no",
        }
    )
    system.start()
    system.send("a@mail.test", ["x@void.test"], MESSAGE)
    system.wait_for_log(r"to=<x@void.test>, relay=none, .*status=sent")
    domains.write_text("other.test\n")
    (etc / "senders").write_text("/^worse@/ REJECT go away\n")

    def is_read() -> bool:
        system.send("bad@mail.test", ["y@other.test"], MESSAGE)
        return bool(system.log_lines("to=<y@other.test>, relay=none, .*status=sent .relayed.$"))

    wait_until(is_read)
