"""master.cf as postconf shows it: entries (-M), fields (-F), `-o` parameters (-P).

Entries are kept as written (`-` stays `-`), unlike libmail.config.master_cf, which fills in what
master uses.
"""

from __future__ import annotations

import os
from itertools import pairwise

from commands.postconf.report import INDENT, LINE_LIMIT, fold_words, json_line, squeeze, warn
from libmail.config.errors import ConfigError
from libmail.config.main_cf import SPACES, logical_lines, read_text, split_name_value
from libmail.config.master_words import (
    COLUMNS,
    SERVICE_TYPES,
    options_end,
    split_options,
    split_words,
    ungroup,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from libmail.config import Config

__all__ = [
    "READ_ONLY",
    "MasterLine",
    "field_lines",
    "parameter_lines",
    "parse_entry",
    "read_entries",
    "service_lines",
    "split_pattern",
]  # fmt: skip

COLUMN_ENDS = (11, 17, 25, 33, 41, 49, 57)
FLAGS = (2, 3, 4)
READ_ONLY = ("process_id", "process_name", "service_name")


class MasterLine:
    """One entry. fields: the eight columns. args: behind them, `-o` apart from its value,
    groups without braces; options among them in written order. line: where it begins, 0 if
    it is in no file. Immutable."""

    __slots__ = ("args", "fields", "line")

    def __init__(self, fields: tuple[str, ...], args: tuple[str, ...] = (), line: int = 0) -> None:
        self.fields = fields
        self.args = args
        self.line = line

    @property
    def key(self) -> str:
        """SERVICE/TYPE."""
        return f"{self.fields[0]}/{self.fields[1]}"

    def options(self) -> dict[str, str]:
        """The `-o name=value` settings, by name."""
        found: dict[str, str] = {}
        options = self.args[: options_end(self.args)]
        for before, arg in pairwise(options):
            if before == "-o" and "=" in arg:
                name, _, value = arg.partition("=")
                found[name] = value
        return found

    def with_option(self, name: str, value: str | None) -> MasterLine:
        """The entry with the option changed or added, or (value None) without it."""
        args: list[str] = []
        done = False
        end = options_end(self.args)
        for arg in self.args[:end]:
            if args[-1:] == ["-o"] and arg.partition("=")[0] == name and "=" in arg:
                args.pop()
                if value is not None and not done:
                    args += ["-o", f"{name}={value}"]
                done = True
            else:
                args.append(arg)
        if value is not None and not done:
            args += ["-o", f"{name}={value}"]
        return MasterLine(self.fields, (*args, *self.args[end:]))

    def scope(self, config: Config) -> Config:
        """What `$name` means in this entry: its options count more than main.cf."""
        options = tuple(self.options().items())
        return config.override(options, service_name=self.fields[0], process_name=self.fields[7])

    def expanded(self, config: Config) -> MasterLine:
        """The entry with the values of its options expanded."""
        scope = self.scope(config)
        entry = self
        for name, value in self.options().items():
            entry = entry.with_option(name, scope.expand(value))
        return entry

    def command_text(self, before: str = "", fold: bool = False) -> str:
        """The command and its arguments; folded: each `-o` on a line of its own."""
        line = before + self.fields[7]
        lines: list[str] = []
        after_option = False
        for item, is_option in self._items():
            too_long = len(line) + 1 + len(item) >= LINE_LIMIT
            if fold and (is_option or after_option or too_long):
                lines.append(line)
                line = INDENT + item
            else:
                line = f"{line} {item}"
            after_option = is_option
        return "\n".join([*lines, line])

    def text(self, fold: bool) -> str:
        """The entry in columns."""
        line = ""
        for word, column in zip(self.fields[:7], COLUMN_ENDS, strict=True):
            # After a long word, the later ones are back in their columns as soon as they can be.
            line = f"{line}{word} ".ljust(column)
        return self.command_text(line, fold)

    def _items(self) -> Iterator[tuple[str, bool]]:
        """(text, is it a `-o`) of each argument, a `-o` together with its value."""
        waiting = False
        end = options_end(self.args)
        for position, arg in enumerate(self.args):
            shown = f"{{{arg}}}" if any(space in arg for space in SPACES) or not arg else arg
            if waiting:
                yield f"-o {shown}", True
                waiting = False
            elif arg == "-o" and position < end:
                waiting = True
            else:
                yield shown, False
        if waiting:
            yield "-o", False


def parse_entry(content: str, number: int = 0) -> MasterLine:
    """An entry from its text. Raises ValueError with what is wrong."""
    words = split_words(content)
    if len(words) < len(COLUMNS):
        raise ValueError("bad field count")
    line = MasterLine(tuple(words[:8]), _arguments(words[8:]), number)
    for position, word in enumerate(line.fields):
        check_field(position, word, content)
    return line


def check_field(position: int, word: str, content: str) -> None:
    """Raise ConfigError if a column cannot have that value."""
    digits = word.removesuffix("?") if COLUMNS[position] == "wakeup" else word
    good = {
        "type": word in SERVICE_TYPES,
        "wakeup": word == "-" or (digits.isascii() and digits.isdigit()),
        "process_limit": word == "-" or (word.isascii() and word.isdigit()),
    }.get(COLUMNS[position], position not in FLAGS or word in ("-", "y", "n"))
    if not good:
        raise ConfigError(f'invalid {COLUMNS[position]} field "{word}" in "{content}"')


def _arguments(words: Sequence[str]) -> tuple[str, ...]:
    plain = split_options([_ungrouped(word) for word in words])
    end = options_end(plain)
    args: list[str] = []
    for word in plain[:end]:
        if args[-1:] == ["-o"]:
            args.append(_tidy_option(word))
        else:
            args.append(word)
    return (*args, *plain[end:])


def _ungrouped(word: str) -> str:
    try:
        return ungroup(word)
    except ValueError as error:
        warn(f"master.cf: {error}")
        plain = word.lstrip("{").rpartition("}")[0] or word.lstrip("{")
        return plain.strip(SPACES)


def _tidy_option(text: str) -> str:
    try:
        return "=".join(split_name_value(text))
    except ValueError as error:
        if any(space in text for space in SPACES):
            warn(f'master.cf: {error}: "{text}"')
        return text


def read_entries(directory: str) -> tuple[MasterLine, ...]:
    """All entries of DIRECTORY/master.cf in file order. Raises ConfigError."""
    path = os.path.join(directory, "master.cf")
    entries: list[MasterLine] = []
    for number, content in logical_lines(read_text(path)):
        if content[0] in SPACES:
            warn(f'{path}: logical line must not start with whitespace: "{content}"')
            continue
        try:
            entries.append(parse_entry(content.strip(SPACES), number))
        except ValueError as error:
            raise ConfigError(f"file {path}: line {number}: {error}") from None
    return tuple(entries)


PATTERNS = {
    "M": "service_name[/type]",
    "F": "service_name[/type[/field]]",
    "P": "service_name[/type[/parameter]]",
}


def split_pattern(text: str, option: str) -> list[str]:
    """The parts of SERVICE/TYPE/..., missing ones "*", for -M, -F or -P. Raises ConfigError."""
    parts = 2 if option == "M" else 3
    words = [word for word in text.split("/") if word]
    bad = text.startswith("/") or not 1 <= len(words) <= parts
    if bad or any("*" in word and word != "*" for word in words):
        raise ConfigError(f"-{option} option requires {PATTERNS[option]}")
    return words + ["*"] * (parts - len(words))


def matches(entry: MasterLine, name: str, kind: str) -> bool:
    """Whether the entry has that name and type; "*" is any."""
    return name in ("*", entry.fields[0]) and kind in ("*", entry.fields[1])


def service_lines(
    entries: Sequence[MasterLine],
    patterns: Sequence[str],
    *,
    fold: bool,
    show: str,
    expander: Config | None,
) -> list[str]:
    """-M: the entries that each pattern names (all without patterns); expander: for -x."""

    def lines_of(entry: MasterLine, _: str) -> Iterator[str]:
        shown = entry if expander is None else entry.expanded(expander)
        json = show == "json"
        yield json_line(entry.key, squeeze(shown.text(False))) if json else shown.text(fold)

    return _lines(entries, patterns, "M", lines_of)


def _lines(
    entries: Sequence[MasterLine],
    patterns: Sequence[str],
    option: str,
    lines_of: Callable[[MasterLine, str], Iterator[str]],
) -> list[str]:
    """What lines_of gives for each entry and each pattern that names it, with the last part of it.

    A pattern for which there is no line at all is complained about.
    """
    wanted = [(text, split_pattern(text, option)) for text in patterns or ["*"]]
    used: set[str] = set()
    lines: list[str] = []
    for entry in entries:
        for pattern, (name, kind, *rest) in wanted:
            if not matches(entry, name, kind):
                continue
            found = list(lines_of(entry, rest[0] if rest else ""))
            if found:
                used.add(pattern)
                lines += found
    for pattern in patterns:
        if pattern not in used:
            warn(f'unmatched request: "{pattern}"')
    return lines


def field_lines(
    entries: Sequence[MasterLine],
    patterns: Sequence[str],
    *,
    fold: bool,
    show: str,
    expander: Config | None,
) -> list[str]:
    """-F: SERVICE/TYPE/FIELD = value, for each pattern; expander: for -x.

    show: "both", "names" (-H), "values" (-h) or "json" (-j).
    """
    for pattern in patterns:
        column = split_pattern(pattern, "F")[2]
        if column not in ("*", *COLUMNS):
            raise ConfigError(f'invalid service attribute name: "{column}"')

    def lines_of(entry: MasterLine, column: str) -> Iterator[str]:
        shown = entry if expander is None else entry.expanded(expander)
        for one in COLUMNS if column == "*" else (column,):
            yield _field_line(shown, entry.key, one, fold, show)

    return _lines(entries, patterns, "F", lines_of)


def _field_line(entry: MasterLine, key: str, column: str, fold: bool, show: str) -> str:
    position = COLUMNS.index(column)
    if position < 7 or show in ("json", "names"):
        value = entry.fields[position] if position < 7 else entry.command_text()
        return _shown(f"{key}/{column}", value, fold, show)
    label = "" if show == "values" else f"{key}/{column} = "
    return entry.command_text(label, fold)


def parameter_lines(
    entries: Sequence[MasterLine],
    patterns: Sequence[str],
    *,
    fold: bool,
    show: str,
    expander: Config | None,
) -> list[str]:
    """-P: SERVICE/TYPE/PARAMETER = value, for each pattern, sorted by name; expander: for -x.

    show: as in field_lines.
    """

    def lines_of(entry: MasterLine, wanted: str) -> Iterator[str]:
        options = entry.options()
        scope = None if expander is None else entry.scope(expander)
        for name in sorted(options):
            if wanted in ("*", name) and name not in READ_ONLY:
                value = options[name] if scope is None else scope.expand(options[name])
                yield _shown(f"{entry.key}/{name}", squeeze(value), fold, show)

    return _lines(entries, patterns, "P", lines_of)


def _shown(name: str, value: str, fold: bool, show: str) -> str:
    if show == "names":
        return name
    if show == "json":
        return json_line(name, value)
    text = value if show == "values" else f"{name} = {value}".rstrip(" ")
    return fold_words(text) if fold else text
