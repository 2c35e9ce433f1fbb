"""What the configuration asks for and this system does not do: nobody shall find out by accident.

Settings of parameters without effect, and services whose program does not exist.
"""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from libmail.config import Config, ConfigError, ServiceEntry
from libmail.config.parameters.without_effect import NEVER
from libmail.config.programs import foreign_directories, program_directory

__all__ = ["ignored_directories", "is_built_in", "missing_programs", "settings_without_effect"]

_REMARK = "this parameter has no effect"


def settings_without_effect(config: Config, entries: Sequence[ServiceEntry]) -> Iterator[str]:
    """A line for each setting of main.cf and of master.cf that differs from its default."""
    for name in config.names():
        if name in NEVER and _differs(config, name):
            file, line = config.origin(name) or ("", 0)
            yield f"{file}, line {line}: {name}: {_REMARK}"
    for entry in entries:
        own = config.override(entry.overrides, service_name=entry.name)
        for name in dict(entry.overrides):
            if name in NEVER and _differs(own, name):
                yield f"{entry.file}, line {entry.line}: {name}: {_REMARK}"


def _differs(config: Config, name: str) -> bool:
    default = config.default(name) or ""
    try:
        return config.text(name).split() != config.expand(default).split()
    except ConfigError:
        return True  # whoever reads it complains


def ignored_directories(config: Config) -> Iterator[str]:
    """A line about the directories of another installation that main.cf names."""
    found = " and ".join(f"{name} = {path}" for name, path in foreign_directories(config).items())
    if found:
        own = program_directory(config, "daemon_directory")
        yield f"ignoring {found} in main.cf: another installation's; the daemons are in {own}"


# smtp and lmtp keep connections themselves: the line in master.cf may stay and does nothing.
_NOT_NEEDED = ("scache",)


def missing_programs(config: Config, entries: Sequence[ServiceEntry]) -> Iterator[str]:
    """A line for each service whose program neither is built in nor can be executed."""
    directory = program_directory(config, "daemon_directory")
    for entry in entries:
        path = os.path.join(directory, entry.command)
        if entry.command in _NOT_NEEDED or is_built_in(entry.command):
            continue
        if not os.access(path, os.X_OK):
            place = f"{entry.file}, line {entry.line}"
            yield f"{place}: service {entry.name}: {path}: no such program"


def is_built_in(command: str) -> bool:
    """Whether a program of master.cf is one of ours."""
    name = command.replace("-", "_")
    return name.isidentifier() and find_spec(f"daemons.{name}") is not None
