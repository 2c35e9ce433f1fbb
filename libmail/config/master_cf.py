"""master.cf: the services that master runs, master(5).

Eight columns and the command's arguments; a line that begins with white space continues the one
before. Arguments may be grouped with `{ }`, which keeps white space in them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from libmail.config.errors import ConfigError
from libmail.config.main_cf import SPACES, logical_lines, read_text, split_name_value
from libmail.config.master_words import (
    SERVICE_TYPES,
    options_end,
    split_options,
    split_words,
    ungroup,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ServiceEntry", "parse_master_cf", "read_master_cf"]

MAX_NUMBER: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One service. Defaults are filled in, see each field.

    name: port, service name, host:port or [v6]:port for type inet, else a path below private/
    or public/. wakeup: seconds, 0 is never; wakeup_if_used: only once something used it ("5?").
    maxproc: None is default_process_limit, 0 is no limit. args: without the `-o` options, which
    are in overrides. line: of the entry's beginning.
    """

    name: str
    type: str
    private: bool
    unprivileged: bool
    chroot: bool
    wakeup: int
    wakeup_if_used: bool
    maxproc: int | None
    command: str
    args: tuple[str, ...]
    overrides: tuple[tuple[str, str], ...]
    file: str
    line: int


class _Trouble(Exception):
    """What is wrong with an entry, without its place."""


def read_master_cf(
    path: str, warn: Callable[[str], None] | None = None
) -> tuple[ServiceEntry, ...]:
    """The services of a master.cf (a path, or the directory it is in), in file order.

    Of entries with the same name and type the last one counts, and warn is told.
    Raises ConfigError ("FILE: line N: what is wrong").
    """
    if os.path.isdir(path):
        path = os.path.join(path, "master.cf")
    return parse_master_cf(read_text(path), path, warn)


def parse_master_cf(
    text: str, file: str, warn: Callable[[str], None] | None = None
) -> tuple[ServiceEntry, ...]:
    """As read_master_cf, for text."""
    entries: dict[tuple[str, str], ServiceEntry] = {}
    for line, content in logical_lines(text):
        if content[0] in SPACES:
            if warn is not None:
                warn(f'{file}: logical line must not start with whitespace: "{content}"')
            continue
        try:
            entry = _entry(content, file, line)
        except _Trouble as error:
            raise ConfigError(f"{file}: line {line}: {error}") from None
        key = entry.name, entry.type
        if entries.pop(key, None) is not None and warn is not None:
            place = "private/" if entry.private else "public/" if entry.type != "inet" else ""
            warn(
                f'duplicate master.cf entry for service "{entry.name}" '
                f"({place}{entry.name}) -- using the last entry"
            )
        entries[key] = entry
    return tuple(entries.values())


def _entry(content: str, file: str, line: int) -> ServiceEntry:
    words = split_words(content)
    for position, column in enumerate(FIELD_NAMES):
        if position >= len(words):
            raise _Trouble(f'missing "{column}" field')
    name, kind, private, unprivileged, chroot, wakeup, maxproc, command = words[:8]
    if kind not in SERVICE_TYPES:
        raise _Trouble(f"bad transport type: {kind}")
    if "-" in (name, command):
        column = "service name" if name == "-" else "command"
        raise _Trouble(f'field "{column}" has no default value')
    is_private = _flag("private", private, True)
    if kind == "inet" and is_private:
        raise _Trouble("inet service cannot be private")
    seconds, if_used = _wakeup(wakeup)
    args, overrides = _arguments(words[8:])
    return ServiceEntry(
        name=name,
        type=kind,
        private=is_private,
        unprivileged=_flag("unprivileged", unprivileged, True),
        chroot=_flag("chroot", chroot, False),
        wakeup=seconds,
        wakeup_if_used=if_used,
        maxproc=None if maxproc == "-" else _number("max_proc", maxproc, maxproc),
        command=command,
        args=args,
        overrides=overrides,
        file=file,
        line=line,
    )


FIELD_NAMES: Final = (
    "service name", "transport type", "private", "unprivileged", "chroot", "wakeup_time",
    "max_proc", "command",
)  # fmt: skip


def _flag(column: str, word: str, default: bool) -> bool:
    if word == "-":
        return default
    if word not in ("y", "n"):
        raise _Trouble(f'field "{column}": bad value: "{word}"')
    return word == "y"


def _wakeup(word: str) -> tuple[int, bool]:
    """(seconds, only if used) of "-", "300" or "300?"."""
    if word == "-":
        return 0, False
    digits = word.removesuffix("?")
    return _number("wakeup_time", digits, word), digits != word


def _number(column: str, digits: str, word: str) -> int:
    ascii_digits = digits.isascii() and digits.isdigit() and len(digits) <= 10
    if not ascii_digits or int(digits) > MAX_NUMBER:
        raise _Trouble(f'field "{column}": bad value: "{word}"')
    return int(digits)


def _arguments(words: list[str]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """(arguments, `-o` options as pairs)."""
    try:
        plain = split_options([ungroup(word) for word in words])
    except ValueError as error:
        raise _Trouble(error) from None
    end = options_end(plain)
    args: list[str] = []
    overrides: list[tuple[str, str]] = []
    options = iter(plain[:end])
    for word in options:
        if word != "-o":
            args.append(word)
            continue
        option = next(options, "")
        if not option:
            raise _Trouble('option "-o" requires "name=value"')
        try:
            overrides.append(split_name_value(option))
        except ValueError as error:
            raise _Trouble(f'-o option "{option}": {error}') from None
    return (*args, *plain[end:]), tuple(overrides)
