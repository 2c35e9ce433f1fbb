"""kill -9 at random moments under load: what was answered 250 is delivered after a restart.

Every message has a number. A client notes it when the 250 to the final dot has arrived;
numbers noted must reach the next hop. A number may arrive twice only if its delivery was
going on when something was killed, which bounds the duplicates by what can be in flight.
"""

from __future__ import annotations

import os
import random
import re
import signal
import smtplib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import Instance, MailSystem, free_port
from tests.system.processes import session_members
from tests.system.sink import PythonSink, Received

ROUNDS = 10
CLIENTS = 6

# Everything that a process which finds another one dead may say.
EXPECTED = (
    r"process .* killed by signal 9",
    r"bad command startup|throttling|premature end-of-input|lost connection|timeout|unexpected",
    r"connect to .*(?:private|public)|connection (?:refused|lost|reset)|[Bb]roken pipe|unavailable",
    r"bogus file name|malformed|problem talking|problem with|not running|died|exited|stale|recover",
    r"premature disconnect|see a previous warning/fatal/panic logfile record",
    r"required alias not found: postmaster",  # for the notice that something was killed
)


@dataclass(slots=True)
class Clients:
    """Clients that send numbered mail until told to stop, and note what was accepted."""

    system: MailSystem
    accepted: set[int] = field(default_factory=set)
    running: bool = True
    next_number: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Clients:
        self.threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.running = False
        for thread in self.threads:
            thread.join(60)

    def wait_for_more(self, count: int, timeout: float = 60.0) -> None:
        wanted, deadline = len(self.accepted) + count, time.monotonic() + timeout
        while len(self.accepted) < wanted:
            assert time.monotonic() < deadline, self.system.log_text()[-4000:]
            time.sleep(0.01)

    def _number(self) -> int:
        with self.lock:
            self.next_number += 1
            return self.next_number

    def _client(self) -> None:
        while self.running:
            try:
                with self.system.smtp(timeout=20) as client:
                    for _ in range(5):
                        self._send(client)
            except (OSError, smtplib.SMTPException):
                time.sleep(0.05)  # killed, or not started again yet

    def _send(self, client: smtplib.SMTP) -> None:
        number = self._number()
        content = b"Subject: crash\r\n\r\nnumber %d\r\n" % number + (b"x" * 70 + b"\r\n") * 20
        refused = client.sendmail(f"s{number}@client.test", ["x@relay.test"], content)
        if not refused:
            with self.lock:
                self.accepted.add(number)


def numbers(messages: list[Received]) -> Counter[int]:
    found = (re.search(rb"\r\nnumber (\d+)\r\n", m.content) for m in messages if m.sender)
    return Counter(int(match[1]) for match in found if match)


def wait_for_all(sink: PythonSink, wanted: set[int], system: MailSystem) -> Counter[int]:
    deadline = time.monotonic() + 90
    while missing := wanted - set(numbers(sink.messages)):
        assert time.monotonic() < deadline, (len(missing), system.log_text()[-4000:])
        time.sleep(0.1)
        system.run("postfix", "-c", str(system.config_directory), "flush")
    system.wait_for_queue_empty(60)
    return numbers(sink.messages)


def announce(system: MailSystem) -> None:
    for pattern in EXPECTED:
        system.allow(pattern)


@pytest.fixture
def loaded(make_system: MakeSystem) -> MailSystem:
    """A mail system, not started, that relays and does not wait long before another try."""
    system = make_system(
        main={
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "2s",
            "queue_run_delay": "1s",
            "transport_retry_time": "1s",
            "service_throttle_time": "1s",
            "initial_destination_concurrency": "10",
        }
    )
    announce(system)
    return system


def test_everything_killed(loaded: MailSystem) -> None:
    """The whole mail system at once, ten times."""
    dice, port = random.Random(2821), free_port()
    loaded.route("relay.test", f"smtp:[127.0.0.1]:{port}")
    loaded.start()
    with PythonSink(port) as sink, Clients(loaded) as clients:
        for _ in range(ROUNDS):
            clients.wait_for_more(dice.randrange(10, 60))
            time.sleep(dice.random() * 0.05)
            loaded.kill_all()
            loaded.start()
        clients.wait_for_more(20)
        clients.stop()
        arrived = wait_for_all(sink, clients.accepted, loaded)
        check_duplicates(arrived, sink)


def test_services_killed(loaded: MailSystem) -> None:
    """One process at a time: any but master, then master alone."""
    dice, port = random.Random(5321), free_port()
    loaded.route("relay.test", f"smtp:[127.0.0.1]:{port}")
    loaded.start()
    with PythonSink(port) as sink, Clients(loaded) as clients:
        for _ in range(ROUNDS):
            clients.wait_for_more(dice.randrange(10, 60))
            victims = [p for p in session_members(loaded.session) if p.pid != loaded.session]
            kill(dice.choice(victims).pid)
        clients.wait_for_more(20)
        kill(loaded.session)
        wait_for_orphans(loaded)
        loaded.start()
        clients.wait_for_more(20)
        clients.stop()
        arrived = wait_for_all(sink, clients.accepted, loaded)
        check_duplicates(arrived, sink)


def wait_for_orphans(system: MailSystem) -> None:
    """Our services end soon after their master; those of Postfix may go on until they are idle."""
    deadline = time.monotonic() + (30 if isinstance(system, Instance) else 2)
    while left := session_members(system.session):
        if time.monotonic() > deadline:
            assert not isinstance(system, Instance), [process.title() for process in left]
            return system.kill_all()
        time.sleep(0.05)
    return None


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended by itself


def check_duplicates(arrived: Counter[int], sink: PythonSink) -> None:
    """No more than were being delivered when something died, and none more than once a death."""
    twice = sum(1 for count in arrived.values() if count > 1)
    assert twice <= (ROUNDS + 1) * max(1, sink.open_most)
    assert max(arrived.values()) <= 3
