"""As root: logs that cannot be written or read lose no message and no report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.processes import wait_until

pytestmark = pytest.mark.root

QUICK = {
    "queue_run_delay": "1s",
    "minimal_backoff_time": "1s",
    "maximal_backoff_time": "1s",
    "bounce_queue_lifetime": "1d",
}
MESSAGE = b"Subject: x\n\nx\n"


@contextmanager
def closed(system: MailSystem, name: str, mode: int) -> Iterator[None]:
    """Only root gets into this queue directory, or changes it."""
    path = system.queue_directory / name
    before = path.stat()
    os.chown(path, 0, 0)
    path.chmod(mode)
    yield
    path.chmod(before.st_mode & 0o777)
    os.chown(path, before.st_uid, before.st_gid)


def make(make_system: MakeSystem, **main: str) -> MailSystem:
    system = make_system(privileged=True, main={**QUICK, **main})
    system.route("later.test", "retry:4.3.0 later")
    for words in ("defer log", "defer/", "scan defer", "cannot record why delivery is delayed",
                  "Permission denied"):  # fmt: skip
        system.allow(words)
    system.start()
    return system


def test_deferred_mail_is_listed_and_tried_again(make_system: MakeSystem) -> None:
    system = make(make_system)
    system.sendmail("-f", "alice@virtual.test", "x@later.test", stdin=MESSAGE)
    system.wait_for_log("status=deferred")
    with closed(system, "defer", 0o500):
        tries = len(system.log_lines("status=deferred"))
        system.wait_for_log("status=deferred", count=tries + 2)
        wait_until(lambda: b"x@later.test" in system.run("mailq").stdout)
    tries = len(system.log_lines("status=deferred"))
    system.wait_for_log("status=deferred", count=tries + 2)
    wait_until(lambda: b"(later)" in system.run("mailq").stdout)
    system.run("postsuper", "-d", "ALL")


def test_a_message_that_expires_without_records_is_reported(make_system: MakeSystem) -> None:
    system = make(make_system, maximal_queue_lifetime="3s", bounce_queue_lifetime="3s")
    with closed(system, "defer", 0o555):
        system.sendmail("-f", "alice@virtual.test", "x@later.test", stdin=MESSAGE)
        system.wait_for_log("status=expired, returned to sender")
        system.wait_for_queue_empty()
    (report,) = system.maildir("alice")
    assert b"Final-Recipient: rfc822; x@later.test" in report
    assert b"there is no record of the reason" in report.replace(b"\n    ", b" ")
