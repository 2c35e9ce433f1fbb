"""The queue manager of a real instance: deferral, back-off, flush, expiry, reload, kill -9."""

from __future__ import annotations

import re
import signal
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import Instance, free_port
from tests.system.processes import kill, session_members, wait_until
from tests.system.sink import PythonSink

MESSAGE = b"Subject: test\r\n\r\nbody\r\n"


@pytest.fixture
def system() -> Iterator[Instance]:
    """With mail for down.test going to a port where nobody listens."""
    system = Instance(main={"queue_run_delay": "1s", "minimal_backoff_time": "1s"})
    system.allow("connect to")
    try:
        yield system
    finally:
        system.stop()


def deferred(system: Instance) -> list[Path]:
    folder = system.queue_directory / "deferred"
    return [path for path in folder.rglob("*") if path.is_file()]


def qmgr_pid(system: Instance, other_than: int = 0) -> int:
    """The process id of the queue manager; waits for one that master is about to start."""

    def found() -> list[int]:
        members = session_members(system.session)
        return [p.pid for p in members if "qmgr" in p.title() and p.pid != other_than]

    return wait_until(found, system.end_of_log)[0]


def test_mail_for_a_host_that_is_down_is_deferred_and_tried_again(system: Instance) -> None:
    port = free_port()
    system.route("down.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    system.send("a@mail.test", ["b@down.test"], MESSAGE)
    wait_until(lambda: deferred(system), system.end_of_log)
    line = system.wait_for_log(r"status=deferred")
    assert "to=<b@down.test>" in line
    with PythonSink(port) as sink:
        system.wait_for_queue_empty()
        assert len(sink.messages) == 1
    system.wait_for_log(r"qmgr\[\d+\]: \w+: removed")


def test_killed_queue_manager_loses_nothing(system: Instance) -> None:
    system.start()
    for number in range(10):
        system.send("a@mail.test", ["alice@virtual.test"], MESSAGE)
        if number in (3, 6):
            kill(qmgr_pid(system))
            system.allow("killed by signal 9")
    system.wait_for_queue_empty()
    assert len(system.maildir("alice")) >= 10


def test_reload_hands_the_queue_over(system: Instance) -> None:
    system.start()
    old = 0
    for number in range(10):
        system.send("a@mail.test", ["alice@virtual.test"], MESSAGE)
        if number == 4:
            old = qmgr_pid(system)
            system.run("postfix", "reload")
    system.wait_for_queue_empty()
    assert len(system.maildir("alice")) == 10
    assert qmgr_pid(system, other_than=old)


def test_expired_mail_is_returned(system: Instance) -> None:
    never = dict.fromkeys(("maximal_queue_lifetime", "bounce_queue_lifetime"), "0")
    system.configure({**never, "virtual_alias_maps": ""})
    system.route("down.test", f"smtp:[127.0.0.1]:{free_port()}")
    system.start()
    system.send("alice@virtual.test", ["b@down.test"], MESSAGE)
    system.wait_for_log(r"from=<alice@virtual.test>, status=expired, returned to sender")
    system.wait_for_queue_empty()
    assert b"b@down.test" in system.maildir("alice")[0]


def test_a_second_queue_manager_delivers_what_it_is_told_of() -> None:
    """As sites have it whose mail for supervision takes a way of its own."""
    port, down = free_port(), free_port()
    system = Instance(
        main={"queue_run_delay": "1s", "minimal_backoff_time": "1s"},
        master=[
            f"127.0.0.1:{port} inet n - n - - smtpd"
            " -o syslog_name=second -o cleanup_service_name=second_cleanup",
            "second_cleanup unix n - n - 0 cleanup"
            " -o syslog_name=second -o queue_service_name=second_qmgr",
            "second_qmgr fifo n - n 1 1 qmgr"
            " -o syslog_name=second -o rewrite_service_name=second_rewrite",
            "second_rewrite unix - - n - - trivial-rewrite"
            f" -o virtual_transport=discard -o relayhost=[127.0.0.1]:{down}",
        ],
    )
    system.allow("connect to")
    try:
        system.route("down.test", f"smtp:[127.0.0.1]:{down}")
        system.start()
        with smtplib.SMTP("127.0.0.1", port) as client:
            for _ in range(3):
                client.sendmail("a@mail.test", ["alice@virtual.test"], MESSAGE)
                system.send("a@mail.test", ["alice@virtual.test"], MESSAGE)
            client.sendmail("a@mail.test", ["b@down.test"], MESSAGE)
        system.wait_for_log(r"second/qmgr\[\d+\]: \w+: removed", count=3)
        system.wait_for_log(r"postfix/qmgr\[\d+\]: \w+: removed", count=3)
        assert len(system.maildir("alice")) == 3
        system.wait_for_log("to=<b@down.test>.*status=deferred")
        with PythonSink(down) as sink:
            system.wait_for_queue_empty()
            assert len(sink.messages) == 1
    finally:
        system.stop()


def test_files_of_delivered_messages_are_used_again(system: Instance) -> None:
    """Each message is its own, whatever was in the file before; and none stays on disk."""
    spare = system.queue_directory / "spare"
    texts = [f"{number}\r\n".encode() * lines for number, lines in enumerate((3000, 3, 2000, 1))]
    port = free_port()
    system.route("sink.test", f"smtp:[127.0.0.1]:{port}")
    with PythonSink(port) as sink:
        system.start()
        for count, text in enumerate(texts, 1):
            system.send("a@mail.test", ["b@sink.test"], b"Subject: x\r\n\r\n" + text)
            system.wait_for_log(r"qmgr\[\d+\]: \w+: removed", count=count)
        bodies = [message.content.partition(b"\r\n\r\n")[2] for message in sink.wait_for(4)]
    assert bodies == texts
    ids = re.findall(r"qmgr\[\d+\]: (\w+): removed", system.log_text())
    assert len({queue_id[5:] for queue_id in ids}) < len(ids)  # behind microseconds, the inode
    (cleanup,) = (p.pid for p in session_members(system.session) if "cleanup" in p.title())
    ignored = re.search(r"SigIgn:\t(\w+)", Path(f"/proc/{cleanup}/status").read_text())
    assert ignored
    assert int(ignored[1], 16) & 1 << signal.SIGIO - 1  # sent to who has a lease
    wait_until(lambda: not list(spare.iterdir()), lambda: list(spare.iterdir()))
