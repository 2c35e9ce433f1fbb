"""Clients that send numbered mail, and note what was accepted; and what arrived of it.

A client notes a number when the 250 to the final dot has arrived, or when sendmail has ended with
0.
"""

from __future__ import annotations

import re
import smtplib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.system.harness import MailSystem
from tests.system.processes import PATIENCE, wait_until
from tests.system.sink import PythonSink, Received

SMTP_CLIENTS: Final = 5
TRIED_SOON: Final = {
    "minimal_backoff_time": "1s",
    "maximal_backoff_time": "2s",
    "queue_run_delay": "1s",
    "transport_retry_time": "1s",
}
"""For main.cf: what is deferred when something breaks off is tried again at once."""
SIZES: Final = 8  # how many different ones there are


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
        return number, content_of(number)

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


def content_of(number: int) -> bytes:
    """The message of this number, up to 10,000 octets."""
    lines = (b"%d " % number + b"x" * 70 + b"\n") * (number % SIZES * 20)
    return b"Subject: crash\n\nnumber %d\n" % number + lines


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
