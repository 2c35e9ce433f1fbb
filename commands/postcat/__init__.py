"""postcat(1): print the contents of queue files: ours, and those of an original Postfix.

entries: what ours hold, as records of the original; originals: the records themselves.
"""

import getopt
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from commands.postcat.entries import Entry, Part, entries
from commands.postcat.originals import original_entries
from libmail.config import ConfigError, open_config
from libmail.ipc.messages import QueueId
from libmail.queue.directory import MESSAGE_QUEUES, QueueDirectory
from libmail.queue.file import QueueFile, QueueFileCorrupt
from libmail.queue.foreign_records import ForeignFileError
from libmail.queue.ids import is_queue_id
from libmail.text.mistakes import option_mistake
from libmail.text.printable import complain, without_controls

__all__ = ["main"]

_USAGE: Final = (
    "usage: postcat [-b (body text)] [-c config_dir] [-d (decimal record type)] [-e (envelope "
    "records)] [-h (header text)] [-q (access queue)] [-v] [file(s)...]"
)
_QUEUES: Final = (*MESSAGE_QUEUES, "saved")


class Failure(Exception):
    """The text after "fatal: "."""


@dataclass(frozen=True, slots=True)
class PostcatParams:
    """Parameters of postcat(1)."""

    hash_queue_depth: int
    hash_queue_names: tuple[str, ...]
    queue_directory: str


@dataclass(slots=True)
class Options:
    """What to print. parts: nothing chosen means all. start: offset of the first record.

    verbose: records that only matter to the file itself, and what records of content are.
    """

    parts: set[Part] = field(default_factory=set)
    offsets: bool = False
    types: bool = False
    queue: bool = False
    raw: bool = False
    verbose: bool = False
    start: int = 0
    config_directory: str | None = None
    files: list[str] = field(default_factory=list)


_PARTS: Final = {"b": Part.BODY, "e": Part.ENVELOPE, "h": Part.HEADER}


def _parse(argv: Sequence[str]) -> Options:
    try:
        pairs, files = getopt.gnu_getopt(list(argv), "bc:dehoqrs:v")
    except getopt.GetoptError as err:
        complain("postcat", option_mistake(err))
        raise Failure(_USAGE) from None
    options = Options(files=files)
    for option, value in pairs:
        _set(options, option[1], value)
    if not options.parts:
        options.parts = {Part.BODY, Part.ENVELOPE, Part.HEADER}
    return options


def _set(options: Options, letter: str, value: str) -> None:
    if letter in _PARTS:
        options.parts.add(_PARTS[letter])
    elif letter == "c":
        options.config_directory = value
    elif letter == "s":
        if not (value.isascii() and value.isdecimal() and len(value) < 19):
            raise Failure(f"bad offset: {value}")
        options.start = int(value)
    options.types |= letter == "d"
    options.offsets |= letter == "o"
    options.queue |= letter == "q"
    options.raw |= letter == "r"
    options.verbose |= letter == "v"


def _print(found: Iterator[Entry], options: Options, out: BinaryIO) -> None:
    """Content is written as it is; with offsets or types it is printed line by line.

    The envelope comes without control characters.
    """
    for entry in found:
        if entry.part not in options.parts or entry.offset < options.start:
            continue
        if entry.inner and not options.verbose:
            continue
        prefix = f"{entry.offset:9d} " if options.offsets and entry.kind else ""
        if options.types and entry.kind:
            prefix += f"{ord(entry.kind):3d} "
        if options.verbose and entry.part is not Part.ENVELOPE:
            prefix += "regular_text: " if entry.whole_line else "unterminated_text: "
        text = entry.text
        if entry.part is Part.ENVELOPE:
            shown = without_controls(text.decode("utf-8", "surrogateescape"))
            text = shown.encode("utf-8", "surrogateescape")
        out.write(prefix.encode() + text)
        if entry.whole_line:
            out.write(b"\n")


def _print_file(fd: int, name: str, options: Options, out: BinaryIO) -> None:
    """Print a file of either kind. Raises OSError."""
    lines = options.offsets or options.types or options.verbose
    try:
        with QueueFile(name, fd=os.dup(fd)) as file:
            _print(entries(file, name, by_line=lines), options, out)
    except QueueFileCorrupt as ours:
        try:
            found = original_entries(fd, name, follow=not options.raw, by_line=options.offsets)
            _print(found, options, out)
        except ForeignFileError as theirs:
            if os.fstat(fd).st_size == 0:
                return
            problem = "input is not a valid queue file"
            why = f" ({ours}; {theirs})" if options.verbose else ""
            complain("postcat", f"warning: {name}: {problem}{why}")


def _path(directory: QueueDirectory, name: str) -> str:
    """The path of a queue file by its id. Raises Failure."""
    if not name.isalnum():
        raise Failure(f"bad mail queue ID: {name}")
    if is_queue_id(name):
        queue_id = QueueId(name)
        queue_name = directory.find(queue_id, _QUEUES)
        if queue_name is not None:
            return directory.path(queue_name, queue_id)
    raise Failure(f"open queue file {name}: No such file or directory")


def _standard_input() -> int:
    """A descriptor of a file with what is on standard input."""
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        return os.dup(copy.fileno())


def _run(options: Options, out: BinaryIO) -> None:
    config = open_config(options.config_directory, process_name="postcat")
    params = config.load(PostcatParams)
    directory = QueueDirectory(frozenset(params.hash_queue_names), params.hash_queue_depth)
    if options.queue:
        os.chdir(params.queue_directory)
    if not options.files:
        _print_and_close(_standard_input(), "stdin", options, out)
    for name in options.files:
        path = _path(directory, name) if options.queue else name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            raise Failure(f"open {path}: {err.strerror}") from err
        _print_and_close(fd, path, options, out)


def _print_and_close(fd: int, name: str, options: Options, out: BinaryIO) -> None:
    try:
        _print_file(fd, name, options, out)
    except BrokenPipeError:
        raise
    except OSError as err:
        raise Failure(f"read {name}: {err.strerror}") from err
    finally:
        os.close(fd)


def main(argv: Sequence[str]) -> int:
    """argv: without the program name."""
    try:
        _run(_parse(argv), sys.stdout.buffer)
        sys.stdout.flush()
    except (Failure, ConfigError) as err:
        complain("postcat", f"fatal: {err}")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing is to be flushed at exit
        return 1
    return 0
