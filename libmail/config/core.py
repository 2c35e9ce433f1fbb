"""`Config`: one program's view of main.cf, and the typed access to it.

Nothing is global and nothing changes: a program opens its configuration once, loads its
parameter records from it and passes those on; a reload is a new process with a new Config.
"""

from __future__ import annotations

import builtins
import os

from libmail.config.declare import BOOL, INT, LIST, SIZE, TIME, Kind, split_list
from libmail.config.declared import all_parameters, find
from libmail.config.errors import BadName, ConfigError, ExpansionError
from libmail.config.expand import expand
from libmail.config.families import FAMILIES, family_of
from libmail.config.installed import DEFAULT_CONFIG_DIRECTORY, INSTALLED_DEFAULTS
from libmail.config.main_cf import Entry, parse_main_cf, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    from _typeshed import DataclassInstance

    from libmail.config.declare import Value

    P = TypeVar("P", bound=DataclassInstance)
    Overrides = Sequence[tuple[str, str]]

__all__ = ["Config", "open_config"]

LMTP_WORDS = (("ehlo", "lhlo"), ("helo", "lhlo"))


def open_config(
    directory: str | None = None,
    overrides: Overrides = (),
    *,
    process_name: str = "",
    service_name: str = "",
) -> Config:
    """Read DIRECTORY/main.cf; overrides (`-o name=value`) count more than the file.

    directory: None for $MAIL_CONFIG or else the directory of the installation.
    Raises ConfigError if the file cannot be read or parsed.
    """
    if directory is None:
        directory = os.environ.get("MAIL_CONFIG") or DEFAULT_CONFIG_DIRECTORY
    path = os.path.join(directory, "main.cf")
    entries, warnings = parse_main_cf(read_text(path), path)
    config = Config(directory, entries, warnings, process_name, service_name)
    return config.override(overrides, service_name=service_name) if overrides else config


class Config:
    """Settings of one main.cf with the `-o` options of one program. Immutable.

    directory: where main.cf and master.cf are. process_name, service_name: $process_name (the
    program's own name) and $service_name (its first column in master.cf).
    """

    __slots__ = ("_entries", "_file", "_notes", "directory", "process_name", "service_name")

    def __init__(
        self,
        directory: str,
        entries: Sequence[Entry] = (),
        notes: Sequence[str] = (),
        process_name: str = "",
        service_name: str = "",
    ) -> None:
        self.directory = directory
        self.process_name = process_name
        self.service_name = service_name
        self._file = tuple(entries)
        self._notes = tuple(notes)
        self._entries = {entry.name: entry for entry in self._file}

    def override(
        self, pairs: Overrides, *, service_name: str = "", process_name: str = ""
    ) -> Config:
        """The same configuration with a child's `-o name=value` options applied."""
        added = tuple(Entry(name, value, "", 0) for name, value in pairs)
        process = process_name or self.process_name
        service = service_name or self.service_name
        return Config(self.directory, self._file + added, self._notes, process, service)

    # -- text

    def raw(self, name: str) -> str | None:
        """The text that counts for name, not expanded: set or default; None if unknown."""
        entry = self._entries.get(name)
        return entry.value if entry is not None else self.default(name)

    def default(self, name: str) -> str | None:
        """What counts for name, not expanded, while nobody sets it; None if it is unknown."""
        if name in COMPUTED:
            from libmail.config import computed

            return computed.default(self, name)
        if name in INSTALLED_DEFAULTS:
            return INSTALLED_DEFAULTS[name]
        declared = find(name) or family_of(name)
        return declared.default if declared is not None else None

    def text(self, name: str) -> str:
        """The expanded value of any name, declared or not; "" if it is unknown."""
        raw = self.raw(name)
        if not raw or "$" not in raw:
            return raw or ""
        try:
            return expand(raw, self.raw)
        except ExpansionError as error:
            raise ExpansionError(f"{self._where(name)}: {name}: {error}") from error

    def expand(self, text: str) -> str:
        """The text with `$name` replaced by the values here. Raises ExpansionError."""
        return expand(text, self.raw)

    def is_set(self, name: str) -> builtins.bool:
        """Whether main.cf or an option sets name."""
        return name in self._entries

    def origin(self, name: str) -> tuple[str, builtins.int] | None:
        """(file, line) of the setting that counts; ("", 0) for an option; None if not set."""
        entry = self._entries.get(name)
        return (entry.file, entry.line) if entry is not None else None

    def names(self) -> tuple[str, ...]:
        """All names that main.cf or options set."""
        return tuple(self._entries)

    # -- typed values

    def bool(self, name: str) -> builtins.bool:
        """The value of a yes/no parameter. Raises ConfigError if it is neither."""
        return bool(self._typed(name, BOOL))

    def int(self, name: str) -> builtins.int:
        """The value of a numerical parameter. Raises ConfigError."""
        value = self._typed(name, INT())
        return value if isinstance(value, int) else 0

    def size(self, name: str) -> builtins.int:
        """The value of a parameter that counts octets. Raises ConfigError."""
        value = self._typed(name, SIZE())
        return value if isinstance(value, int) else 0

    def seconds(self, name: str) -> float:
        """The value of a time parameter. Raises ConfigError."""
        value = self._typed(name, TIME("s"))
        return value if isinstance(value, float) else 0.0

    def list(self, name: str) -> tuple[str, ...]:
        """The elements of a list parameter."""
        value = self._typed(name, LIST)
        return value if isinstance(value, tuple) else split_list(str(value))

    def family(self, suffix: str, service: str) -> Value:
        """The typed value of SERVICE+suffix, or of the family's default if nobody sets it.

        suffix: a key of FAMILIES. Raises ConfigError for an unusable value.
        """
        return self._typed(service + suffix, FAMILIES[suffix].kind)

    def load(self, cls: type[P], prefix: tuple[str, str] | None = None) -> P:
        """The parameters that the frozen dataclass cls names in its fields, with their types.

        A list may be annotated str where its reader splits the text itself (match lists).
        prefix: ("smtp_", "lmtp_") takes the value of lmtp_xxx for a field smtp_xxx.
        Raises ConfigError for an unusable value, TypeError for a field that names no parameter
        or has another type than its declaration.
        """
        from dataclasses import fields

        all_parameters()  # so that nothing needs to be imported later, in a jail
        values: dict[str, Value] = {}
        for field in fields(cls):
            name = renamed(field.name, prefix)
            kind = kind_of(name)
            if kind is None:
                raise TypeError(f"{cls.__name__}.{field.name}: no such parameter")
            annotation = annotation_text(field.type)
            if annotation != kind.annotation and not (annotation == "str" and kind is LIST):
                raise TypeError(f"{cls.__name__}.{field.name}: must be {kind.annotation}")
            values[field.name] = (
                self._typed(name, kind) if annotation == kind.annotation else self.text(name)
            )
        return cls(**values)

    def _typed(self, name: str, kind: Kind) -> Value:
        """The value by its declaration, or else as kind."""
        kind = kind_of(name) or kind
        text = self.text(name) if kind.expanded else self.raw(name) or ""
        try:
            return kind.parse(name, text)
        except BadName as error:
            raise ConfigError(
                f"file {self.directory}/main.cf: parameter {name}: bad parameter value: {text}",
                (f"valid_hostname: {error}",),
            ) from None
        except ValueError as error:
            where = self._where(name)
            raise ConfigError(f"{error} ({where}: must be {kind.allowed})") from None

    def _where(self, name: str) -> str:
        origin = self.origin(name)
        if origin is None:
            return "default value"
        return f"{origin[0]}, line {origin[1]}" if origin[0] else "command-line option"

    # -- complaints

    def warnings(self) -> tuple[str, ...]:
        """What is odd about the file: lines that are lost, settings that replace others."""
        found = list(self._notes)
        place = Entry("config_directory", self.directory, "", 0)
        last: dict[str, Entry] = {place.name: place}
        for entry in self._file:
            earlier = last.get(entry.name)
            if earlier is not None and entry.file and earlier.value != entry.value:
                where = f"{entry.file}, line {entry.line}"
                found.append(f"{where}: overriding earlier entry: {entry.name}={earlier.value}")
            last[entry.name] = entry
        return tuple(found)


COMPUTED = frozenset(
    ("config_directory", "mydomain", "myhostname", "mynetworks", "process_id", "process_name",
     "service_name")
)  # fmt: skip


def annotation_text(annotation: object) -> str:
    """How a field's annotation is written: "int", "tuple[str, ...]"."""
    if isinstance(annotation, str):
        return annotation
    return annotation.__name__ if type(annotation) is type else str(annotation)


def kind_of(name: str) -> Kind | None:
    """The declared type of a parameter or family member; None if there is no such name."""
    declared = find(name) or family_of(name)
    return declared.kind if declared is not None else None


def renamed(name: str, prefix: tuple[str, str] | None) -> str:
    """The parameter for a field: with the other prefix where there is such a parameter."""
    if prefix is None or not name.startswith(prefix[0]):
        return name
    other = prefix[1] + name.removeprefix(prefix[0])
    for old, new in (("", ""), *LMTP_WORDS):
        candidate = other.replace(old, new, 1) if old else other
        if find(candidate) is not None:
            return candidate
    return name
