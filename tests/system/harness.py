"""Runs a mail system for a test: directories, configuration, start, traffic, log, stop.

`Instance` is ours, from an installation that the session's first test makes; `RealPostfix` is
Debian's, behind the same interface, as a peer and to try the tests themselves.

Each has a directory of its own with a short name (UNIX socket names are limited to 107 bytes)
that every account may enter, free ports on 127.0.0.1, and leaves no process behind. After
stop() a `warning`, `error`, `fatal` or `panic` in its log that was not announced by allow()
fails the test.

Rootless is the default. As root that means: under the account nobody. Real Postfix
and `privileged=True` need root.
"""

from __future__ import annotations

import functools
import grp
import os
import pwd
import random
import re
import shutil
import smtplib
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.system.processes import (
    PATIENCE,
    is_gone,
    is_listening,
    kill_session,
    session_members,
    wait_until,
)

ROOT: Final = Path(__file__).resolve().parents[2]
POSTFIX_DAEMONS: Final = Path("/usr/lib/postfix/sbin")
PROBLEM: Final = re.compile(r"\[\d+\]: (?:\w+: )?(?:warning|error|fatal|panic): ")
QUEUES: Final = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt")

# A Maildir and an mbox file.
VIRTUAL_MAILBOXES: Final = "inline:{ {alice@virtual.test=alice/}, {bob@virtual.test=bob} }"

SERVICES: Final = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
verify unix - - n - 1 verify
showq unix n - n - - showq
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""

# Services that real Postfix has and wants, and we do not have yet.
POSTFIX_SERVICES: Final = """\
scache unix - - n - 1 scache
tlsproxy unix - - n - 0 tlsproxy
"""


_LOWEST_PORT: Final = 10_240
_STILL: Final = 20_000_000  # ns; more than the steps in which time stamps of files advance


def _ports() -> Iterator[int]:
    """Ports from below those that the kernel gives to clients: no connection takes one of them
    before the test listens there, or, where nobody listens, ends up connected to itself."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    above = int(text.split()[0])
    ports = range(_LOWEST_PORT, above if above > _LOWEST_PORT + 1000 else 32_768)
    yield from random.Random().sample(ports, len(ports))  # other sessions take others


_PORTS: Final = _ports()


def free_port() -> int:
    """A TCP port that nobody uses now, and that was not given to anybody here before."""
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        return port
    raise AssertionError("no free ports are left")


def need_tool(name: str) -> str:
    """Path of a command. Without it the test is skipped, and with CI=true it fails."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        explanation = f"{name} is not installed (packaging/test-packages installs it)"
        if os.environ.get("CI") == "true":
            pytest.fail(explanation)
        pytest.skip(explanation)
    return path


def reachable_interpreter() -> str:
    """The interpreter of the tests, or the system's of the same version if other accounts
    cannot enter its directory (pyenv in root's home)."""
    real = Path(os.path.realpath(sys.executable))
    if os.geteuid() != 0 or all(folder.stat().st_mode & 1 for folder in [real, *real.parents]):
        return str(real)
    system = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    if not system.exists():
        pytest.skip(f"{real} cannot be executed by other accounts")
    return str(system)


@functools.cache
def installation() -> Path:
    """Prefix of an installation of the tree, made once a session, removed at its end."""
    top = Path(tempfile.mkdtemp(prefix="mi-"))
    top.chmod(0o755)
    import atexit

    atexit.register(shutil.rmtree, top, ignore_errors=True)
    command = [sys.executable, str(ROOT / "packaging/install.py"), f"--prefix={top}"]
    subprocess.run([*command, f"--interpreter={reachable_interpreter()}"], check=True)
    return top


def is_complete(path: Path) -> bool:
    """Whether a queue file is a complete message; not when it has gone meanwhile."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_IXUSR)


class MailSystem:
    """One mail system with directories, ports and a log of its own.

    main: parameters in addition to the usual ones, None removes one. master: lines in
    addition to the usual services; "-name/type" removes one. smtp_port: where smtpd
    listens. user: the account of mailboxes and of rootless mode.
    """

    command_directory: Path
    daemon_directory: Path
    services = SERVICES

    def __init__(
        self,
        *,
        main: Mapping[str, str | None] | None = None,
        master: Sequence[str] = (),
        privileged: bool = False,
        name: str = "mail.test",
    ) -> None:
        if privileged and os.geteuid() != 0:
            pytest.skip("needs root")
        self.privileged = privileged
        self.name = name
        self.smtp_port = free_port()
        self.top = Path(tempfile.mkdtemp(prefix="mt-"))
        self.user = self._user()
        self.session = 0
        self._allowed: list[re.Pattern[str]] = []
        self._directories()
        self.main = self._usual_main()
        self.master = dict(
            self._entry(line)
            for line in [
                f"127.0.0.1:{self.smtp_port} inet n - n - - smtpd",
                *self.services.splitlines(),
            ]
        )
        self.configure(main or {}, master)

    # -- places -----------------------------------------------------------------------

    @property
    def config_directory(self) -> Path:
        return self.top / "etc"

    @property
    def queue_directory(self) -> Path:
        return self.top / "queue"

    @property
    def log(self) -> Path:
        return self.top / "log/maillog"

    @property
    def mailbox(self) -> Path:
        """The mbox file of self.user."""
        return self.top / "mail" / self.user.pw_name

    def _user(self) -> pwd.struct_passwd:
        return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())

    def _directories(self) -> None:
        self.top.chmod(0o755)
        owner = pwd.getpwnam("postfix") if self.privileged else self.user
        for name in ("etc", "queue", "data", "log", "mail", "vmail", "home"):
            (self.top / name).mkdir(mode=0o755)
        if os.geteuid() != 0:
            return
        own = ("data",) if self.privileged else ("etc", "queue", "data", "log")
        for name in own:
            os.chown(self.top / name, owner.pw_uid, owner.pw_gid)
        for name in ("vmail", "home"):
            os.chown(self.top / name, self.user.pw_uid, self.user.pw_gid)
        (self.top / "mail").chmod(0o1777)

    # -- configuration ----------------------------------------------------------------

    def _usual_main(self) -> dict[str, str]:
        group = "postdrop" if self.privileged else grp.getgrgid(self.user.pw_gid).gr_name
        return {
            "compatibility_level": "3.6",
            "import_environment": "MAIL_CONFIG MAIL_FORBID_LATE_IMPORTS=1",
            "queue_directory": str(self.queue_directory),
            "data_directory": str(self.top / "data"),
            "command_directory": str(self.command_directory),
            "daemon_directory": str(self.daemon_directory),
            "mail_owner": "postfix" if self.privileged else self.user.pw_name,
            "setgid_group": group,
            "maillog_file": str(self.log),
            "maillog_file_prefixes": str(self.top),
            "mail_spool_directory": f"{self.top}/mail",
            "default_database_type": "lmdb",
            "myhostname": self.name,
            "mydomain": self.name,
            "myorigin": "$myhostname",
            "mydestination": "$myhostname, localhost",
            "mynetworks": "127.0.0.0/8",
            # What becomes of a bounce to a made-up sender does not depend on the DNS of the place.
            "default_transport": "discard:domain unknown to the tests",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "alias_maps": "",
            "alias_database": "",
            "biff": "no",
            "virtual_mailbox_domains": "virtual.test",
            "virtual_mailbox_base": f"{self.top}/vmail",
            "virtual_mailbox_maps": VIRTUAL_MAILBOXES,
            "virtual_minimum_uid": str(min(100, self.user.pw_uid)),
            "virtual_uid_maps": f"static:{self.user.pw_uid}",
            "virtual_gid_maps": f"static:{self.user.pw_gid}",
        }

    @staticmethod
    def _entry(line: str) -> tuple[str, str]:
        words = line.split()
        return "/".join(words[:2]), line

    def configure(self, main: Mapping[str, str | None], master: Sequence[str] = ()) -> None:
        """Changes parameters and services and writes both files."""
        for name, value in main.items():
            self.main.pop(name, None)
            if value is not None:
                self.main[name] = value
        for line in master:
            if line.startswith("-"):
                self.master.pop(line[1:])
            else:
                self.master.update([self._entry(line)])
        text = "".join(f"{name} = {value}\n" for name, value in self.main.items())
        (self.config_directory / "main.cf").write_text(text)
        text = "".join(f"{line}\n" for line in self.master.values())
        (self.config_directory / "master.cf").write_text(text)

    def route(self, domain: str, nexthop: str) -> None:
        """Sends mail for a domain to "transport:nexthop"; before start()."""
        old = self.main.get("transport_maps", "inline:{ }").removesuffix("}")
        self.configure({"transport_maps": f"{old}{{{domain}={nexthop}}} }}"})

    # -- life -------------------------------------------------------------------------

    def run(
        self,
        command: str,
        *arguments: str,
        stdin: bytes = b"",
        user: pwd.struct_passwd | None = None,
        timeout: float = PATIENCE,
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs one of the commands of this mail system, or an absolute path.

        user: whose ids to take on; default: those that the mail system is started with.
        """
        account = user or (None if self.privileged else self.user)
        environment = {
            "PATH": f"{self.command_directory}:/usr/bin:/bin:/usr/sbin:/sbin",
            "MAIL_CONFIG": str(self.config_directory),
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.top / "home"),
        }
        path = command if command.startswith("/") else str(self.command_directory / command)
        change = account is not None and os.geteuid() == 0
        return subprocess.run(
            [path, *arguments],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            env=environment,
            cwd="/",
            user=account.pw_uid if change and account else None,
            group=account.pw_gid if change and account else None,
            extra_groups=[] if change else None,
        )

    def start(self) -> None:
        """postfix start, and waits until smtpd's port is open."""
        done = self.run("postfix", "-c", str(self.config_directory), "start")
        self.session = self.master_pid() or 0
        assert done.returncode == 0, (done.stdout, done.stderr, self.end_of_log())
        wait_until(
            lambda: self.master_pid() and is_listening(self.smtp_port),
            lambda: f"does not listen: {self.end_of_log()}",
        )
        self.session = self.master_pid() or 0

    def stop(self, check: bool = True) -> None:
        """Stops it, removes its directories and, with check, complains about the log."""
        try:
            left = self.halt()
            problems, log = self.problems(), self.end_of_log()
        finally:
            shutil.rmtree(self.top, ignore_errors=True)
        if check:
            assert not left, f"processes left after postfix stop: {left}"
            assert not problems, "\n".join([*problems[:20], "--- end of log ---", log])

    def halt(self) -> list[str]:
        """postfix stop. Returns the titles of processes that did not end; then kills them."""
        if not self.session:
            return []
        self.run("postfix", "-c", str(self.config_directory), "stop")
        left = self._left_behind()
        kill_session(self.session)
        self.session = 0
        return left

    def _left_behind(self) -> list[str]:
        try:
            wait_until(lambda: not session_members(self.session), limit=30)
        except TimeoutError:
            pass
        return [process.title() for process in session_members(self.session)]

    def kill_all(self) -> None:
        """kill -9 of master and everything it started."""
        kill_session(self.session)
        self.session = 0
        wait_until(lambda: not is_listening(self.smtp_port))

    def master_pid(self) -> int | None:
        try:
            pid = int((self.queue_directory / "pid/master.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return None if is_gone(pid) else pid

    def pids(self) -> list[int]:
        return [process.pid for process in session_members(self.session)]

    # -- traffic ----------------------------------------------------------------------

    def smtp(self, timeout: float = PATIENCE) -> smtplib.SMTP:
        """A client that is connected; use as a context manager."""
        return smtplib.SMTP("127.0.0.1", self.smtp_port, "client.test", timeout)

    def send(self, sender: str, recipients: Sequence[str], content: bytes) -> None:
        """One message by SMTP; content with CRLF line ends, as smtplib makes them."""
        with self.smtp() as client:
            assert not client.sendmail(sender, list(recipients), content)

    def sendmail(self, *arguments: str, stdin: bytes) -> None:
        """One message by the sendmail command."""
        done = self.run("sendmail", *arguments, stdin=stdin)
        assert done.returncode == 0, (done.stdout, done.stderr)

    def queued(self) -> list[Path]:
        """The queue files of messages that were accepted: complete ones, mode 0700.

        A file that a crash left incomplete stays for a while; nobody was promised anything.
        """
        folders = (self.queue_directory / name for name in QUEUES)
        return [path for folder in folders for path in folder.rglob("*") if is_complete(path)]

    def messages_at_rest(self) -> list[Path] | None:
        """The accepted messages that were in the queue at one moment; None when that is not known.

        A message, or the bounce that takes its place, may move to a directory that was read
        already. So the answer counts only if no directory changed during the look; and none right
        before it, as a second change may leave the same time stamp.
        """
        now, before = time.time_ns(), self._directory_times()
        if max(before.values(), default=0) > now - _STILL:
            return None
        found = self.queued()
        return found if before == self._directory_times() else None

    def _directory_times(self) -> dict[Path, int]:
        """When the directories of the queue last changed, in ns."""
        tops = [self.queue_directory / name for name in QUEUES]
        folders = [path for top in tops for path in (top, *top.rglob("*")) if path.is_dir()]
        return {path: path.stat().st_mtime_ns for path in folders}

    def wait_for_queue_empty(self, timeout: float = PATIENCE) -> None:
        """Raises TimeoutError that shows the queue and the end of the log."""
        wait_until(
            lambda: self.messages_at_rest() == [],
            lambda: f"still queued: {self.queued()}\n{self.end_of_log()}",
            timeout,
        )

    def wait_for_deferred(self, count: int, timeout: float = PATIENCE) -> None:
        """Waits until the queue has that many messages, all of them deferred."""
        folder = self.queue_directory / "deferred"

        def are_deferred() -> bool:
            found = self.messages_at_rest() or []
            return len(found) == count and all(folder in path.parents for path in found)

        wait_until(
            are_deferred,
            lambda: f"not {count} deferred: {self.queued()}\n{self.end_of_log()}",
            timeout,
        )

    def maildir(self, name: str) -> list[bytes]:
        """The messages in a virtual Maildir."""
        return [path.read_bytes() for path in sorted((self.top / "vmail" / name / "new").iterdir())]

    # -- log --------------------------------------------------------------------------

    def log_text(self) -> str:
        try:
            return self.log.read_text("utf-8", "backslashreplace")
        except OSError:
            return ""

    def end_of_log(self) -> str:
        """The last lines, for those who look for the cause."""
        return self.log_text()[-4000:]

    def log_lines(self, pattern: str = "") -> list[str]:
        """Lines of the log that contain the regular expression."""
        wanted = re.compile(pattern)
        return [line for line in self.log_text().splitlines() if wanted.search(line)]

    def wait_for_log(self, pattern: str, timeout: float = PATIENCE, count: int = 1) -> str:
        """The first of `count` lines, which are written a moment after they are logged."""
        wait_until(
            lambda: len(self.log_lines(pattern)) >= count,
            lambda: f"not in the log: {pattern}\n{self.end_of_log()}",
            timeout,
        )
        return self.log_lines(pattern)[0]

    def allow(self, pattern: str) -> None:
        """Announces a problem that the log may show."""
        self._allowed.append(re.compile(pattern))

    def problems(self) -> list[str]:
        lines = (line for line in self.log_text().splitlines() if PROBLEM.search(line))
        return [line for line in lines if not any(p.search(line) for p in self._allowed)]


class Instance(MailSystem):
    """Our mail system, from the installation of this session."""

    def __init__(
        self,
        *,
        main: Mapping[str, str | None] | None = None,
        master: Sequence[str] = (),
        privileged: bool = False,
        name: str = "mail.test",
    ) -> None:
        prefix = installation()
        self.command_directory = prefix / "sbin"
        self.daemon_directory = prefix / "libexec/postfix"
        own: dict[str, str | None] = {"mail_network_user": "uucp"} if privileged else {}
        super().__init__(
            main={**own, **(main or {})}, master=master, privileged=privileged, name=name
        )


class RealPostfix(MailSystem):
    """Debian's Postfix. Needs root."""

    command_directory = Path("/usr/sbin")
    daemon_directory = POSTFIX_DAEMONS
    services = SERVICES + POSTFIX_SERVICES

    def __init__(
        self,
        *,
        main: Mapping[str, str | None] | None = None,
        master: Sequence[str] = (),
        name: str = "mail.test",
    ) -> None:
        if not (POSTFIX_DAEMONS / "master").exists():
            need_tool(str(POSTFIX_DAEMONS / "master"))
        usual: dict[str, str | None] = {
            "setgid_group": "postdrop",
            "smtp_tls_security_level": "",
            "shlib_directory": "/usr/lib/postfix",
            "meta_directory": "/etc/postfix",
            "sendmail_path": "/usr/sbin/sendmail",
            "html_directory": "no",
            "readme_directory": "no",
        }
        super().__init__(main={**usual, **(main or {})}, master=master, privileged=True, name=name)
        # Its commands write to the log under other ids than its postlogd.
        self.log.touch()
        self.log.chmod(0o666)
        self.allow(r"not owned by (?:root|postfix)")
        self.allow("symlink leaves directory")
        # The kernel's time for files is a little behind.
        self.allow("file system clock is|resetting file time stamps")
