"""master and postfix: start, stop, reload, limits, crashes, wake-ups, foreign programs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from libmail.ipc.messages import CODEC, PassedClient
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port, installation
from tests.system.processes import (
    PATIENCE,
    is_gone,
    is_listening,
    read_process,
    session_members,
    wait_until,
)

FOREIGN = """\
#!/bin/sh
exec > "$MAIL_CONFIG/../log/foreign" 2>&1
echo "arguments: $*"
echo "generation: $GENERATION"
echo "tag: $MAIL_LOGTAG"
for fd in 3 4 5 6; do readlink /proc/$$/fd/$fd | sed "s/^/$fd /; s/:.*//"; done
exec sleep 60
"""


def install_probe() -> None:
    """Adds the probe daemon, and a program that is not built in, to the installation."""
    prefix = installation()
    source = Path(__file__).with_name("probe_daemon.py")
    shutil.copy(source, prefix / "lib/postfix/daemons/probe.py")
    program = prefix / "libexec/postfix/foreign"
    program.write_text(FOREIGN)
    program.chmod(0o755)


def only(system: MailSystem, *lines: str) -> None:
    """Leaves the log, a probe at the SMTP port, and these services."""
    unwanted = [f"-{key}" for key in system.master if key != "postlog/unix-dgram"]
    probe = f"127.0.0.1:{system.smtp_port} inet n - n - - probe"
    system.configure({}, [*unwanted, probe, *lines])


@pytest.fixture
def make_probes(make_system: MakeSystem) -> MakeProbes:
    install_probe()

    def make(*lines: str, main: dict[str, str | None] | None = None) -> MailSystem:
        system = make_system(main=main)
        only(system, *lines)
        return system

    return make


MakeProbes = Callable[..., MailSystem]


class Client:
    """One session with a probe. pid: of the process that serves it, 0 while nobody does."""

    def __init__(self, port: int, wait: float = PATIENCE) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.pid = self.read_pid(wait)

    def read_pid(self, wait: float) -> int:
        self._socket.settimeout(wait)
        try:
            return int(self._socket.recv(100))
        except TimeoutError:
            return 0

    def say(self, text: bytes) -> bytes:
        self._socket.settimeout(PATIENCE)
        self._socket.sendall(text)
        return self._socket.recv(100)

    def close(self) -> None:
        self._socket.close()


def new_process(port: int, old: int) -> Client:
    """A client of another process than `old`, which has been asked to retire."""
    while (client := Client(port)).pid == old:
        client.close()
    return client


NOTICE = "postfix: Postfix is using backwards-compatible default settings"


def postfix(system: MailSystem, command: str) -> tuple[int, str]:
    """Exit status of a postfix command, and what it says besides the notice of old defaults."""
    done = system.run("postfix", "-c", str(system.config_directory), command)
    lines = done.stderr.decode().splitlines(keepends=True)
    assert lines[0].rstrip() == NOTICE
    return done.returncode, "".join(lines[3:])


def test_start_status_stop(make_probes: MakeProbes) -> None:
    system = make_probes()
    assert postfix(system, "status") == (1, "postlog: the Postfix mail system is not running\n")
    system.start()
    client = Client(system.smtp_port)
    assert client.say(b"hello") == b"hello"
    running = f"postlog: the Postfix mail system is running: PID: {system.session}\n"
    assert postfix(system, "status") == (0, running)
    system.wait_for_log(rf"\[\d+\]: the Postfix mail system is running: PID: {system.session}$")
    assert (system.queue_directory / "pid/master.pid").read_text() == f"{system.session:>32}\n"
    system.wait_for_log(r"postfix/postfix-script\[\d+\]: starting the Postfix mail system$")
    system.wait_for_log(
        rf"postfix/master\[{system.session}\]: daemon started -- version 3\.12\.\d+, "
        rf"configuration {system.config_directory}$"
    )
    pids = system.pids()
    client.close()
    assert postfix(system, "stop") == (0, "postlog: stopping the Postfix mail system\n")
    wait_until(lambda: all(is_gone(pid) for pid in pids))
    system.wait_for_log(r"postfix/master\[\d+\]: terminating on signal 15$")
    assert postfix(system, "status")[0] == 1
    status, reason = postfix(system, "stop")
    assert (status, reason) == (
        1,
        "postlog: fatal: the Postfix mail system is not running\n",
    )
    system.allow("mail system is not running")


def test_a_second_start_is_refused(make_probes: MakeProbes) -> None:
    system = make_probes()
    system.allow("already running")
    system.allow("unable to set exclusive lock")
    system.start()
    status, reason = postfix(system, "start")
    assert status == 1
    assert "fatal: the Postfix mail system is already running" in reason
    master = str(system.daemon_directory / "master")
    assert system.run(master, "-t").returncode == 1
    done = system.run(master, "-d")
    assert done.returncode == 1
    assert b"unable to set exclusive lock: Resource temporarily unavailable" in done.stderr


MISTAKES = [
    ("x unix - - n - smtpd", 'master.cf: line 3: missing "command" field'),
    ("x foo - - n - 1 smtpd", "master.cf: line 3: bad transport type: foo"),
    ("127.0.0.1:no-such inet n - n - 1 probe", "master.cf: line 3: unknown port name: no-such"),
]


@pytest.mark.parametrize(("line", "text"), MISTAKES)
def test_a_mistake_in_master_cf_is_fatal(make_probes: MakeProbes, line: str, text: str) -> None:
    system = make_probes(line)
    system.allow("fatal: ")
    status, reason = postfix(system, "start")
    assert status == 1
    assert f"fatal: {system.config_directory}/{text}" in reason
    system.wait_for_log(f"fatal: .*{text}")
    assert not system.master_pid()


def test_an_address_that_is_taken_is_fatal(make_probes: MakeProbes) -> None:
    system = make_probes()
    system.allow("fatal: ")
    with socket.create_server(("127.0.0.1", system.smtp_port)):
        status, reason = postfix(system, "start")
    assert status == 1
    assert f"127.0.0.1 port {system.smtp_port}: Address already in use" in reason
    assert "fatal: mail system startup failed" in reason


def test_reload_lets_sessions_end_and_reads_the_files(make_probes: MakeProbes) -> None:
    gone_port, new_port = free_port(), free_port()
    gone = f"127.0.0.1:{gone_port} inet n - n - - probe"
    system = make_probes(gone, main={"greeting": "old"})
    system.start()
    old = Client(system.smtp_port)
    new_line = f"127.0.0.1:{new_port} inet n - n - - probe -o greeting=other"
    system.configure({"greeting": "new"}, [f"-127.0.0.1:{gone_port}/inet", new_line])
    assert postfix(system, "reload") == (0, "postlog: refreshing the Postfix mail system\n")
    system.wait_for_log(r"reload -- version 3\.12\.\d+, configuration ")
    new = new_process(system.smtp_port, old.pid)
    assert old.say(b"still here") == b"still here"
    other = Client(new_port)
    system.wait_for_log("greeting: new")
    system.wait_for_log("greeting: other")
    wait_until(lambda: not is_listening(gone_port))
    old.close()
    wait_until(lambda: is_gone(old.pid))
    for client in (new, other):
        client.close()


def test_reload_with_a_mistake_changes_nothing(make_probes: MakeProbes) -> None:
    system = make_probes()
    system.allow("fatal: |error: reload")
    system.start()
    system.configure({}, ["x foo - - n - 1 probe"])
    status, reason = postfix(system, "reload")
    assert status == 1
    assert "bad transport type: foo" in reason
    os.kill(system.session, signal.SIGHUP)
    system.wait_for_log("error: reload: .*going on with the old configuration")
    Client(system.smtp_port).close()


def test_abort_ends_everything_at_once(make_probes: MakeProbes) -> None:
    system = make_probes()
    system.allow("mail system is not running")
    system.start()
    client = Client(system.smtp_port)
    assert postfix(system, "abort")[0] == 0
    wait_until(lambda: is_gone(system.session) and is_gone(client.pid))
    client.close()


def test_stop_ends_a_session_that_would_go_on(make_probes: MakeProbes) -> None:
    system = make_probes()
    system.allow("mail system is not running")
    system.start()
    client = Client(system.smtp_port)
    assert postfix(system, "stop")[0] == 0
    wait_until(lambda: is_gone(client.pid))
    client.close()


def test_children_end_with_master(make_probes: MakeProbes) -> None:
    system = make_probes()
    system.start()
    client = Client(system.smtp_port)
    os.kill(system.session, signal.SIGKILL)
    client.close()
    wait_until(lambda: not session_members(system.session))
    system.start()
    Client(system.smtp_port).close()


LIMITS = [
    # maxproc, sessions_per_process: clients served at once, by how many processes
    ("2", "250", 2, 1),
    ("5", "2", 5, 3),
    ("3", "1", 3, 3),
]


@pytest.mark.parametrize(("maxproc", "sessions", "clients", "processes"), LIMITS)
def test_maxproc_limits_clients(
    make_probes: MakeProbes, maxproc: str, sessions: str, clients: int, processes: int
) -> None:
    port = free_port()
    line = f"127.0.0.1:{port} inet n - n - {maxproc} probe"
    system = make_probes(line, main={"sessions_per_process": sessions})
    system.start()
    served = [Client(port) for _ in range(clients)]
    assert all(client.pid for client in served)
    assert len({client.pid for client in served}) == processes
    waiting = Client(port, 0.3)
    assert waiting.pid == 0
    served[0].close()
    assert waiting.read_pid(PATIENCE) != 0
    for client in (*served, waiting):
        client.close()


def test_default_limit_is_processes_times_sessions(make_probes: MakeProbes) -> None:
    main: dict[str, str | None] = {"default_process_limit": "2", "sessions_per_process": "3"}
    system = make_probes(main=main)
    system.start()
    served = [Client(system.smtp_port) for _ in range(6)]
    assert len({client.pid for client in served}) == 2
    waiting = Client(system.smtp_port, 0.3)
    assert waiting.pid == 0
    for client in (*served, waiting):
        client.close()


def test_max_use_ends_processes(make_probes: MakeProbes) -> None:
    port = free_port()
    system = make_probes(f"127.0.0.1:{port} inet n - n - 1 probe -o max_use=2")
    system.start()
    pids = []
    for _ in range(2):
        client = Client(port)
        pids.append(client.pid)
        client.close()
    assert pids[0] == pids[1]
    wait_until(lambda: is_gone(pids[0]))
    client = Client(port)
    assert client.pid not in (0, *pids)
    client.close()


def test_max_idle_ends_processes(make_probes: MakeProbes) -> None:
    system = make_probes(main={"max_idle": "1"})
    system.start()
    client = Client(system.smtp_port)
    client.close()
    wait_until(lambda: is_gone(client.pid))


def test_a_crash_at_the_start_throttles(make_probes: MakeProbes) -> None:
    port = free_port()
    line = f"127.0.0.1:{port} inet n - n - - probe broken"
    system = make_probes(line, main={"service_throttle_time": "1s"})
    system.allow("fatal: broken on purpose|exit status 1|throttling")
    system.start()
    client = socket.create_connection(("127.0.0.1", port))
    program = system.daemon_directory / "probe"
    system.wait_for_log(rf"warning: process {program} pid \d+ exit status 1$")
    system.wait_for_log(rf"warning: {program}: bad command startup -- throttling$")
    system.wait_for_log("throttling", count=2)
    system.wait_for_log("broken on purpose", count=2)
    client.close()
    Client(system.smtp_port).close()


def test_a_crash_in_service_does_not(make_probes: MakeProbes) -> None:
    system = make_probes()
    system.allow(r"exit status [19]|killed by signal 9|panic: |fatal: watchdog")
    system.start()
    for words, line in [
        (b"exit", "pid {} exit status 9"),
        (b"bug", "panic: ValueError: bug .*probe.py:"),
        (b"stand still", r"fatal: watchdog timeout \(\S*probe.py:"),
    ]:
        client = Client(system.smtp_port)
        assert client.say(words) == b""
        system.wait_for_log(line.format(client.pid))
        client.close()
    client = Client(system.smtp_port)
    os.kill(client.pid, signal.SIGKILL)
    system.wait_for_log(f"pid {client.pid} killed by signal 9")
    client.close()
    Client(system.smtp_port).close()
    assert not system.log_lines("throttling")


def test_wakeups(make_probes: MakeProbes) -> None:
    system = make_probes(
        "always unix - - n 1 1 probe",
        "ifused unix - - n 1? 1 probe",
        "fifo fifo n - n 1 1 probe",
        "never unix - - n - 1 probe",
    )
    system.start()
    system.wait_for_log("always: woken up", count=3)
    system.wait_for_log("fifo: woken up")
    assert not system.log_lines("ifused: woken up")
    assert not system.log_lines("never: woken up")
    assert len({line.split()[4] for line in system.log_lines("always: woken up")}) == 1
    done = system.run("postkick", "private", "ifused", "W")
    assert done.returncode == 0
    system.wait_for_log("ifused: woken up", count=2)


def test_a_foreign_program_gets_the_classic_protocol(make_probes: MakeProbes) -> None:
    port = free_port()
    system = make_probes(
        f"127.0.0.1:{port} inet n - n - 1 foreign -o one=1 -o {{ two = 2 3 }} argument"
    )
    system.start()
    client = socket.create_connection(("127.0.0.1", port))
    output = system.top / "log/foreign"
    wait_until(lambda: output.exists() and output.read_text().count("\n") >= 7)
    assert output.read_text().splitlines() == [
        f"arguments: -l -n 127.0.0.1:{port} -t inet -u -o one=1 -o two=2 3 argument",
        "generation: 1",
        "tag: postfix",
        "3 pipe",
        "4 pipe",
        "5 socket",
        "6 socket",
    ]
    client.close()


def test_master_service_disable(make_probes: MakeProbes) -> None:
    port = free_port()
    line = f"127.0.0.1:{port} inet n - n - - probe"
    system = make_probes(line, main={"master_service_disable": f"127.0.0.1:{port}/inet"})
    system.start()
    with pytest.raises(ConnectionRefusedError):
        Client(port)


def test_an_import_after_the_jail_fails(make_probes: MakeProbes) -> None:
    system = make_probes()
    system.allow("panic: late import|exit status 1")
    command = [str(system.command_directory / "postfix"), "-c", str(system.config_directory)]
    user = system.user if os.geteuid() == 0 else None
    subprocess.run(
        [*command, "start"],
        env={"MAIL_FORBID_LATE_IMPORTS": "1", "PATH": "/usr/bin:/bin"},
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
        check=True,
    )
    system.session = system.master_pid() or 0
    client = Client(system.smtp_port)
    assert client.say(b"import") == b""
    system.wait_for_log("panic: late import of antigravity at .*probe.py:")
    client.close()


def test_titles_and_directories(make_probes: MakeProbes) -> None:
    system = make_probes()
    system.start()
    client = Client(system.smtp_port)
    process = read_process(client.pid)
    assert process
    name = f"127.0.0.1:{system.smtp_port}"
    assert process.title().split() == ["probe", "-n", name, "-t", "inet", "-u"]
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in system.queue_directory.iterdir()
    }
    assert modes["maildrop"] == 0o3733
    assert modes["public"] == 0o711
    assert modes["pid"] == 0o755
    assert {modes[name] for name in ("active", "incoming", "deferred", "private")} == {0o700}
    client.close()


def in_foreground(system: MailSystem, command: Sequence[str]) -> subprocess.Popen[bytes]:
    user = system.user if os.geteuid() == 0 else None
    return subprocess.Popen(
        command,
        env={"MAIL_CONFIG": str(system.config_directory), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
    )


def test_foreground_with_the_log_on_standard_output(make_probes: MakeProbes) -> None:
    system = make_probes(
        main={"maillog_file": "/dev/stdout", "maillog_file_prefixes": "/dev/stdout"}
    )
    system.allow("start-fg")
    status, reason = postfix(system, "start")
    assert status == 1
    assert 'use "postfix start-fg"' in reason
    with in_foreground(system, [str(system.command_directory / "postfix"), "start-fg"]) as master:
        wait_until(lambda: system.master_pid() == master.pid and is_listening(system.smtp_port))
        Client(system.smtp_port).close()
        master.send_signal(signal.SIGTERM)
        output = master.communicate(timeout=PATIENCE)[0].decode()
    assert master.returncode == 0
    assert "postfix/postfix-script[" in output
    assert "]: daemon started -- version" in output
    assert "]: terminating on signal 15\n" in output


def test_rotated_log_is_left_alone(make_probes: MakeProbes) -> None:
    system = make_probes()
    system.start()
    old = system.log.with_suffix(".1")
    system.run("postlog", "before")
    system.wait_for_log("postfix/postlog.*: before$")
    system.log.rename(old)
    time.sleep(1.1)
    system.run("postlog", "-p", "warn", "-t", "script", "after")
    assert system.wait_for_log(r"script\[\d+\]: warning: after$")
    system.allow("warning: after")
    assert "after" not in old.read_text()
    mode = stat.S_IMODE(system.log.stat().st_mode)
    assert mode == 0o600


def test_the_programs_of_another_installation_are_left_alone(make_system: MakeSystem) -> None:
    """A main.cf of a distribution names its own directories, whose programs may be there."""
    system = make_system()
    other, ran = system.top / "other", system.top / "log/ran"
    other.mkdir()
    for name in ("master", "smtpd", "postqueue"):
        (other / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (other / name).chmod(0o755)
    system.configure({"daemon_directory": str(other), "command_directory": "/not/there"})
    system.allow("another installation")
    system.start()
    system.send("a@mail.test", ["alice@virtual.test"], b"Subject: x\r\n\r\nx\r\n")
    system.wait_for_queue_empty()
    (line,) = system.log_lines("ignoring ")
    assert str(other) in line
    assert "/not/there" in line
    assert system.run("sendmail", "-bp").returncode == 0
    assert not ran.exists()


def test_a_client_is_handed_over(make_system: MakeSystem) -> None:
    """A service of type pass, which believes what comes with the client's socket."""
    system = make_system(master=["smtpd pass - - n - - smtpd"])
    system.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with socket.socket(socket.AF_UNIX) as carrier, accepted:
        carrier.connect(str(system.queue_directory / "private/smtpd"))
        ends = PassedClient("127.0.0.7", "4321", "192.0.2.25", "25")
        socket.send_fds(carrier, [CODEC.encode(ends)], [accepted.fileno()])
    with client, client.makefile("rwb") as stream:
        assert stream.readline().startswith(b"220 ")
        stream.write(b"QUIT\r\n")
        stream.flush()
        assert stream.readline().startswith(b"221 ")
    system.wait_for_log(r"disconnect from [a-z]+\[127\.0\.0\.7\] quit=1 commands=1")


def test_a_service_without_a_place_left_hurries(make_system: MakeSystem) -> None:
    port, banner = free_port(), "${stress?{hurried}:{calm}}"
    system = make_system()
    system.configure({}, [f"0.0.0.0:{port} inet n - n - 2 smtpd -o smtpd_banner={banner}"])
    system.start()
    system.allow("has reached its process limit|to avoid this condition|STRESS_README")

    def connect() -> tuple[socket.socket, bytes]:
        sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        return sock, sock.recv(100)

    first, said = connect()
    assert said == b"220 calm\r\n"
    second, said = connect()
    assert said == b"220 calm\r\n"
    where = rf"0\.0\.0\.0:{port}"
    system.wait_for_log(
        rf'warning: service "{where}" \({where}\) has reached its process limit "2"'
    )
    first.close()
    third, said = connect()
    assert said == b"220 hurried\r\n"
    second.close()
    fourth, said = connect()
    assert said == b"220 hurried\r\n"
    third.close()
    fourth.close()
    assert len(system.log_lines("has reached its process limit")) == 1


def test_check_tells_of_settings_that_nothing_uses(make_system: MakeSystem) -> None:
    system = make_system()
    system.configure({"mydestinatoin": "x.test", "smtpd_use_tls": "no"})
    done = system.run("postfix", "check")
    assert done.returncode == 0
    assert done.stderr.count(b"main.cf: unused parameter: mydestinatoin=x.test\n") == 1
    assert b"smtpd_use_tls" not in done.stderr
