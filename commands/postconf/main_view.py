"""main.cf as postconf shows it, and what it warns about."""

from __future__ import annotations

import os

from commands.postconf.deprecated import deprecation
from commands.postconf.master_view import READ_ONLY
from commands.postconf.report import fold_words, json_line, squeeze, warn
from commands.postconf.usage import (
    CLIENT_SETTINGS,
    client_tables,
    unused_names,
    values_with_tables,
)
from libmail.config.core import COMPUTED, Config
from libmail.config.declared import all_parameters, find
from libmail.config.errors import ConfigError
from libmail.config.expand import references
from libmail.config.families import FAMILIES
from libmail.config.installed import DEFAULT_CONFIG_DIRECTORY
from libmail.config.main_cf import parse_main_cf, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from commands.postconf.master_view import MasterLine

__all__ = ["MainView"]

TRANSPORTS = ("local", "pipe", "virtual", "smtp", "lmtp", "error", "retry", "discard")
COMMANDS_WITH_LIMIT = ("pipe", "spawn")


class MainView:
    """The names that exist for a main.cf and a master.cf, and their values.

    quiet: no warnings about settings that are unused or deprecated. chosen: option or environment
    say where the files are, which then counts as a setting.
    """

    def __init__(
        self,
        config: Config,
        entries: Sequence[MasterLine],
        defaults: bool,
        *,
        quiet: bool = False,
        chosen: bool = False,
    ) -> None:
        self._config = Config(config.directory, process_name="postconf") if defaults else config
        self._entries = entries
        self._defaults = defaults
        self._quiet = quiet
        self._chosen = chosen
        self._service = _service_names(entries)
        self._builtin = (frozenset(all_parameters()) | COMPUTED) - self._service
        self._unused: tuple[str, ...] = ()
        self._user: frozenset[str] = frozenset()
        if not defaults:
            options = [value for entry in entries for value in entry.options().values()]
            self._unused = unused_names(config, self._service, options)
            known = self._builtin | self._service
            self._user = frozenset(config.names()) - known - frozenset(self._unused)

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
            chosen = {"config_directory"} if self._chosen else ()
            found = {name for name in found if self._config.is_set(name) or name in chosen}
            found -= set(READ_ONLY)
        return sorted(found)

    def knows(self, name: str) -> bool:
        """Whether there is such a parameter."""
        return name in self._builtin or name in self._service or name in self._user

    def lines(self, names: Sequence[str], *, expand: bool, fold: bool, show: str) -> list[str]:
        """`name = value` of each name; unknown names are warned about.

        show: "both", "names" (-H), "values" (-h) or "json" (-j).
        """
        lines: list[str] = []
        for name in names:
            if not self.knows(name):
                warn(f"{name}: unknown parameter")
                continue
            value = "" if show == "names" else squeeze(self._value(name, expand))
            if show == "json":
                lines.append(json_line(name, value))
                continue
            text = {"names": name, "values": value}.get(show, f"{name} = {value}".rstrip(" "))
            lines.append(fold_words(text) if fold else text)
        return lines

    def _value(self, name: str, expand: bool) -> str:
        if self._defaults and name == "config_directory":
            return DEFAULT_CONFIG_DIRECTORY
        declared = find(name)
        expand = expand and (declared is None or declared.kind.expanded)
        if self._defaults or name in READ_ONLY:
            value = self._config.default(name) or ""
            return self._config.expand(value) if expand else value
        return self._config.text(name) if expand else self._config.raw(name) or ""

    # -- warnings

    def check_expansions(self) -> None:
        """Raise ExpansionError if a setting cannot be expanded."""
        for name in self._expanded_names():
            self._config.text(name)

    def warn_undefined(self) -> None:
        """Warn about names that values refer to and nothing defines, and read-only ones."""
        config, directory = self._config, self._config.directory
        for entry in self._entries:
            options = entry.options()
            for value in options.values():
                for name in references(value):
                    if name not in options and not self._is_defined(name):
                        warn(f"{directory}/master.cf: undefined parameter: {name}")
            self._warn_of_options(options, f"{directory}/master.cf")
        for name in self._expanded_names():
            for other in references(config.raw(name) or ""):
                if not self._is_defined(other):
                    warn(f"{directory}/main.cf: undefined parameter: {other}")
        for name in config.text("smtpd_restriction_classes").replace(",", " ").split():
            if config.raw(name) is None:
                warn(f"{directory}/main.cf: undefined parameter: {name}")
        for name in READ_ONLY:
            if config.is_set(name):
                assignment = f"{name}={config.raw(name)}"
                warn(f"{directory}/main.cf: read-only parameter assignment: {assignment}")

    def _warn_of_options(self, options: dict[str, str], path: str) -> None:
        """Warn about classes that nothing defines, and read-only names."""
        for name in options.get("smtpd_restriction_classes", "").replace(",", " ").split():
            if "$" not in name and name not in options and self._config.raw(name) is None:
                warn(f"{path}: undefined parameter: {name}")
        for name in READ_ONLY:
            if name in options:
                warn(f"{path}: read-only parameter assignment: {name}={options[name]}")

    def _is_defined(self, name: str) -> bool:
        return name in self._builtin or self._config.raw(name) is not None

    def warn_unused_settings(self) -> None:
        """Warn about settings in main.cf that nothing uses or that will go."""
        if self._quiet:
            return
        path = os.path.join(self._config.directory, "main.cf")
        for name in self._unused:
            warn(f"{path}: unused parameter: {name}={self._config.raw(name)}")
        for name in self._config.names():
            if complaint := deprecation(name):
                warn(f"{path}: {complaint}")

    def warn_unused_options(self) -> None:
        """Warn about `-o` settings in master.cf, and settings in files of tables, that nothing uses
        or that will go."""
        if self._quiet:
            return
        for complaint in sorted(set(self._complaints_about_files())):
            warn(complaint)
        path = os.path.join(self._config.directory, "master.cf")
        names = self._config.names()
        in_main = {name for other in names for name in references(self._config.raw(other) or "")}
        for entry in self._entries:
            options = entry.options()
            used = self._used_in(entry, options)
            for name, value in options.items():
                if not self.knows(name) and name not in used and name not in in_main:
                    warn(f"{path}: unused parameter: {name}={value}")
                elif complaint := deprecation(name):
                    warn(f"{path}: {complaint}")

    def _used_in(self, entry: MasterLine, options: dict[str, str]) -> set[str]:
        """The names that the options of one entry make use of, or main.cf."""
        used = set(options.get("smtpd_restriction_classes", "").replace(",", " ").split())
        for value in options.values():
            used.update(references(value))
        for table in client_tables([*self._tables_in_main, *self._expanded_options(entry)]):
            used |= table.parameters()
        return used

    def _expanded_options(self, entry: MasterLine) -> list[str]:
        scope = entry.scope(self._config)
        return [scope.expand(value) for value in entry.options().values()]

    @property
    def _tables_in_main(self) -> list[str]:
        return values_with_tables(self._config, self._service)

    def _complaints_about_files(self) -> Iterator[str]:
        options = [text for entry in self._entries for text in self._expanded_options(entry)]
        for table in client_tables([*self._tables_in_main, *options]):
            if not table.has_file:
                continue
            try:
                entries, _ = parse_main_cf(read_text(table.name), table.name)
            except ConfigError as error:
                cause = error.__cause__
                reason = cause.strerror if isinstance(cause, OSError) else str(error)
                yield f'open "{table.kind}" configuration "{table.name}": {reason}'
                continue
            for entry in entries:
                if entry.name not in CLIENT_SETTINGS[table.kind]:
                    place = f"{table.kind}:{table.name}"
                    yield f"{place}: unused parameter: {entry.name}={entry.value}"

    def _expanded_names(self) -> Iterator[str]:
        for name in self._config.names():
            declared = find(name)
            if declared is None or declared.kind.expanded:
                yield name


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
