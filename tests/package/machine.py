"""A Debian system in a directory, to install packages in, and to boot where the kernel lets us.

`root_archive` makes an archive of the system once, by mmdebstrap, and keeps it; what tests install
there is in its package cache, so that a `Machine` needs no network and has none.

A machine is booted by systemd-nspawn, with systemd as its init. Where that does not work (no
namespaces, no cgroups), commands run by chroot in namespaces of their own, and services are started
by their init scripts: `booted` tells which it is, and `why_not_booted` the reason.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.system.processes import wait_until

MIRROR: Final = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
CACHE: Final = Path(os.environ.get("POSTHORN_TEST_CACHE", "/var/cache/posthorn-tests"))
# What the package needs is there already: a test is not about the speed of dpkg.
INCLUDED: Final = (
    "systemd,systemd-sysv,dbus,init-system-helpers,procps,iproute2,debconf,apt-utils,cron,rsyslog,"
    "python3-uvloop,python3-lmdb,python3-dnspython,python3-cffi,python3-setproctitle,"
    "python3-daemon,python3-pyinotify,adduser,netbase,ssl-cert,libpcre2-8-0,make,python3-venv"
)
# What else there is in a suite, and sets of packages that tests install: downloaded only.
ALSO: Final = {"bookworm": "", "trixie": ",python3-pyasyncore"}
OTHERS: Final = {
    "bookworm": (
        "postfix postfix-pcre bsd-mailx",
        "exim4-daemon-light",
        "mailutils",
        "php-cli procmail sasl2-bin libsasl2-modules libnss-extrausers openrc",
    ),
    "trixie": (),
}
TOOLS: Final = ("mmdebstrap", "systemd-nspawn", "unshare", "nsenter", "dpkg-buildpackage")
APT: Final = """\
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
Binary::apt::APT::Keep-Downloaded-Packages "true";
"""
# Nothing of it has to survive: systems are unpacked and removed faster there.
_MEMORY: Final = ("-t", "tmpfs", "-o", "mode=755", "tmpfs")
_BOOT: Final = "mount -t tmpfs tmpfs /run && exec systemd-nspawn --quiet --register=no --keep-unit"
_UNSHARE: Final = ("unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork")
_CHROOT: Final = """\
mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/run" &&
    mkdir "$0/run/lock" && ip link set lo up && exec chroot "$0" sleep infinity
"""
_OVERLAY: Final = """\
mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root &&
    mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root &&
    mount --rbind /dev /mnt/root/dev && mount -t proc proc /mnt/root/proc &&
    mount -t tmpfs tmpfs /mnt/root/run && ip link set lo up && exec chroot /mnt/root sleep infinity
"""


def missing() -> str:
    """What these tests need and is not here; "" if nothing is."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in TOOLS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@functools.cache
def root_archive(suite: str) -> Path:
    """A tar archive of a system with the package cache filled; made if there is none yet."""
    downloads = [f"apt-get install -qq -y --download-only {one}" for one in OTHERS[suite]]
    configure = f"cat >etc/apt/apt.conf.d/90tests <<'END'\n{APT}END\n"
    configure += "echo force-unsafe-io >etc/dpkg/dpkg.cfg.d/90tests"
    download = "; ".join(
        ["cp /etc/resolv.conf etc/resolv.conf", *(f"chroot . {one}" for one in downloads)]
    )
    command = [
        "mmdebstrap", "--quiet", "--variant=minbase", "--skip=cleanup/apt",
        f"--include={INCLUDED}{ALSO[suite]}",
        f'--customize-hook=cd "$1"; {configure}',
        f'--customize-hook=cd "$1"; {download}',
        suite,
    ]  # fmt: skip
    digest = hashlib.sha256("\0".join(command).encode()).hexdigest()[:12]
    archive = CACHE / f"{suite}-{digest}.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = archive.with_suffix(f".{os.getpid()}.tar")
        done = subprocess.run([*command, str(part), MIRROR], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        part.rename(archive)
    return archive


class Container:
    """Processes with a root directory of their own; `top` is where that is seen from here."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`

    def _begin(self, command: Sequence[str]) -> int:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip
        return self._process.pid

    def _begin_in(self, script: str, *arguments: str) -> None:
        """Run a script in namespaces of its own, which changes its root and goes to sleep."""
        pid = self._begin([*_UNSHARE, "sh", "-c", script, *arguments])
        wait_until(lambda: bool(_children(pid)), self.log)
        (self._leader,) = _children(pid)
        wait_until(lambda: _command_of(self._leader).startswith("sleep"), self.log)

    def log(self) -> str:
        """The end of what the processes have written."""
        self._log.seek(0)
        return self._log.read()[-300:].decode("utf-8", "replace")

    def try_run(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command as root inside, whatever comes of it."""
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-r", "-w"]
        return subprocess.run(
            [*enter, *command], stdin=subprocess.DEVNULL, capture_output=True, env=ENVIRONMENT,
            timeout=300,
        )  # fmt: skip

    def run(self, *command: str) -> str:
        """Run a command as root inside; what it writes to standard output."""
        done = self.try_run(*command)
        report = f"{command}: {done.returncode}\n{done.stdout.decode(errors='replace')}"
        assert done.returncode == 0, f"{report}\n{done.stderr.decode(errors='replace')}"
        return done.stdout.decode("utf-8", "replace")

    def shell(self, script: str) -> str:
        """Run a shell script, as `run`."""
        return self.run("sh", "-ec", script)

    def kill(self) -> None:
        """End all processes at once."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            if self._leader:
                with contextlib.suppress(ProcessLookupError):  # it may have ended with the others
                    os.kill(self._leader, signal.SIGKILL)
            self._process.wait()
        self._process = None
        self._leader = 0

    def end(self) -> None:
        """End all, for good."""
        self.kill()
        self._log.close()


class Copy(Container):
    """A copy of this very system, in memory: what is written there, nobody else sees."""

    def __init__(self) -> None:
        super().__init__(Path("/"))
        self._begin_in(_OVERLAY)
        self.top = Path(f"/proc/{self._leader}/root")


class Machine(Container):
    """A Debian system in the directory `top`, running until `stop`."""

    def __init__(self, top: Path, suite: str, packages: Path) -> None:
        """packages: a directory with what was built; it is /packages in the machine."""
        super().__init__(top)
        self.booted = False
        self.why_not_booted = os.environ.get("POSTHORN_TEST_NO_BOOT", "")
        top.mkdir()
        self._in_memory = subprocess.run(["mount", *_MEMORY, top], check=False).returncode == 0
        command = ["tar", "-x", "--same-owner", "-f", str(root_archive(suite)), "-C", str(top)]
        subprocess.run(command, check=True)
        shutil.copytree(packages, top / "packages")
        (top / "etc/hostname").write_text("mail\n")
        (top / "etc/hosts").write_text("127.0.0.1 mail.example.test mail localhost\n")
        (top / "etc/resolv.conf").unlink(missing_ok=True)
        (top / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        (top / "usr/sbin/policy-rc.d").unlink(missing_ok=True)

    def start(self) -> None:
        """Boot, or where that does not work, be ready for commands."""
        if self.why_not_booted or not self._boot():
            self._begin_in(_CHROOT, str(self.top))

    def become(self, *arguments: str) -> None:
        """Start one program instead of the system. arguments: of systemd-nspawn, and it."""
        self.kill()
        self._nspawn(*arguments)
        wait_until(lambda: bool(self._find_leader()), self.log)

    def _nspawn(self, *arguments: str) -> None:
        options = ["-D", str(self.top), "--private-network", "--machine=mail"]
        self._begin(["unshare", "-m", "sh", "-c", f'{_BOOT} "$@"', "sh", *options, *arguments])

    def _find_leader(self) -> int:
        assert self._process is not None
        assert self._process.poll() is None, f"the container has ended: {self.log()}"
        self._leader = self._leader or _init_of(self._process.pid)
        return self._leader

    def _boot(self) -> bool:
        self._nspawn("-b")
        try:
            wait_until(self._has_booted, limit=60.0)
        except (AssertionError, TimeoutError):
            self.kill()
            self.why_not_booted = f"systemd-nspawn could not boot: {self.log()}"
            return False
        self.booted = True
        return True

    def _has_booted(self) -> bool:
        if not self._find_leader():
            return False
        state = self.try_run("systemctl", "is-system-running").stdout.strip()
        return state in (b"running", b"degraded")

    def install(self, what: str) -> None:
        """Install packages by a shell command line; where no init starts services, start ours."""
        self.shell(what)
        if not self.booted:
            self.try_run("service", "postfix", "start")

    def reboot(self) -> None:
        """Shut down, and start again."""
        self.try_run("systemctl", "poweroff")
        assert self._process is not None
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            pass
        self.kill()
        self.start()

    def kill(self) -> None:
        """End all processes at once; the directory stays."""
        super().kill()
        self.booted = False

    def end(self) -> None:
        """The same, and the directory goes."""
        super().end()
        if self._in_memory:
            subprocess.run(["umount", "--lazy", self.top], check=True)
        subprocess.run(["rm", "-rf", "--one-file-system", self.top], check=True)


ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
}


def need_machine() -> None:
    """Skips the test where there can be no machine; with CI=true it fails if that can be helped."""
    why = missing()
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if not why:
        why = forbidden()
    if why:
        pytest.skip(why)


def forbidden() -> str:
    """What the kernel does not let us do; "" if it lets us do what is needed."""
    script = _OVERLAY.replace("sleep infinity", "true")
    done = subprocess.run([*_UNSHARE, "sh", "-c", script], capture_output=True, text=True)
    return f"no namespaces on this machine: {done.stderr}" if done.returncode else ""


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _init_of(pid: int) -> int:
    """The process that is the init of the container of a systemd-nspawn; 0 if there is none yet."""
    for child in _children(pid):
        try:
            status = Path(f"/proc/{child}/status").read_text()
        except OSError:
            continue
        (numbers,) = [line for line in status.splitlines() if line.startswith("NSpid:")]
        if numbers.split()[-1] == "1" and len(numbers.split()) > 2:
            return child
    return 0


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
