"""master.cf as postconf shows it: entries (-M), fields (-F), `-o` parameters (-P).

Entries are kept as written (`-` stays `-`), unlike libmail.config.master_cf, which fills in what
master uses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from commands.postconf.report import INDENT, LINE_LIMIT, fold_words, squeeze, warn
from libmail.config import ConfigError
from libmail.config.main_cf import SPACES, logical_lines, read_text, split_name_value
from libmail.config.master_cf import COLUMNS, SERVICE_TYPES, options_end, split_words, ungroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from libmail.config import Config

__all__ = [
    "MasterLine",
    "field_lines",
    "parameter_lines",
    "parse_entry",
    "read_entries",
    "service_lines",
    "split_pattern",
]  # fmt: skip

WIDTHS: Final = (10, 5, 7, 7, 7, 7, 7)
FLAGS: Final = (2, 3, 4)


@dataclass(frozen=True, slots=True)
class MasterLine:
    """One entry. fields: the eight columns. args: behind them, `-o` apart from its value,
    groups without braces; options among them in written order."""

    fields: tuple[str, ...]
    args: tuple[str, ...] = field(default=())

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
        return replace(self, args=(*args, *self.args[end:]))

    def expanded(self, config: Config) -> MasterLine:
        """The entry with the values of its options expanded."""
        scope = config.override(tuple(self.options().items()))
        entry = self
        for name, value in self.options().items():
            entry = entry.with_option(name, scope.expand(value))
        return entry

    def command_text(self) -> str:
        """The command and its arguments on one line."""
        return " ".join([self.fields[7], *(item for item, _ in self._items())])

    def text(self, fold: bool) -> str:
        """The entry in columns; folded: each `-o` on a line of its own."""
        columns = [f"{word:<{width}}" for word, width in zip(self.fields[:7], WIDTHS, strict=True)]
        line = " ".join([*columns, self.fields[7]])
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


def parse_entry(content: str) -> MasterLine:
    """An entry from its text. Raises ValueError with what is wrong."""
    words = split_words(content)
    if len(words) < len(COLUMNS):
        raise ValueError("bad field count")
    line = MasterLine(tuple(words[:8]), _arguments(words[8:]))
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
    plain = [_ungrouped(word) for word in words]
    end = options_end(plain)
    args: list[str] = []
    for word in plain[:end]:
        if args[-1:] == ["-o"]:
            args.append(_tidy_option(word))
        elif word.startswith("-o") and word != "-o":
            args += ["-o", _tidy_option(word.removeprefix("-o"))]
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
    except ValueError:
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
            entries.append(parse_entry(content.strip(SPACES)))
        except ValueError as error:
            raise ConfigError(f"file {path}: line {number}: {error}") from None
    return tuple(entries)


def split_pattern(text: str, parts: int, option: str) -> list[str]:
    """The parts of SERVICE/TYPE/..., missing ones "*". Raises ConfigError if there are more."""
    words = text.split("/", parts - 1) if parts == 3 else text.split("/")
    if len(words) > parts:
        names = ["service_name", "type", "field"][:parts]
        raise ConfigError(f"-{option} option requires {names[0]}[/{names[1]}]")
    return words + ["*"] * (parts - len(words))


def matches(entry: MasterLine, name: str, kind: str) -> bool:
    """Whether the entry has that name and type; "*" is any."""
    return name in ("*", entry.fields[0]) and kind in ("*", entry.fields[1])


def service_lines(
    entries: Sequence[MasterLine],
    patterns: Sequence[str],
    *,
    fold: bool,
    expander: Config | None,
) -> list[str]:
    """-M: the entries that one of the patterns names (all without patterns); expander: for -x."""
    wanted = [(text, split_pattern(text, 2, "M")) for text in patterns]
    _warn_unmatched(
        text for text, (name, kind) in wanted if not any(matches(e, name, kind) for e in entries)
    )
    return [
        (entry if expander is None else entry.expanded(expander)).text(fold)
        for entry in entries
        if not wanted or any(matches(entry, name, kind) for _, (name, kind) in wanted)
    ]


def field_lines(
    entries: Sequence[MasterLine], patterns: Sequence[str], *, fold: bool, show: str
) -> list[str]:
    """-F: SERVICE/TYPE/FIELD = value. show: "both", "names" (-H) or "values" (-h)."""
    wanted = [(text, split_pattern(text, 3, "F")) for text in patterns or ["*"]]
    for _, (_, _, column) in wanted:
        if column not in ("*", *COLUMNS):
            raise ConfigError(f'invalid service attribute name: "{column}"')
    used: set[str] = set()
    lines: list[str] = []
    for entry in entries:
        for position, column in enumerate(COLUMNS):
            hits = [
                text
                for text, (name, kind, wish) in wanted
                if matches(entry, name, kind) and wish in ("*", column)
            ]
            if hits:
                used.update(hits)
                value = entry.command_text() if position == 7 else entry.fields[position]
                lines.append(_shown(f"{entry.key}/{column}", value, fold, show))
    _warn_unmatched(text for text, _ in wanted if text not in used and patterns)
    return lines


def parameter_lines(
    entries: Sequence[MasterLine],
    patterns: Sequence[str],
    *,
    fold: bool,
    show: str,
    expander: Config | None,
) -> list[str]:
    """-P: SERVICE/TYPE/PARAMETER = value, sorted by name; expander: for -x."""
    wanted = [(text, split_pattern(text, 3, "P")) for text in patterns or ["*"]]
    used: set[str] = set()
    lines: list[str] = []
    for entry in entries:
        options = entry.options()
        scope = expander.override(tuple(options.items())) if expander is not None else None
        for name in sorted(options):
            hits = [
                text
                for text, (service, kind, wish) in wanted
                if matches(entry, service, kind) and wish in ("*", name)
            ]
            if hits:
                used.update(hits)
                value = scope.expand(options[name]) if scope is not None else options[name]
                lines.append(_shown(f"{entry.key}/{name}", squeeze(value), fold, show))
    _warn_unmatched(text for text, _ in wanted if text not in used and patterns)
    return lines


def _warn_unmatched(texts: Iterator[str]) -> None:
    for text in texts:
        warn(f'unmatched request: "{text}"')


def _shown(name: str, value: str, fold: bool, show: str) -> str:
    if show == "names":
        return name
    text = value if show == "values" else f"{name} = {value}".rstrip(" ")
    return fold_words(text) if fold else text
