"""kill -9 at random moments under load: what was taken is delivered after a restart.

Every message has a number. A client notes it when the 250 to the final dot has arrived, or when
sendmail has ended with 0; numbers noted must reach the next hop. A number may arrive twice only if
its delivery was under way when something was killed.
"""

from __future__ import annotations

import os
import random
import re
import smtplib
import threading
import time
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Final

from tests.system.conftest import MakeSystem
from tests.system.harness import Instance, MailSystem, free_port
from tests.system.processes import PATIENCE, kill, session_members, wait_until
from tests.system.sink import PythonSink, Received

SMTP_CLIENTS: Final = 5
KILLS: Final = ("a service",) * 21 + ("master",) * 3 + ("everything",) * 6
LIMIT: Final = 5  # deliveries at a time
# A queue manager that was killed leaves agents behind, who finish what they do.
IN_FLIGHT: Final = 3 * LIMIT


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
        loads = [self._by_smtp] * SMTP_CLIENTS + [self._by_sendmail]
        self.threads = [threading.Thread(target=self._repeat, args=(load,)) for load in loads]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.running = False
        for thread in self.threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        wanted = len(self.accepted) + count
        wait_until(lambda: len(self.accepted) >= wanted, self.system.end_of_log)

    def _repeat(self, load: Callable[[], None]) -> None:
        while self.running:
            try:
                load()
            except (OSError, smtplib.SMTPException):
                time.sleep(0.05)  # killed, or not started again yet

    def _new(self) -> tuple[int, bytes]:
        with self.lock:
            self.next_number += 1
            number = self.next_number
        return number, b"Subject: crash\n\nnumber %d\n" % number + (b"x" * 70 + b"\n") * 20

    def _accepted(self, number: int) -> None:
        with self.lock:
            self.accepted.add(number)

    def _by_smtp(self) -> None:
        with self.system.smtp(timeout=20) as client:
            for _ in range(5):
                number, content = self._new()
                content = content.replace(b"\n", b"\r\n")
                if not client.sendmail(f"s{number}@client.test", ["x@relay.test"], content):
                    self._accepted(number)

    def _by_sendmail(self) -> None:
        number, content = self._new()
        done = self.system.run(
            "sendmail", "-f", f"s{number}@client.test", "x@relay.test", stdin=content
        )
        if done.returncode == 0:
            self._accepted(number)


def number_of(message: Received) -> int | None:
    match = re.search(rb"\r\nnumber (\d+)\r\n", message.content)
    return int(match[1]) if match and message.sender else None


def queue_id_of(message: Received) -> bytes:
    """From the first Received header, which is ours."""
    match = re.search(rb"\bid (\w+)", message.content)
    return match[1] if match else b""


def wait_for_all(sink: PythonSink, wanted: set[int], system: MailSystem) -> None:
    def missing() -> set[int]:
        return wanted - {number for m in list(sink.messages) if (number := number_of(m))}

    deadline = time.monotonic() + PATIENCE
    while missing():
        assert time.monotonic() < deadline, (sorted(missing())[:20], system.end_of_log())
        system.run("postfix", "-c", str(system.config_directory), "flush")
        time.sleep(0.5)
    system.wait_for_queue_empty()


def wait_for_orphans(system: MailSystem) -> None:
    """Our services end soon after their master; those of Postfix may go on until they are idle."""
    if not isinstance(system, Instance):
        return system.kill_all()
    wait_until(
        lambda: not session_members(system.session),
        lambda: [process.title() for process in session_members(system.session)],
    )
    return None


def do_kill(system: MailSystem, what: str, dice: random.Random) -> None:
    if what == "everything":
        return system.kill_all()
    if what == "master":
        return kill(system.session)
    services = defaultdict(list)
    for process in session_members(system.session):
        if process.pid != system.session:
            services[process.title()].append(process.pid)
    if services:
        kill(dice.choice(services[dice.choice(sorted(services))]))
    return None


def test_nothing_is_lost(make_system: MakeSystem) -> None:
    """CRASH_SEED in the environment repeats a run, as far as the machine does; CRASH_KILLS says how
    many kills there are."""
    seed = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"CRASH_SEED={seed}")
    dice, port = random.Random(seed), free_port()
    system = make_system(
        main={
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "2s",
            "queue_run_delay": "1s",
            "transport_retry_time": "1s",
            "service_throttle_time": "1s",
            "default_destination_concurrency_limit": str(LIMIT),
        }
    )
    system.allow("(?:warning|error|fatal): ")  # who finds another one dead may say so; no panic
    system.route("relay.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    kills: list[float] = []
    with PythonSink(port) as sink, Clients(system) as clients:
        for what in islice(cycle(KILLS), int(os.environ.get("CRASH_KILLS") or len(KILLS))):
            clients.wait_for_more(dice.randrange(5, 30))
            time.sleep(dice.random() * 0.05)
            do_kill(system, what, dice)
            kills.append(time.monotonic())
            if what == "master":
                wait_for_orphans(system)
            if what != "a service":
                system.start()
        clients.wait_for_more(20)
        clients.stop()
        wait_for_all(sink, clients.accepted, system)
        check_duplicates(sink.messages, kills)


def check_duplicates(messages: list[Received], kills: list[float]) -> None:
    """For each kill, not more than what was under way at that moment.

    That may be the delivery of a message, or its submission by sendmail: who gets no answer leaves
    the message in maildrop, though it may be in the queue already.
    """
    copies = defaultdict(list)
    submitted = defaultdict(set)
    for message in messages:
        if number := number_of(message):
            copies[number, queue_id_of(message)].append(message.began)
            submitted[number].add(queue_id_of(message))
    first_kill = Counter(
        bisect(kills, began) for times in copies.values() for began in sorted(times)[:-1]
    )
    twice = sum(len(queue_ids) > 1 for queue_ids in submitted.values())
    assert twice <= len(kills)  # one sendmail at a time
    assert len(kills) not in first_kill, "delivered twice after the last kill"
    assert max(first_kill.values(), default=0) <= IN_FLIGHT, first_kill
