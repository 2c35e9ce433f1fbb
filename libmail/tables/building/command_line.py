"""The command line of postmap and postalias: options, checks, and the exit status."""

from __future__ import annotations

import gc
import getopt
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import cast

from libmail.config import Config, ConfigError, open_config
from libmail.log import LOG, Fatal
from libmail.log.setup import open_log
from libmail.tables.building.maintenance import (
    add,
    build,
    delete,
    list_entries,
    query,
)
from libmail.tables.building.message_keys import BODY, HEADER, message_keys
from libmail.tables.building.source import Dialect, Target
from libmail.tables.file_values import decoded, encoded
from libmail.tables.registry import open_with, split_spec
from libmail.tables.table import Duplicates, Table, TableError, TableOptions
from libmail.text.mistakes import option_mistake
from libmail.text.printable import complain

__all__ = ["Program", "run"]

_BATCH = 1 << 16  # octets of standard input that are looked at together


@dataclass(frozen=True, slots=True)
class Program:
    """One of the two programs.  letters: its options for getopt; usage: behind its name."""

    name: str
    letters: str
    usage: str
    dialect: Dialect


@dataclass(slots=True)
class _Request:
    """What the command line asks for."""

    flags: set[str] = field(default_factory=set)
    query: str = ""
    delete: str = ""
    directory: str | None = None
    null: bool = True
    verbose: int = 0
    tables: Sequence[str] = ()


def run(program: Program, arguments: Sequence[str]) -> int:
    """Run the program; return its exit status."""
    # A short-lived program with many small objects, none of them in cycles.
    gc.disable()
    # Until main.cf says where the log is, mistakes only go to standard error.
    LOG.open(lambda severity, head, text: None, program.name, echo=True)
    try:
        request = _parse(program, arguments)
        config = open_config(request.directory, process_name=program.name)
        open_log(config, program.name, echo=True, alone=False)
        LOG.verbose = request.verbose
        return _execute(program, request, config)
    except getopt.GetoptError as error:
        complain(program.name, option_mistake(error))
        return _fatal(f"usage: {program.name} {program.usage}")
    except (TableError, ConfigError, Fatal) as error:
        return _fatal(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        gc.enable()


def _fatal(text: str) -> int:
    LOG.fatal(text)
    return 1


def _parse(program: Program, arguments: Sequence[str]) -> _Request:
    options, rest = getopt.getopt(list(arguments), program.letters)
    request = _Request(tables=rest)
    for option, value in options:
        letter = option[1]
        if letter in "sqd":
            _only_one(letter, request.flags)
        if letter == "q":
            request.query = value
        elif letter == "d":
            request.delete = value
        elif letter == "c":
            request.directory = value
        elif letter in "nN":
            request.null = letter == "N"
        elif letter == "v":
            request.verbose += 1
        request.flags.add(letter)
    _check(program, request)
    return request


def _only_one(letter: str, before: Set[str]) -> None:
    if before & ({"q", "d"} if letter == "s" else {"s", "q", "d"}):
        which = "-s or -q or -d" if letter == "s" else "-s -q or -d"
        raise TableError(f"specify only one of {which}")


def _check(program: Program, request: _Request) -> None:
    usage = TableError(f"usage: {program.name} {program.usage}")
    flags = request.flags
    if flags & {"b", "h", "m"} and request.query != "-":
        raise TableError('specify -b -h or -m only with "-q -"')
    if "m" in flags and not flags & {"b", "h"}:
        LOG.warning("ignoring -m option without -b or -h")
    if not request.tables and "s" not in flags:
        raise usage


def _execute(program: Program, request: _Request, config: Config) -> int:
    targets = [_target(request, config, text) for text in request.tables]
    separator = program.dialect.separator
    flags = request.flags
    if "s" in flags:
        for target in targets[:1]:
            _show(_decoded(list_entries(target), request, target), request, separator)
        return 0 if targets else 1
    if "d" in flags:
        keys = list(_stdin_lines()) if request.delete == "-" else [request.delete]
        deleted = [delete(target, keys) for target in targets]
        return 0 if any(deleted) else 1
    if "q" in flags:
        return _query(request, targets, separator)
    for target in targets:
        if "i" in flags:
            add(target, program.dialect, _stdin_lines())
        else:
            build(target, program.dialect)
    return 0


def _target(request: _Request, config: Config, text: str) -> Target:
    flags = request.flags
    kind, colon, name = text.partition(":")
    if not colon:
        kind, name = config.text("default_database_type"), text
    checks_message = bool(flags & {"b", "h"}) and "U" not in flags
    utf8 = config.bool("smtputf8_enable") and "u" not in flags and not checks_message
    reading, files = flags & {"s", "q", "d"}, "F" in flags
    duplicates: Duplicates = "replace" if "r" in flags else "ignore" if "w" in flags else "warn"
    if reading:
        split_spec(f"{kind}:{name}")
    return Target(
        kind or config.text("default_database_type"),
        name,
        TableOptions(
            fold="f" not in flags,
            utf8=utf8,
            strict=True,
            map_size=config.int("lmdb_map_size"),
            config=config,
            duplicates=duplicates,
            files=encoded if files else None,
        ),
        null=request.null and (kind != "cdb" or "N" in flags),
        duplicates=duplicates,
        source_mode="p" not in flags,
        source_owner="o" not in flags,
        convert=encoded if files and not reading else None,
    )


def _decode(target: Target, key: str, value: str) -> str:
    try:
        return decoded(value).decode("utf-8", "surrogateescape")
    except TableError as error:
        LOG.warning(f"table {target.spec}: key {key}: {error}")
        raise TableError(f"table {target.spec}: query error") from None


def _decoded(
    entries: Iterable[tuple[str, str]], request: _Request, target: Target
) -> Iterator[tuple[str, str]]:
    files = "F" in request.flags
    for key, value in entries:
        yield key, _decode(target, key, value) if files else value


def _show(entries: Iterable[tuple[str, str]], request: _Request, separator: str) -> bool:
    """Print entries, a line each; tell whether there was any."""
    as_json = "j" in request.flags
    shown = False
    for key, value in entries:
        text = json.dumps({key: value}, ensure_ascii=False) if as_json else key + separator + value
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
        shown = True
    sys.stdout.buffer.flush()
    return shown


def _stdin_lines() -> Iterator[str]:
    for lines in _stdin_batches():
        yield from lines


def _stdin_batches() -> Iterator[list[str]]:
    """Lines as they come: whoever writes one and waits for the answer gets it."""
    rest, read = b"", cast(io.BufferedReader, sys.stdin.buffer).read1
    while data := read(_BATCH):
        *lines, rest = (rest + data).split(b"\n")
        yield [_line(line) for line in lines]
    if rest:
        yield [_line(rest)]


def _line(data: bytes) -> str:
    line = data.rstrip(b"\r")
    return line.decode() if line.isascii() else line.decode("utf-8", "surrogateescape")


def _query(request: _Request, targets: Sequence[Target], separator: str) -> int:
    # Tables open when they are asked for the first time: an early answer needs no later table.
    tables: dict[str, Table] = {}
    if request.query != "-":
        answer = _first(request, targets, tables, [request.query])[0]
        if answer is None:
            return 1
        if "j" in request.flags:
            _show([(request.query, answer)], request, separator)
        else:
            _show([("", answer)], request, "")
        return 0
    shown = False
    for keys in _keys(request):
        answers = zip(keys, _first(request, targets, tables, keys), strict=True)
        found = ((key, value) for key, value in answers if value is not None)
        shown = _show(found, request, separator) or shown
    return 0 if shown else 1


def _keys(request: _Request) -> Iterator[list[str]]:
    """Give the keys on standard input: its lines, or parts of the message that it is."""
    flags = request.flags
    if not flags & {"b", "h"}:
        yield from _stdin_batches()
        return
    wanted = {kind for letter, kind in (("h", HEADER), ("b", BODY)) if letter in flags}
    for kind, key in message_keys(_stdin_lines(), mime="m" in flags):
        if kind in wanted:
            yield [key]


def _first(
    request: _Request, targets: Sequence[Target], tables: dict[str, Table], keys: Sequence[str]
) -> list[str | None]:
    """The value of each key in the first table that has it."""
    answers: dict[str, str] = {}
    for target in targets:
        left = [key for key in keys if key not in answers] if answers else keys
        if not left:
            break
        table = tables.get(target.spec)
        if table is None:
            table = tables[target.spec] = open_with(target.spec, target.options)
        for key, value in zip(left, query(target, table, left), strict=True):
            if value is not None:
                answers[key] = _decode(target, key, value) if "F" in request.flags else value
    return [answers.get(key) for key in keys]
