"""Running a command that takes a message, as local(8) and pipe(8) do.

The command gets the message on standard input, and a process group of its own, which is killed
when the time is over. What it prints is kept, up to a limit, for the report. Its exit status says
what became of the mail: sysexits(3), see `judge`.
"""

import asyncio
import errno
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from libmail.log import LOG
from libmail.privileges import Identity

__all__ = [
    "CommandFailed",
    "CommandResult",
    "Verdict",
    "judge",
    "resolve_argv",
    "run_command",
    "sanitised",
]

_OUTPUT_LIMIT: Final = 4096
_READ: Final = 65536
_EX_TEMPFAIL: Final = 75

# A command of nothing but these needs no shell, unless its first word is the shell's own.
_PLAIN: Final = re.compile(r"[A-Za-z0-9@%_=+:,./ \t-]+")
_SHELL_WORDS: Final = frozenset(
    {
        ".", ":", "[", "alias", "bg", "break", "case", "cd", "command", "continue", "do", "done",
        "echo", "elif", "else", "esac", "eval", "exec", "exit", "export", "false", "fc", "fg",
        "fi", "for", "function", "getopts", "hash", "if", "in", "jobs", "kill", "limit", "local",
        "login", "logout", "newgrp", "printf", "pwd", "read", "readonly", "return", "select", "set",
        "shift", "source", "stop", "suspend", "test", "then", "time", "times", "trap", "true",
        "type", "typeset", "ulimit", "umask", "unalias", "unset", "until", "wait", "while",
    }
)  # fmt: skip
_DSN: Final = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})(?=\s|$)\s*")

_STATUS: Final[Mapping[int, tuple[str, str]]] = {
    64: ("5.3.0", "command line usage error"),
    65: ("5.6.0", "data format error"),
    66: ("5.3.0", "cannot open input"),
    67: ("5.1.1", "user unknown"),
    68: ("5.1.2", "host name unknown"),
    69: ("5.3.0", "service unavailable"),
    70: ("5.3.0", "internal software error"),
    71: ("4.3.0", "system resource problem"),
    72: ("5.3.0", "critical OS file missing"),
    73: ("5.2.0", "can't create user output file"),
    74: ("5.3.0", "input/output error"),
    75: ("4.3.0", "temporary failure"),
    76: ("5.5.0", "remote error in protocol"),
    77: ("5.7.0", "permission denied"),
    78: ("5.3.5", "local configuration error"),
}


class CommandFailed(Exception):
    """The command could not be started; the text says why."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """status: exit status; -N: ended by signal N; None: killed, as the time was over.

    output: what it printed, cut off, as text.
    """

    status: int | None
    output: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a result means for the mail. detail: the command's own words, "" if it had none."""

    kind: Literal["sent", "deferred", "bounced"]
    dsn: str
    reason: str
    detail: str


def sanitised(text: str, allowed: frozenset[str]) -> str:
    """Replace by "_" what is not allowed (command_expansion_filter and the like)."""
    if allowed.issuperset(text):
        return text
    return "".join(char if char in allowed else "_" for char in text)


def resolve_argv(command: str, shell: str = "") -> tuple[str, ...]:
    """How to start a command line: directly where no shell is needed.

    shell: local_command_shell; if given, every command runs in it.
    """
    if shell:
        return (*shell.split(), command)
    if _PLAIN.fullmatch(command):
        words = tuple(command.split())
        if words and words[0] not in _SHELL_WORDS:
            return words
    return ("/bin/sh", "-c", command)


def judge(command: str, result: CommandResult) -> Verdict:
    """What became of mail that a command was given; command: how the report calls it."""
    text = result.output.replace("\n", " ")
    match = _DSN.match(text)
    detail = text[match.end() :] if match else text
    if result.status == 0:
        return Verdict("sent", "2.0.0", "", detail)
    if result.status is None:
        return _failed("5.3.0", f'Command time limit exceeded: "{command}"', detail)
    if result.status < 0:
        return _failed("4.3.0", f'Command died with signal {-result.status}: "{command}"', detail)
    if match and detail:
        # The command's own code and words say it all; a code of success cannot be meant.
        dsn = "5.0.0" if match[1][0] == "2" else match[1]
        return Verdict("deferred" if dsn[0] == "4" else "bounced", dsn, detail, detail)
    dsn, meaning = _STATUS.get(result.status, ("5.3.0", ""))
    if match and match[1][0] != "2":
        dsn = match[1]
    return _failed(dsn, meaning or f'Command died with status {result.status}: "{command}"', detail)


def _failed(dsn: str, reason: str, detail: str) -> Verdict:
    if detail:
        reason = f"{reason}. Command output: {detail}"
    return Verdict("deferred" if dsn[0] == "4" else "bounced", dsn, reason, detail)


class _Feeder:
    """Writes the message into a pipe, as fast as the command reads it."""

    def __init__(self, fd: int, pieces: Iterator[bytes]) -> None:
        self._fd = fd
        self._pieces = pieces
        self._rest = memoryview(b"")
        self._loop = asyncio.get_running_loop()
        self._waiting = False
        os.set_blocking(fd, False)

    def run(self) -> None:
        """Write until the pipe is full or all is written; goes on by itself."""
        try:
            while True:
                while not self._rest:
                    self._rest = memoryview(next(self._pieces))
                self._rest = self._rest[os.write(self._fd, self._rest) :]
        except BlockingIOError:
            if not self._waiting:
                self._waiting = True
                self._loop.add_writer(self._fd, self.run)
        except (StopIteration, BrokenPipeError):
            self.close()  # a command need not read everything: its exit status counts

    def close(self) -> None:
        """Close the pipe; can be called again."""
        if self._fd < 0:
            return
        if self._waiting:
            self._loop.remove_writer(self._fd)
        os.close(self._fd)
        self._fd = -1


class _Collector:
    """Reads what the command prints; keeps the first octets of it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._kept = bytearray()
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self.drain)

    @property
    def text(self) -> str:
        """What it printed."""
        return self._kept.decode("utf-8", "surrogateescape")

    def drain(self) -> None:
        """Read what is there."""
        try:
            while self._fd >= 0:
                data = os.read(self._fd, _READ)
                if not data:
                    self.close()
                self._kept += data[: _OUTPUT_LIMIT - len(self._kept)]
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close the pipe; can be called again."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


@dataclass(frozen=True, slots=True)
class _Start:
    """How to start the process."""

    argv: Sequence[str]
    user: Identity
    environment: Mapping[str, str]
    folder: str | None

    def run(self, stdin: int, output: int) -> "subprocess.Popen[bytes]":
        """Start it; what is a script without "#!", by the shell. Raises OSError and others."""
        try:
            return self._run(self.argv, stdin, output)
        except OSError as err:
            if err.errno != errno.ENOEXEC:
                raise
            return self._run(("/bin/sh", *self.argv), stdin, output)

    def _run(self, argv: Sequence[str], stdin: int, output: int) -> "subprocess.Popen[bytes]":
        change = os.geteuid() != self.user.uid
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=dict(self.environment),
            cwd=self.folder,
            start_new_session=True,
            user=self.user.uid if change else None,
            group=self.user.gid if change else None,
            extra_groups=self.user.groups if change else None,
            umask=0o077,
        )


async def _ended(process: "subprocess.Popen[bytes]", limit: float) -> bool:
    """Wait until the process has ended; False: it had not after `limit` seconds."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    pidfd = os.pidfd_open(process.pid)
    loop.add_reader(pidfd, over.set)
    try:
        async with asyncio.timeout(limit):
            await over.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return True


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def run_command(
    argv: Sequence[str],
    pieces: Iterable[bytes],
    user: Identity,
    environment: Mapping[str, str],
    *,
    program: str,
    folder: str | None = None,
    time_limit: float = 1000.0,
) -> CommandResult:
    """Run a command with the rights of `user` and the message `pieces` on standard input.

    argv: see `resolve_argv`. program: ours, for messages: "local". folder: to change to, with the
    user's rights. time_limit: seconds, after which the process group is killed. Raises
    CommandFailed when it cannot be started for want of rights or resources; a program that cannot
    be executed is a failed command.
    """
    stdin, to_command = os.pipe()
    from_command, output = os.pipe()
    feeder = _Feeder(to_command, iter(pieces))
    collector = _Collector(from_command)
    process: subprocess.Popen[bytes] | None = None
    try:
        try:
            process = _Start(argv, user, environment, folder).run(stdin, output)
        except (OSError, subprocess.SubprocessError, ValueError) as err:
            return _not_started(err, argv[0], user, folder, program)
        finally:
            os.close(stdin)
            os.close(output)
        feeder.run()
        in_time = await _ended(process, time_limit)
        # What it left behind in the background is not waited for.
        collector.drain()
        return CommandResult(process.wait() if in_time else None, collector.text)
    finally:
        feeder.close()
        collector.close()
        if process is not None and process.returncode is None:
            _kill_group(process)
            process.wait()


def _not_started(
    err: Exception, name: str, user: Identity, folder: str | None, program: str
) -> CommandResult:
    """What it means that a command did not start. Raises CommandFailed."""
    if not isinstance(err, OSError):
        raise CommandFailed(f"cannot run {name}: {err}") from err
    if folder is not None and err.filename == folder:
        where = f'"{folder}" for uid={user.uid} gid={user.gid}'
        raise CommandFailed(f"cannot change directory to {where}: {err.strerror}") from err
    text = f"execvp {name}: {err.strerror}"
    LOG.fatal(text)
    return CommandResult(_EX_TEMPFAIL, f"{program}: fatal: {text}\n")
