"""smtp-source and qmqp-source through a mail system into smtp-sink, and straight into a sink."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port, need_tool
from tests.system.processes import is_listening, wait_until


@contextmanager
def sink(system: MailSystem, program: str, *options: str, where: str) -> Iterator[None]:
    """A sink of ours, until the end of the block or its own."""
    as_root = ["-u", system.user.pw_name] if os.geteuid() == 0 and program == "smtp-sink" else []
    command = [str(system.command_directory / program), *as_root, *options, where, "100"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        if where.startswith("unix:"):
            wait_until(Path(where.removeprefix("unix:")).exists)
        else:
            wait_until(lambda: is_listening(int(where.rpartition(":")[2])))
        yield
    finally:
        process.terminate()
        process.communicate(timeout=60)


def source(system: MailSystem, program: str, *options: str) -> None:
    command = [str(system.command_directory / program), *options]
    subprocess.run(command, check=True, timeout=300)


@pytest.mark.parametrize("options", [(), ("-d",), ("-L",)])
def test_through_the_mail_system(make_system: MakeSystem, options: tuple[str, ...]) -> None:
    """With -L into the sink, without the system between."""
    system, port, qmqp = make_system(), free_port(), free_port()
    kept = system.top / "kept"
    kept.mkdir(mode=0o777)
    kept.chmod(0o777)
    what = ("-s", "5", "-m", "30", "-l", "3000", "-f", "a@remote.test", "-t", "b@remote.test")
    lmtp = tuple(set(options) & {"-L"})
    with sink(system, "smtp-sink", "-d", f"{kept}/m", *lmtp, where=f"127.0.0.1:{port}"):
        if lmtp:
            source(system, "smtp-source", *options, *what, f"127.0.0.1:{port}")
        else:
            system.route("remote.test", f"smtp:[127.0.0.1]:{port}")
            listener = f"127.0.0.1:{qmqp} inet n - n - - qmqpd"
            system.configure({"qmqpd_authorized_clients": "127.0.0.1"}, [listener])
            system.start()
            source(system, "smtp-source", *options, *what, f"127.0.0.1:{system.smtp_port}")
            source(system, "qmqp-source", *what, f"127.0.0.1:{qmqp}")
            system.wait_for_queue_empty()
    texts = [file.read_bytes() for file in kept.iterdir()]
    assert len(texts) == (30 if lmtp else 60)
    for text in texts:
        assert b"\nX-Mail-Args: <a@remote.test>" in text
        assert b"\nX-Rcpt-Args: <b@remote.test>" in text
        assert text.count(b"X") > 2000


def test_sources_and_sinks_of_qmqp(make_system: MakeSystem) -> None:
    system = make_system()
    ours, port = f"unix:{system.top}/sink", free_port()
    with sink(system, "qmqp-sink", "-c", where=ours):
        source(system, "qmqp-source", "-s", "5", "-m", "50", "-r", "3", ours)
    with sink(system, "qmqp-sink", where=f"127.0.0.1:{port}"):
        theirs = [need_tool("qmqp-source"), "-s", "5", "-m", "50", f"inet:127.0.0.1:{port}"]
        subprocess.run(theirs, check=True, timeout=300)


def test_the_original_sends_to_a_sink_that_ends_by_itself(make_system: MakeSystem) -> None:
    system, port = make_system(), free_port()
    with sink(system, "smtp-sink", "-c", "-n", "40", where=f"127.0.0.1:{port}"):
        theirs = [need_tool("smtp-source"), "-s", "10", "-m", "40", f"inet:127.0.0.1:{port}"]
        subprocess.run(theirs, check=True, timeout=300)
        wait_until(lambda: not is_listening(port))
