"""main.cf as postconf shows it, and what it warns about."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from commands.postconf.report import fold_words, squeeze, warn
from libmail.config.core import COMPUTED
from libmail.config.declared import all_parameters, find
from libmail.config.expand import references
from libmail.config.families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commands.postconf.master_view import MasterLine
    from libmail.config import Config

__all__ = ["READ_ONLY", "MainView"]

READ_ONLY: Final = ("process_id", "process_name")
TRANSPORTS: Final = ("local", "pipe", "virtual", "smtp", "lmtp", "error", "retry", "discard")
COMMANDS_WITH_LIMIT: Final = ("pipe", "spawn")


class MainView:
    """The names that exist for a main.cf and a master.cf, and their values."""

    def __init__(self, config: Config, entries: Sequence[MasterLine], defaults: bool) -> None:
        self._config = config
        self._entries = entries
        self._defaults = defaults
        self._builtin = frozenset(all_parameters()) | COMPUTED
        self._service = _service_names(entries) - self._builtin
        self._user: frozenset[str] = frozenset()
        if not defaults:
            unknown = {name for name, _, _ in self._unknown()}
            known = self._builtin | self._service
            self._user = frozenset(config.names()) - unknown - known

    def names(self, classes: Sequence[str], only_set: bool) -> list[str]:
        """Sorted names of the classes (builtin, service, user); only_set: that main.cf sets."""
        found: set[str] = set()
        for word, members in (
            ("builtin", self._builtin),
            ("service", self._service),
            ("user", self._user),
        ):
            if word in classes or "all" in classes:
                found |= members
        if only_set:
            found = {n for n in found if self._config.is_set(n) or n == "config_directory"}
            found -= set(READ_ONLY)
        return sorted(found)

    def lines(self, names: Sequence[str], *, expand: bool, fold: bool, show: str) -> list[str]:
        """`name = value` of each name; unknown names are warned about.

        show: "both", "names" (-H) or "values" (-h).
        """
        lines: list[str] = []
        for name in names:
            if name not in self._builtin | self._service | self._user:
                warn(f"{name}: unknown parameter")
                continue
            value = "" if show == "names" else squeeze(self._value(name, expand))
            text = {"names": name, "values": value}.get(show, f"{name} = {value}".rstrip(" "))
            lines.append(fold_words(text) if fold else text)
        return lines

    def _value(self, name: str, expand: bool) -> str:
        declared = find(name)
        if self._defaults or name in READ_ONLY:
            value = self._config.default(name) or ""
            return self._config.expand(value) if expand and not self._defaults else value
        if expand and (declared is None or declared.kind.expanded):
            return self._config.text(name)
        return self._config.raw(name) or ""

    def warn_undefined(self) -> None:
        """Warn about names that values refer to and nothing defines, and read-only ones."""
        config, directory = self._config, self._config.directory
        for entry in self._entries:
            options = entry.options()
            for value in options.values():
                for name in references(value):
                    if name not in options and config.raw(name) is None:
                        warn(f"{directory}/master.cf: undefined parameter: {name}")
        for name in config.names():
            declared = find(name)
            if declared is None or declared.kind.expanded:
                for other in references(config.raw(name) or ""):
                    if config.raw(other) is None:
                        warn(f"{directory}/main.cf: undefined parameter: {other}")
        for name in config.list("smtpd_restriction_classes"):
            if config.raw(name) is None:
                warn(f"{directory}/main.cf: undefined parameter: {name}")
        for name in READ_ONLY:
            if config.is_set(name):
                assignment = f"{name}={config.raw(name)}"
                warn(f"{directory}/main.cf: read-only parameter assignment: {assignment}")

    def warn_unused_settings(self) -> None:
        """Warn about settings in main.cf that nothing uses."""
        path = os.path.join(self._config.directory, "main.cf")
        for name, _, _ in self._unknown():
            warn(f"{path}: unused parameter: {name}={self._config.raw(name)}")

    def warn_unused_options(self) -> None:
        """Warn about `-o` settings in master.cf that nothing uses."""
        path = os.path.join(self._config.directory, "master.cf")
        known = self._builtin | self._service | self._user
        for entry in self._entries:
            options = entry.options()
            used = known.union(*(references(value) for value in options.values()))
            for name, value in options.items():
                if name not in used and not self._is_referenced(name):
                    warn(f"{path}: unused parameter: {name}={value}")

    def _is_referenced(self, name: str) -> bool:
        return any(
            name in references(self._config.raw(other) or "") for other in self._config.names()
        )

    def _unknown(self) -> tuple[tuple[str, str, int], ...]:
        services = [entry.fields[0] for entry in self._entries]
        texts = [value for entry in self._entries for value in entry.options().values()]
        return self._config.unknown_names(services, texts)


def _service_names(entries: Sequence[MasterLine]) -> frozenset[str]:
    """The family members that the services of master.cf have."""
    found: set[str] = set()
    for entry in entries:
        service, command = entry.fields[0], entry.fields[7]
        for suffix, family in FAMILIES.items():
            if "qmgr" in family.programs:
                applies = command in TRANSPORTS and entry.fields[1] == "unix"
            else:
                applies = suffix != "_time_limit" or command in COMMANDS_WITH_LIMIT
            if applies:
                found.add(service + suffix)
    return frozenset(found)
