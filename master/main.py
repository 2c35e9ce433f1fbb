"""The entry of master(8): options, locks, becoming a daemon.

Called by: postfix(1). Reads: main.cf, master.cf. Starts: every daemon. Needs: root, or in rootless
mode to be run by mail_owner, and then it gives nothing up because it has nothing.
"""

import getopt
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import setproctitle

from libmail.config import Config, ConfigError, open_config, read_master_cf
from libmail.config.master_cf import parse_master_cf
from libmail.files.approved import ApprovedFiles
from libmail.log import LOG, Fatal
from libmail.log.logger import SyslogSink
from libmail.log.setup import maillog_file, open_log, standard_stream
from libmail.oauth.account import AccountError, account_names
from libmail.privileges import Identity, acting_as
from libmail.queue.foreign_queue import refuse_foreign_mail
from libmail.service.account import mail_account, network_account
from libmail.service.master_lock import PID_FILE, LockHeld, check_free, open_lock, write_pid
from libmail.tables.building.caches import settings
from libmail.tables.building.upkeep import kept_tables
from libmail.tls.watched_files import watched_files
from master.detach import Announcement, close_inherited, detach
from master.preload import use_name_services
from master.supervisor import Configuration, Instance, Supervisor

__all__ = ["main"]

_USAGE = "usage: master [-c config_dir] [-D (debug)] [-d (don't detach from terminal)] " \
    "[-e exit_time] [-i (init mode)] [-s (keep standard output)] [-t (test)] [-v] " \
    "[-w (wait for initialization)]"  # fmt: skip
_TABLEWATCH = "tablewatch unix - n n 60 1 tablewatch\n"  # these run without being in master.cf
_OAUTH = "oauth2 unix - - n 3600 1 oauth2\n"
_STS = "mta-sts unix - - n 3600 1 mta-sts\n"
_CONNECTOR = "connector unix - - n - - connector\n"
_STS_TABLE = "mta-sts:"
_TEST_HOOK = "MAIL_FORBID_LATE_IMPORTS"
_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Options:
    """The command line; life: seconds (-e), 0 for no end."""

    config_directory: str | None
    foreground: bool
    keep_stdout: bool
    test: bool
    wait: bool
    life: float
    verbosity: int


def parse_options(arguments: Sequence[str]) -> Options:
    """Raises Fatal."""
    try:
        pairs, rest = getopt.getopt(arguments, "c:Dde:istvw")
    except getopt.GetoptError as err:
        raise Fatal(f"{err.msg}; {_USAGE}") from err
    if rest:
        raise Fatal(_USAGE)
    given = dict(pairs)
    life = given.get("-e", "0")
    if not life.isdigit():
        raise Fatal(f"invalid exit time: {life}")
    if "-i" in given and os.getpid() != 1:
        raise Fatal("-i is allowed only for PID 1 process")
    return Options(
        config_directory=given.get("-c"),
        foreground="-d" in given or "-i" in given,
        keep_stdout="-s" in given or "-i" in given or "-d" in given,
        test="-t" in given,
        wait="-w" in given,
        life=float(life),
        verbosity=sum(name == "-v" for name, _ in pairs),
    )


def read_configuration(
    directory: str | None, owner: Identity, *, privileged: bool
) -> Configuration:
    """Both files, and who is to be what. Raises ConfigError, Fatal."""
    config = open_config(directory, process_name="master")
    entries = read_master_cf(config.directory, LOG.warning)
    network = _network_account(config, owner, privileged=privileged)
    watched = kept_tables(config, entries) or watched_files(config, entries)
    added = _TABLEWATCH if watched else ""
    if _has_accounts(config):
        added += _OAUTH
    if any(_STS_TABLE in text for _, text in settings(config, entries)):
        added += _STS
    if network.uid != owner.uid:
        added += _CONNECTOR
    present = {one.command for one in entries}
    built_in = parse_master_cf(added, "built-in service")
    entries += tuple(one for one in built_in if one.command not in present)
    return Configuration(config, entries, network)


def _network_account(config: Config, owner: Identity, *, privileged: bool) -> Identity:
    """mail_network_user, if it can reach other services. Raises Fatal."""
    network = network_account(config, owner, privileged=privileged)
    if network.uid == owner.uid:
        return owner
    try:
        found = os.stat("private")
    except OSError as err:
        raise Fatal(f"private: {err.strerror}") from err
    if found.st_mode & stat.S_IXGRP and found.st_gid in network.groups:
        return network
    LOG.warning(f"user {network.name} may not enter {config.text('queue_directory')}/private, "
                f"and {owner.name} stands in: postfix set-permissions opens it")  # fmt: skip
    return owner


def _has_accounts(config: Config) -> bool:
    try:
        return bool(account_names(config.text("oauth2_directory")))
    except AccountError as error:
        LOG.warning(str(error))
        return False


def clean_environment(config: Config) -> None:
    """Keep what import_environment names, so that nothing else reaches a daemon."""
    kept: dict[str, str] = {"PATH": _PATH}
    for word in (*config.list("import_environment"), _TEST_HOOK):
        name, equals, value = word.partition("=")
        if equals:
            kept[name] = value
        elif name in os.environ:
            kept[name] = os.environ[name]
    kept["MAIL_CONFIG"] = config.directory
    os.environ.clear()
    os.environ.update(kept)
    time.tzset()  # TZ may be another one now


def enter_queue_directory(path: str) -> None:
    """Raises Fatal."""
    try:
        os.chdir(path)
    except OSError as err:
        raise Fatal(f"chdir {path}: {err.strerror}") from err


def lock(path: str, owner: Identity | None) -> int:
    """Take a lock file, as owner if one is given. Raises Fatal."""
    with _lock_problems(path), nullcontext() if owner is None else acting_as(owner):
        return open_lock(path)


@contextmanager
def _lock_problems(path: str) -> Iterator[None]:
    try:
        yield
    except LockHeld as err:
        raise Fatal(str(err)) from err
    except OSError as err:
        raise Fatal(f"open lock file {path}: {err.strerror}") from err


def take_locks(config: Config, owner: Identity) -> tuple[int, ...]:
    """Be the only master of the queue and of the data directory. Raises Fatal."""
    locks = (lock(PID_FILE, None), lock(f"{config.text('data_directory')}/master.lock", owner))
    for fd in locks:
        write_pid(fd)
    return locks


def log_directly(config: Config) -> None:
    """Log without postlogd, which is about to end."""
    open_log(config, "master", daemon=True, may_wait=False, direct=True)


def check_log(config: Config, options: Options) -> None:
    """Raises Fatal when the log is to go to a standard output that there is not."""
    stream = standard_stream(maillog_file(config))
    if stream is not None and not options.keep_stdout:
        raise Fatal('to write logs to standard output, use "postfix start-fg"')


def serve(options: Options) -> None:
    """Be master. Raises Fatal, ConfigError."""
    config = open_config(options.config_directory, process_name="master")
    LOG.verbose = options.verbosity
    owner, privileged = mail_account(config)
    enter_queue_directory(config.text("queue_directory"))
    # The socket of postlogd may be there already while nobody reads it.
    open_log(config, "master", daemon=True, direct=True, echo=True)
    if options.test:
        with _lock_problems(PID_FILE):
            check_free(PID_FILE)
        return
    refuse_foreign_mail(config.text("queue_directory"))
    check_log(config, options)
    os.umask(0o077)
    setproctitle.getproctitle()  # finds the place of titles, which needs the environment intact
    clean_environment(config)
    announcement = Announcement() if options.wait else None
    if announcement is not None:
        announcement.wait_in_parent()
    locks = take_locks(config, owner)
    use_name_services()
    read = partial(read_configuration, config.directory, owner, privileged=privileged)
    instance = Instance(
        owner=owner,
        queue_directory=config.text("queue_directory"),
        privileged=privileged,
        verbosity=options.verbosity,
        read=read,
        log_directly=log_directly,
        locks=locks,
        approved=ApprovedFiles(),
    )
    supervisor = Supervisor(instance, read())
    if not options.foreground:
        detach(keep_stdout=options.keep_stdout)
        for fd in locks:
            write_pid(fd)
    setproctitle.setproctitle(" ".join(["master", *sys.argv[1:]]))
    open_log(config, "master", daemon=True, may_wait=False)
    supervisor.run(announcement.up if announcement else _nothing, life=options.life)


def _nothing() -> None:
    pass


def main(arguments: Sequence[str]) -> int:
    """The program; returns its exit status."""
    for fd in range(3):  # descriptors 0 to 2 must not become something else
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)
    close_inherited()
    LOG.open(SyslogSink(), "postfix/master", echo=True)
    try:
        serve(parse_options(arguments))
    except (Fatal, ConfigError) as err:
        LOG.fatal(str(err))
        return 1
    return 0
