"""Starting and stopping master(8), and asking whether it runs."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import NoReturn

from commands.postfix.authorities import authority_problems
from commands.postfix.directories import (
    check_ownership,
    create_missing,
    network_problems,
    open_to_users,
    repair,
)
from commands.postfix.effects import ignored_directories, missing_programs, settings_without_effect
from commands.postfix.report import info, warning
from libmail.config import Config, ServiceEntry, read_master_cf
from libmail.config.programs import program_directory
from libmail.log import Fatal
from libmail.queue.foreign_queue import refuse_foreign_mail
from libmail.service.account import mail_account
from libmail.service.master_lock import PID_FILE, is_running, read_pid
from libmail.tables.building.upkeep import kept_tables
from libmail.tables.table import TableError
from libmail.tls.errors import LibraryMissing
from libmail.tls.watched_files import named_certificates

__all__ = [
    "abort",
    "check",
    "drain",
    "flush",
    "reload",
    "set_permissions",
    "start",
    "start_foreground",
    "status",
    "stop",
]

_NOT_RUNNING = "the Postfix mail system is not running"
_POLL = 0.02  # seconds
_STOP_LIMIT = 10.0  # seconds; master gives its children 7, and postlogd 2 more


def _pid_file(config: Config) -> str:
    return f"{config.text('queue_directory')}/{PID_FILE}"


def _runs(config: Config) -> bool:
    path = _pid_file(config)
    try:
        return is_running(path)
    except OSError as err:
        raise Fatal(f"open lock file {path}: {err.strerror}") from err


def _signal_master(config: Config, number: signal.Signals, doing: str) -> int:
    """Send a signal to the running master; its process id. Raises Fatal."""
    if not _runs(config):
        raise Fatal(_NOT_RUNNING)
    info(doing)
    pid = read_pid(_pid_file(config))
    try:
        os.kill(pid, number)
    except OSError as err:
        raise Fatal(f"kill {pid}: {err.strerror}") from err
    return pid


def check_configuration(config: Config) -> tuple[ServiceEntry, ...]:
    """Check what must be right before a start; the services. Raises Fatal, ConfigError."""
    owner, privileged = mail_account(config)
    for name, what in (("command", "command"), ("daemon", "daemon")):
        path = program_directory(config, f"{name}_directory")
        if not os.path.isdir(path):
            raise Fatal(f"no Postfix {what} directory {path}!")
    master = program_directory(config, "daemon_directory") + "/master"
    if not os.access(master, os.X_OK):
        raise Fatal(f"no Postfix master program {master}!")
    if not os.path.exists(f"{config.directory}/master.cf"):
        raise Fatal(f"no {config.directory}/master.cf file found")
    entries = read_master_cf(config.directory)
    postlog = config.text("postlog_service_name")
    wanted = (postlog, "unix-dgram")
    if config.text("maillog_file") and wanted not in ((one.name, one.type) for one in entries):
        raise Fatal(f"missing '{postlog}' service in master.cf - it is needed for maillog_file")
    create_missing(config, owner, privileged=privileged)
    return entries


def warn_without_effect(config: Config, entries: Sequence[ServiceEntry]) -> None:
    """Warn about what is configured and will not be done. Raises ConfigError."""
    for text in ignored_directories(config):
        warning(text)
    for text in settings_without_effect(config, entries):
        warning(text)
    for text in missing_programs(config, entries):
        warning(text)


def rebuild_tables(config: Config, entries: Sequence[ServiceEntry]) -> None:
    """Rebuild indexed tables that are missing or outdated: services open them at their start.

    One with certificates that is there is left to tablewatch(8), which knows better ones than the
    files may have now.
    """
    owner, _ = mail_account(config)
    for table in kept_tables(config, entries):
        try:
            if table.files and os.path.exists(table.path(config)):
                continue
            if table.outdated(config):
                info(f"{table.rebuild(config, owner)}: rebuilt from {table.name}")
        except TableError as err:
            warning(f"{err}; not rebuilding {table.spec}")
        except OSError as err:
            warning(f"{table.name}: {err.strerror}")


def check(config: Config) -> None:
    """Create directories, complain about what looks wrong. Raises Fatal, ConfigError."""
    # Only here: what the other commands do not need takes a while to load.
    from commands.postfix.classes import class_problems
    from commands.postfix.jails import copies_that_differ, dns_problems
    from commands.postfix.relaying import relay_problems
    from commands.postfix.tables import table_problems

    entries = check_configuration(config)
    _have_postconf_complain(config)
    warn_without_effect(config, entries)
    owner, privileged = mail_account(config)
    check_ownership(config, owner, privileged=privileged)
    problems = [
        *copies_that_differ(config.text("queue_directory"), entries),
        *table_problems(config, entries),
        *class_problems(config),
        *relay_problems(config, entries),
    ]
    if privileged:
        problems += dns_problems(config, entries, owner)
        problems += network_problems(config, owner)
    problems += authority_problems(config, entries)
    problems += _problems_of_tls(config, entries)
    for text in problems:
        warning(text)


def _have_postconf_complain(config: Config) -> None:
    """postconf(1) knows which settings nothing uses. What will go is no fault yet. Raises Fatal."""
    program = program_directory(config, "command_directory") + "/postconf"
    command = [program, "-c", config.directory, "-n"]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError as err:
        raise Fatal(f"{program}: {err.strerror}") from err
    for line in done.stderr.splitlines(keepends=True):
        if b" will be removed; instead, " not in line:
            os.write(2, line)


def _problems_of_tls(config: Config, entries: Sequence[ServiceEntry]) -> list[str]:
    if not named_certificates(config, entries):
        return []
    from libmail.dns.resolver import Resolver

    try:
        from commands.postfix.certificates import certificate_problems, dane_problems
    except LibraryMissing:
        return []  # whoever needs it complains
    return [*certificate_problems(config, entries), *dane_problems(config, Resolver())]


def set_permissions(config: Config) -> None:
    """Give the directories their owners and permissions. Raises Fatal, ConfigError."""
    check_configuration(config)
    owner, privileged = mail_account(config)
    repair(config, owner, privileged=privileged)


def _prepare_start(config: Config) -> None:
    if _runs(config):
        raise Fatal("the Postfix mail system is already running")
    refuse_foreign_mail(config.text("queue_directory"))
    entries = check_configuration(config)
    warn_without_effect(config, entries)
    owner, privileged = mail_account(config)
    open_to_users(config, owner, privileged=privileged)
    rebuild_tables(config, entries)
    info("starting the Postfix mail system")


def start(config: Config, options: list[str]) -> None:
    """Start master as a daemon; returns when it serves. Raises Fatal, ConfigError.

    options: -v and the like for master.
    """
    _prepare_start(config)
    if config.text("maillog_file").startswith("/dev/std"):
        raise Fatal('to write logs to standard output, use "postfix start-fg"')
    program = program_directory(config, "daemon_directory") + "/master"
    done = subprocess.run([program, "-w", *options], check=False)
    if done.returncode != 0:
        raise Fatal("mail system startup failed")
    owner, privileged = mail_account(config)
    check_ownership(config, owner, privileged=privileged)


def start_foreground(config: Config, options: list[str]) -> NoReturn:
    """Become master. Raises Fatal, ConfigError."""
    _prepare_start(config)
    if config.text("multi_instance_directories"):
        raise Fatal("start-fg does not support multi_instance_directories")
    program = program_directory(config, "daemon_directory") + "/master"
    mode = "-i" if os.getpid() == 1 else "-d"
    try:
        os.execv(program, [program, mode, *options])
    except OSError as err:
        raise Fatal(f"cannot start-fg the master daemon: {err.strerror}") from err


def stop(config: Config) -> None:
    """Stop, and wait until it has. Raises Fatal."""
    pid = _signal_master(config, signal.SIGTERM, "stopping the Postfix mail system")
    begin = time.monotonic()
    reported = 1.0
    while _runs(config):
        passed = time.monotonic() - begin
        if passed > _STOP_LIMIT:
            warning("stopping the Postfix mail system with force")
            _kill_all(pid)
            return
        if passed > reported:
            info("waiting for the Postfix mail system to terminate")
            reported += 1.0
        time.sleep(_POLL)


def _kill_all(pid: int) -> None:
    """kill -9 of master and, where it has a process group of its own, of all that it started."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def abort(config: Config) -> None:
    """End everything now. Raises Fatal."""
    _signal_master(config, signal.SIGQUIT, "aborting the Postfix mail system")


def drain(config: Config) -> None:
    """End master alone: its processes notice, and end when their sessions do. Raises Fatal."""
    _signal_master(config, signal.SIGKILL, "stopping the Postfix mail system")


def reload(config: Config) -> None:
    """Make master read its configuration, if it can be read. Raises Fatal, ConfigError."""
    entries = read_master_cf(config.directory)
    warn_without_effect(config, entries)
    rebuild_tables(config, entries)
    if _runs(config):
        owner, privileged = mail_account(config)
        open_to_users(config, owner, privileged=privileged)
    _signal_master(config, signal.SIGHUP, "refreshing the Postfix mail system")


def status(config: Config) -> int:
    """Say whether the system runs; exit status 1 if not. Raises Fatal."""
    if _runs(config):
        info(f"the Postfix mail system is running: PID: {read_pid(_pid_file(config))}")
        return 0
    info(_NOT_RUNNING)
    return 1


def flush(config: Config) -> NoReturn:
    """Have postqueue(1) ask for the delivery of all queued mail. Raises Fatal."""
    program = program_directory(config, "command_directory") + "/postqueue"
    try:
        os.execv(program, [program, "-f"])
    except OSError as err:
        raise Fatal(f"{program}: {err.strerror}") from err
