"""Services by the types that master.cf may give them, and types that do not fit."""

from __future__ import annotations

import socket

import pytest

from tests.system.harness import Instance, free_port
from tests.system.processes import PATIENCE
from tests.system.sink import PythonSink

MESSAGE = b"Subject: test\r\n\r\nbody\r\n"
# Services that commands or other services ask.
ASKED = ("pickup", "cleanup", "qmgr", "rewrite", "bounce", "defer", "trace", "flush", "showq")


def retype(system: Instance, names: tuple[str, ...], kind: str) -> None:
    """Have those services listen in another way."""
    for name in names:
        old = "unix-dgram" if name == "postlog" else "unix"
        columns = system.master[f"{name}/{old}"].split()[2:]
        system.configure({}, [f"-{name}/{old}", " ".join((name, kind, *columns))])


def flow(system: Instance, port: int) -> None:
    """A message goes all the way, one is deferred, listed, and flushed."""
    system.send("a@mail.test", ["bob@virtual.test"], MESSAGE)
    system.wait_for_log(r"to=<bob@virtual.test>.*status=sent")
    system.sendmail("b@down.test", stdin=b"Subject: x\n\nx\n")
    system.wait_for_deferred(1)
    assert b"b@down.test" in system.run("postqueue", "-p").stdout
    with PythonSink(port) as sink:
        assert not system.run("postqueue", "-f").stderr
        system.wait_for_queue_empty()
        assert len(sink.messages) == 1


@pytest.mark.parametrize("names", [("qmgr",), ("pickup",), ASKED], ids=["qmgr", "pickup", "all"])
def test_fifo(names: tuple[str, ...]) -> None:
    port = free_port()
    system = Instance()
    system.allow("connect to")
    retype(system, names, "fifo")
    system.route("down.test", f"smtp:[127.0.0.1]:{port}")
    try:
        system.start()
        flow(system, port)
        for name in names:
            folder = "private" if system.master[f"{name}/fifo"].split()[2] in "-y" else "public"
            assert (system.queue_directory / folder / name).is_fifo()
            if name in ("pickup", "qmgr", "flush"):
                assert not system.run("postkick", folder, name, "W").stderr
    finally:
        system.stop()


def test_fifo_takes_letters_after_another_service_could_not_be_executed() -> None:
    port = free_port()
    system = Instance(main={"service_throttle_time": "1s"})
    for text in ("connect to", "nosuch", "bad command startup", "exit status 1", "no such program"):
        system.allow(text)
    system.configure({}, ["nosuch unix - - n 1 - nosuchprogram"])
    retype(system, ("qmgr",), "fifo")
    system.route("down.test", f"smtp:[127.0.0.1]:{port}")
    try:
        system.start()
        system.wait_for_log("nosuchprogram.*exit status 1")
        system.sendmail("b@down.test", stdin=b"Subject: x\n\nx\n")
        system.wait_for_deferred(1)
        for _ in range(3):
            count = len(system.log_lines("status=deferred"))
            with (system.queue_directory / "public/qmgr").open("wb") as fifo:
                fifo.write(b"FAD")
            system.wait_for_log("status=deferred", count=count + 1)
            failed = len(system.log_lines("nosuchprogram.*exit status 1"))
            system.wait_for_log("nosuchprogram.*exit status 1", count=failed + 1)
    finally:
        system.stop()


def test_smtpd_on_a_unix_socket() -> None:
    """Who comes through the file system is this host."""
    system = Instance()
    system.configure({}, ["viaunix unix - - n - - smtpd"])
    try:
        system.start()
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rwb") as lines:
            client.settimeout(PATIENCE)
            client.connect(str(system.queue_directory / "private/viaunix"))
            first = lines.readline()
            assert first.startswith(b"220 "), system.end_of_log()
            for command in (b"HELO x", b"MAIL FROM:<a@x.test>", b"RCPT TO:<bob@virtual.test>"):
                lines.write(command + b"\r\n")
                lines.flush()
                assert lines.readline().startswith(b"250 ")
        system.wait_for_log(r"lost connection after RCPT from localhost\[127\.0\.0\.1\]")
    finally:
        system.stop()


def test_type_that_a_service_cannot_have() -> None:
    system = Instance()
    retype(system, ("rewrite",), "unix-dgram")
    try:
        system.start()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(str(system.queue_directory / "private/rewrite"))
            client.send(b"W")
        for text in (
            "fatal: unsupported transport type: unix-dgram",
            "trivial-rewrite pid .* exit status 1",
            "bad command startup -- throttling",
        ):
            system.allow(text)
            system.wait_for_log(text)
    finally:
        system.stop()
