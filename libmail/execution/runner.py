"""Running commands: those that take a message (local(8), pipe(8)) or a connection (spawn(8)).

A command gets the message on standard input, and a process group of its own, which is killed when
the time is over. What it prints is kept, up to a limit, for the report; `libmail.execution.result`
says what that and its exit status mean for the mail.
"""

import asyncio
import errno
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from libmail.execution.pipes import Collector, Feeder
from libmail.execution.result import CommandResult
from libmail.log import LOG
from libmail.privileges import Identity, acting_as
from libmail.service.workers import Workers

__all__ = [
    "CommandFailed",
    "Surroundings",
    "exported",
    "resolve_argv",
    "run_command",
    "run_on_socket",
]

_PATH: Final = "/usr/bin:/bin"
_SHELL: Final = "/bin/sh"

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


class CommandFailed(Exception):
    """The command could not be started; the text says why."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a command runs, and for how long.

    root: to chroot to first, None for none. folder: to change to, with the user's rights, None for
    where we are. time_limit: seconds, after which the process group is killed.
    """

    root: str | None = None
    folder: str | None = None
    time_limit: float = 1000.0


def exported(names: Iterable[str]) -> dict[str, str]:
    """The environment of a command: PATH, and what export_environment says.

    names: names, and name=value pairs, perhaps in braces.
    """
    environment = {"PATH": _PATH}
    for item in names:
        inner = item.strip()
        braces = len(inner) > 1 and inner[0] == "{" and inner[-1] == "}"
        name, equals, value = (inner[1:-1].strip() if braces else item).partition("=")
        if equals:
            environment[name.rstrip()] = value.lstrip() if braces else value
        elif name in os.environ:
            environment[name] = os.environ[name]
    return environment


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
    return ("sh", "-c", command)


@contextmanager
def _rooted(root: str, folder: str | None, user: Identity) -> Iterator[None]:
    """Be where the command is to begin, in another root. The block must not await.

    A new process inherits the place. To change it here and back again saves Python code between
    fork and exec; only somebody with root's rights gets out of another root, so only root gets in.
    It is the place of all threads: this is for processes of one client. Raises _Misplaced.
    """
    old_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    old_folder = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _enter(root, folder, user)
        yield
    finally:
        os.fchdir(old_root)
        with suppress(PermissionError):  # then we have not left it
            os.chroot(".")
        os.fchdir(old_folder)
        os.close(old_root)
        os.close(old_folder)


def _enter(root: str, folder: str | None, user: Identity) -> None:
    try:
        os.chroot(root)
        os.chdir("/")
    except OSError as err:
        raise _Misplaced(f"chroot({root}): {err.strerror}") from err
    if folder is not None:
        with _opened(folder, user) as fd:
            os.fchdir(fd)


@contextmanager
def _opened(folder: str, user: Identity) -> Iterator[int]:
    """A folder that the user may enter. Raises _Misplaced."""
    try:
        with acting_as(user):
            fd = os.open(f"{folder}/.", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        whose = f"uid={user.uid} gid={user.gid}"
        text = f'cannot change directory to "{folder}" for {whose}: {err.strerror}'
        raise _Misplaced(text) from err
    try:
        yield fd
    finally:
        os.close(fd)


class _Misplaced(Exception):
    """The command cannot begin where it should; the text says why."""


@dataclass(frozen=True, slots=True)
class _Start:
    """How to start the process."""

    argv: Sequence[str]
    user: Identity
    environment: Mapping[str, str]
    place: Surroundings

    def run(self, stdin: int, output: int) -> "subprocess.Popen[bytes]":
        """Start it; what is a script without "#!", by the shell. Raises OSError and others.

        Without another root this can be done by a thread among others.
        """
        root, folder = self.place.root, self.place.folder
        if root is not None:
            with _rooted(root, folder, self.user):
                return self._run(None, stdin, output)
        if folder is None:
            return self._run(None, stdin, output)
        with _opened(folder, self.user) as fd:
            return self._run(f"/proc/self/fd/{fd}", stdin, output)  # of the new process

    def _run(self, folder: str | None, stdin: int, output: int) -> "subprocess.Popen[bytes]":
        try:
            return self._execute(self.argv, folder, stdin, output)
        except OSError as err:
            if err.errno != errno.ENOEXEC:
                raise
            return self._execute(("sh", *self.argv), folder, stdin, output)

    def _execute(
        self, argv: Sequence[str], folder: str | None, stdin: int, output: int
    ) -> "subprocess.Popen[bytes]":
        change = os.geteuid() != self.user.uid
        return subprocess.Popen(
            argv,
            executable=_SHELL if argv[0] == "sh" else None,
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=dict(self.environment),
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


_ANYWHERE: Final = Surroundings()


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def run_command(
    argv: Sequence[str],
    pieces: Iterable[bytes],
    user: Identity,
    environment: Mapping[str, str],
    place: Surroundings = _ANYWHERE,
    *,
    program: str,
    function: str = "",
    workers: Workers | None = None,
) -> CommandResult:
    """Run a command with the rights of `user` and the message `pieces` on standard input.

    argv: see `resolve_argv`. program, function: ours, for messages: "local", "pipe_command: ".
    workers: of a process that has other clients, too, which are not to wait while this command is
    loaded, perhaps from a file system that does not answer. No other root then.
    Raises CommandFailed when it cannot be started for want of rights or resources; a program that
    cannot be executed, or a folder that cannot be entered, is a failed command.
    """
    stdin, to_command = os.pipe()
    from_command, output = os.pipe()
    feeder = Feeder(to_command, iter(pieces))
    collector = Collector(from_command)
    process: subprocess.Popen[bytes] | None = None
    try:
        try:
            start = partial(_Start(argv, user, environment, place).run, stdin, output)
            process = start() if workers is None else await workers.run(start)
        except (OSError, subprocess.SubprocessError, ValueError, _Misplaced) as err:
            return _not_started(err, argv[0], program, function)
        finally:
            os.close(stdin)
            os.close(output)
        feeder.run()
        in_time = await _ended(process, place.time_limit)
        # What it left behind in the background is not waited for.
        collector.drain()
        if not in_time:
            phase = "read" if feeder.finished else "write"
            LOG.warning(f"pipe_command_{phase}: {phase} time limit exceeded")
        return CommandResult(process.wait() if in_time else None, collector.text)
    finally:
        if process is not None and process.returncode is None:
            _kill_group(process)  # first, or it might take the end of the pipe for that of the mail
            if workers is None:
                process.wait()
            else:
                await workers.run(process.wait)
        feeder.close()
        collector.close()


def _not_started(err: Exception, name: str, program: str, function: str) -> CommandResult:
    """What a command that never ran has come to. Raises CommandFailed."""
    if isinstance(err, _Misplaced):
        LOG.fatal(str(err))
        return CommandResult(_EX_TEMPFAIL, "")
    if isinstance(err, OSError):
        text = f"{function}execvp {name}: {err.strerror}"
        LOG.fatal(text)
        return CommandResult(_EX_TEMPFAIL, f"{program}: fatal: {text}\n")
    raise CommandFailed(f"cannot run {name}: {err}") from err


async def run_on_socket(
    argv: Sequence[str],
    connection: socket.SocketType,
    user: Identity,
    environment: Mapping[str, str],
    place: Surroundings,
) -> CommandResult:
    """Run a command whose standard input, output and error are a connection, which is closed here.

    Its output is not known. Raises CommandFailed when it cannot be started.
    """
    with closing(connection):
        try:
            fd = connection.fileno()
            process = _Start(argv, user, environment, place).run(fd, fd)
        except (OSError, subprocess.SubprocessError, ValueError) as err:
            text = err.strerror if isinstance(err, OSError) else str(err)
            raise CommandFailed(f"execvp {argv[0]}: {text}") from err
    try:
        in_time = await _ended(process, place.time_limit)
        if in_time:
            return CommandResult(process.wait(), "")
        LOG.warning(f"{argv[0]}: process id {process.pid}: command time limit exceeded")
        return CommandResult(None, "")
    finally:
        if process.returncode is None:
            _kill_group(process)
            process.wait()
