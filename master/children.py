"""Processes of services: what master knows of each, and what the new process does first.

A built-in service is forked: the child closes what belongs to others and goes on in
libmail.service.skeleton. Any other command is executed with the protocol that Postfix's programs
know: descriptor 5 takes status messages, the listening sockets follow from 6 on, 3 and 4 are the
pipe for flow control; options tell the name, type and rights of the service.
"""

import errno
import fcntl
import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

import setproctitle

from libmail.config import Config
from libmail.dns.hostname import IDNA
from libmail.files.approved import ApprovedFiles
from libmail.log import LOG, Fatal
from libmail.log.setup import maillog_file, open_log
from libmail.privileges import Jail
from libmail.service.skeleton import BUSY, STATUS, Launch, Service, Startup, run_service
from master.capacity import sessions_in_a_life
from master.endpoints import Fifo, Listener
from master.plan import Plan

__all__ = ["Child", "Surroundings", "become_foreign", "become_service"]

_FLOW_FD: Final = 3
_FIRST_FREE: Final = 64  # above every descriptor of the protocol, for moving them
_STATUS_BURST: Final = 64 * STATUS.size


@dataclass(slots=True)
class Child:
    """One process. status: master's end of the socket pair; None when the child closed its end.

    state: its last message, see STATUS; a new process counts as available. served: whether it
    ever sent one. told_to_end: master has sent it a signal, so its death is no crash.
    """

    pid: int
    status: socket.socket | None
    generation: int
    capacity: int
    foreign: bool
    started: float = field(default_factory=time.monotonic)
    state: int = 1
    served: bool = False
    told_to_end: bool = False

    @property
    def available(self) -> bool:
        """Whether it can take a session."""
        return self.state > 0

    @property
    def suffices(self) -> bool:
        """Whether it can take a session, and a core is enough for those that it has."""
        return self.available and self.state != BUSY

    @property
    def held(self) -> int:
        """The clients that it may have now."""
        return self.capacity if self.state >= 0 else -self.state

    def read_status(self) -> bool:
        """Take in its messages; False at the end of them."""
        if self.status is None:
            return False
        try:
            data = self.status.recv(_STATUS_BURST)
        except BlockingIOError:
            return True
        except OSError:
            return False
        for start in range(0, len(data) - STATUS.size + 1, STATUS.size):
            pid, generation, state = STATUS.unpack_from(data, start)
            if pid == self.pid and generation == self.generation:
                self.state = state
                self.served = True
        return bool(data)

    def close(self) -> None:
        """Close master's end; a foreign program takes that as the sign to end when it is idle."""
        if self.status is not None:
            self.status.close()
            self.status = None

    def kill(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.told_to_end = True
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass  # it has ended and is about to be reaped


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a new process gets from master.

    status: the child's end. flow: the two ends of a pipe. verbosity: master's own -v options.
    owner, network: user ids of mail_owner and mail_network_user. stress: clients have to wait.
    approved: for services that use it.
    """

    status: socket.socket
    listeners: Sequence[Listener]
    flow: tuple[int, int]
    generation: int
    capacity: int
    verbosity: int
    jail: Jail
    owner: int
    network: int
    stress: bool = False
    approved: ApprovedFiles | None = None


def become_service(plan: Plan, program: Service[object], given: Surroundings) -> NoReturn:
    """Be a process of a built-in service, until its end."""
    hurry = _hurry(plan) if given.stress else ()
    config = plan.config.override(hurry) if hurry else plan.config
    stress = [word for name, value in hurry for word in ("-o", f"{name}={value}")]
    words = [*plan.options(len(given.listeners)), *stress, *plan.arguments]
    setproctitle.setproctitle(" ".join(words))
    LOG.verbose = given.verbosity + plan.verbosity
    open_log(config, plan.entry.command, daemon=True)
    IDNA.transitional = config.bool("enable_idna2003_compatibility")
    launch = Launch(
        listeners=tuple(one for one in given.listeners if isinstance(one, socket.socket)),
        fifos=tuple(one.fileno() for one in given.listeners if isinstance(one, Fifo)),
        status=given.status,
        generation=given.generation,
        capacity=given.capacity,
        max_use=sessions_in_a_life(plan.max_use, given.capacity),
        max_idle=plan.max_idle,
        jail=given.jail,
        owner=given.owner,
        network=given.network,
        passing=plan.entry.type == "pass",
    )
    startup = Startup(config, plan.entry.name, plan.arguments, given.approved)
    run_service(program, startup, launch)


def _hurry(plan: Plan) -> tuple[tuple[str, str], ...]:
    """The setting of a process that is to hurry; none where master.cf says what it shall be."""
    said = any(name == "stress" for name, _ in plan.entry.overrides)
    return () if said else (("stress", "yes"),)


def become_foreign(plan: Plan, given: Surroundings) -> NoReturn:
    """Execute the command of a service that is not built in."""
    try:
        if not os.access(plan.path, os.X_OK):  # said while the log's descriptor is still its own
            code = errno.EACCES if os.path.exists(plan.path) else errno.ENOENT
            raise OSError(code, os.strerror(code))
        _arrange_descriptors(given)
        os.execve(plan.path, _command_line(plan, given), _environment(plan.config, given))
    except OSError as err:
        LOG.fatal(f"master_spawn: exec {plan.path}: {err.strerror}")
    os._exit(1)


def _arrange_descriptors(given: Surroundings) -> None:
    wanted = [*given.flow, given.status.fileno(), *(one.fileno() for one in given.listeners)]
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for fd in wanted]
    for target, fd in enumerate(safe, _FLOW_FD):
        os.dup2(fd, target)  # makes it inheritable


def _command_line(plan: Plan, given: Surroundings) -> list[str]:
    words = plan.options(len(given.listeners))
    for name, value in (*(_hurry(plan) if given.stress else ()), *plan.entry.overrides):
        words += ["-o", f"{name}={value}"]
    return [*words, *["-v"] * given.verbosity, *plan.entry.args]


def _environment(config: Config, given: Surroundings) -> dict[str, str]:
    environment = dict(os.environ)
    environment["MAIL_CONFIG"] = config.directory
    environment["MAIL_LOGTAG"] = config.text("syslog_name")
    environment["GENERATION"] = f"{given.generation:o}"
    try:
        logs_to_file = bool(maillog_file(config))
    except Fatal:
        logs_to_file = False
    if logs_to_file:
        name = config.text("postlog_service_name")
        environment["POSTLOG_SERVICE"] = f"{config.text('queue_directory')}/public/{name}"
        environment["POSTLOG_HOSTNAME"] = config.text("myhostname")
    return environment
