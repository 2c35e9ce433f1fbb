"""What master does with one entry of master.cf: programs, limits, options, decided at (re)load."""

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from libmail.config import Config, ServiceEntry
from libmail.config.programs import program_directory
from libmail.privileges import Identity, Jail
from libmail.service.skeleton import Service
from master.capacity import NO_LIMIT, Limit, limit_of
from master.endpoints import Endpoint
from master.preload import load_program

__all__ = ["Plan", "is_disabled", "plan_of"]

_OTHER_DESCRIPTORS: Final = 100  # of a process: tables, other services, queue files
_OF_A_COMMAND: Final = 8  # the client, its queue file, a folder, pipes, the process


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run a service.

    config: with the -o options. program: None for one that is executed. path: of the program, as
    the log names it. limit, max_use, max_idle, throttle_time: see master.capacity and the
    parameters (times in seconds).
    """

    entry: ServiceEntry
    config: Config
    program: Service[object] | None
    path: str
    limit: Limit
    max_use: int
    max_idle: float
    throttle_time: float

    @property
    def key(self) -> tuple[str, str]:
        """(name, type): what identifies a service over reloads."""
        return self.entry.name, self.entry.type

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        entry = self.entry
        place = f"{entry.file}: line {entry.line}"
        foreign = self.program is None
        return Endpoint(entry.name, entry.type, entry.private, place, triggered=foreign)

    @property
    def uses_approved(self) -> bool:
        """Whether the program has to do with the contents of certificates."""
        program = self.program
        return program is not None and (program.reads_approved or program.writes_approved)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Those of the command without the -v options, which `verbosity` counts."""
        return tuple(word for word in self.entry.args if not _is_verbose(word))

    @property
    def verbosity(self) -> int:
        """How many -v options there are."""
        return sum(word.count("v") for word in self.entry.args if _is_verbose(word))

    def options(self, listeners: int) -> list[str]:
        """The command and the options that tell a process what service it is (and ps, too)."""
        entry = self.entry
        words = [entry.command]
        words += {1: ["-l"], 0: ["-z"]}.get(-1 if entry.maxproc is None else entry.maxproc, [])
        words += ["-n", entry.name] if entry.name != entry.command else []
        words += ["-t", entry.type]
        words += ["-u"] if entry.unprivileged else []
        words += ["-c"] if entry.chroot else []
        words += ["-s", str(listeners)] if listeners > 1 else []
        return words

    def jail(
        self, owner: Identity, network: Identity, queue_directory: str, *, privileged: bool
    ) -> Jail:
        """What a process of this service keeps. privileged: whether master can give anything up.

        network: mail_network_user of main.cf; another name in master.cf stands for mail_owner.
        """
        commands = self.program is None or self.program.commands
        if not privileged:
            return Jail(None, None, no_new_privs=not commands)
        return Jail(
            queue_directory if self.entry.chroot else None,
            self._user(owner, network) if self.entry.unprivileged else None,
            no_new_privs=not commands,
        )

    def _user(self, owner: Identity, network: Identity) -> Identity:
        if self.program is None or not self.program.network:
            return owner
        return network if self.config.text("mail_network_user") == network.name else owner


def _is_verbose(word: str) -> bool:
    return word.startswith("-v") and not word.strip("-v")


def _most_sessions(program: Service[object] | None) -> int:
    """Sessions for which a process has descriptors: children raise their limit to the hard one.

    Those that run commands do not, which would inherit that, and a session has more of them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if program is not None and program.commands:
        return max(1, (soft - _OTHER_DESCRIPTORS) // _OF_A_COMMAND) if soft >= 0 else NO_LIMIT
    return NO_LIMIT if hard == resource.RLIM_INFINITY else max(1, hard - _OTHER_DESCRIPTORS)


def _sessions(own: Config, entry: ServiceEntry, program: Service[object] | None) -> int:
    """How many clients a process serves at a time."""
    most = _most_sessions(program)
    if program is not None and program.all_comers:
        return max(1, most * 3 // 4)  # the rest is for handing them over
    if program is not None and (program.shared or program.permanent) and entry.maxproc == 1:
        return most  # there is no other process that could take the rest
    sessions = own.family("_sessions_per_process", _family_name(entry))
    return min(sessions if isinstance(sessions, int) else 1, most)


def plan_of(entry: ServiceEntry, config: Config) -> Plan:
    """Decide. Raises ConfigError, Fatal."""
    own = config.override(entry.overrides, service_name=entry.name)
    program = load_program(entry.command)
    limit = limit_of(
        entry.maxproc,
        default_process_limit=config.int("default_process_limit"),
        sessions_per_process=_sessions(own, entry, program),
        one_client=program is None or program.one_client,
        threads=program is not None and program.threads,
        shared=program is not None and (program.shared or program.permanent),
    )
    resident = program is not None and program.permanent
    return Plan(
        entry=entry,
        config=own,
        program=program,
        path=os.path.join(program_directory(config, "daemon_directory"), entry.command),
        limit=limit,
        max_use=0 if resident else own.int("max_use"),
        max_idle=0.0 if resident else own.seconds("max_idle"),
        throttle_time=own.seconds("service_throttle_time"),
    )


def _family_name(entry: ServiceEntry) -> str:
    """The name that begins NAME_sessions_per_process: of an address, that of the program."""
    if entry.type == "inet" and not entry.name.isidentifier():
        return entry.command
    return entry.name


def is_disabled(entry: ServiceEntry, patterns: Sequence[str]) -> bool:
    """Whether master_service_disable names the service: `type`, `name/type`, `!` for "not so"."""
    for pattern in patterns:
        wanted = pattern.removeprefix("!").lower()
        if wanted in (entry.type.lower(), f"{entry.name}/{entry.type}".lower()):
            return not pattern.startswith("!")
    return False
