"""qshape(1): how the mail in the queue is spread over domains and ages.

Reads: queue files. For root and mail_owner, who may.
"""

import getopt
import os
import stat
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TextIO

from libmail.config import ConfigError, open_config
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import QueueFile, QueueFileCorrupt
from libmail.text.printable import complain

__all__ = ["Ages", "Shape", "main"]

_USAGE: Final = """\
Usage: qshape [ -s ] [ -p ] [ -m <min_subdomains> ] [ -l ]
\t[ -b <bucket_count> ] [ -t <bucket_time> ] [ -w <terminal_width> ]
\t[ -N <batch_msg_count> ] [ -n <batch_top_domains> ]
\t[ -c <config_directory> ] [ <queue_name> ... ]
-s counts messages by the domain of the sender, not recipients by theirs.
-p adds parent domains, such as .example.com, with at least -m (5) subdomains.
-b, -t: number of columns (10), minutes of the first (5); each reaches twice as far
as the one before it, with -l by -t minutes farther.
-w: columns of the output (80, or more). -N, -n: on a terminal, show the first -n (20)
lines after every -N (1000) messages.
Without queue names: incoming and active.
"""
_EX_USAGE: Final = 255
_WIDTH: Final = 80
_MIN_NAME: Final = 18
_MAX_BUCKETS: Final = 100
_CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. top: lines on a terminal; batch: messages between two showings."""

    senders: bool = False
    parents: bool = False
    min_subdomains: int = 5
    linear: bool = False
    buckets: int = 10
    minutes: float = 5.0
    width: int = _WIDTH
    batch: int = 1000
    top: int = 20
    config_directory: str | None = None
    queues: tuple[str, ...] = ("incoming", "active")


class Ages:
    """The columns: upper limits in minutes; the last column has none."""

    def __init__(self, buckets: int, minutes: float, *, linear: bool) -> None:
        steps = range(1, buckets)
        self.limits = [minutes * (step if linear else 2 ** (step - 1)) for step in steps]
        last = self.limits[-1] if self.limits else 0
        self.labels = [*(f"{limit:g}" for limit in self.limits), f"{last:g}+"]

    def column(self, seconds: float) -> int:
        """Where an age belongs."""
        minutes = seconds / 60
        return next(
            (at for at, limit in enumerate(self.limits) if minutes < limit), len(self.limits)
        )


class Shape:
    """Counts by domain and column."""

    def __init__(self, ages: Ages) -> None:
        self._ages = ages
        self._counts: dict[str, Counter[int]] = defaultdict(Counter)

    def add(self, domain: str, column: int) -> None:
        """One more message or recipient."""
        self._counts[domain][column] += 1

    def _with_parents(self, min_subdomains: int) -> dict[str, Counter[int]]:
        parents: dict[str, Counter[int]] = defaultdict(Counter)
        subdomains = Counter[str]()
        for domain, counts in self._counts.items():
            for parent in _parents(domain):
                parents[parent].update(counts)
                subdomains[parent] += 1
        shown = {
            one: parents[one] for one, number in subdomains.items() if number >= min_subdomains
        }
        return self._counts | shown

    def lines(self, options: Options) -> Iterator[str]:
        """The table, the largest counts first."""
        labels = ["T", *self._ages.labels]
        total = sum(self._counts.values(), Counter[int]())
        rows = [self._row("TOTAL", total)]
        found = self._counts
        if options.parents:
            found = self._with_parents(options.min_subdomains)
        for name in sorted(found, key=lambda one: (-found[one].total(), len(one), one)):
            rows.append(self._row(name, found[name]))
        widths = [
            max(2, len(label), len(str(count)))
            for label, count in zip(labels, rows[0][1], strict=True)
        ]
        name_width = max(options.width, _WIDTH) - sum(widths) - len(widths)
        name_width = max(name_width, _MIN_NAME)
        cells: list[tuple[str, Sequence[object]]] = [("", labels), *rows]
        for name, values in cells:
            columns = (f" {value!s:>{width}}" for value, width in zip(values, widths, strict=True))
            yield f"{_shortened(name, name_width):>{name_width}}{''.join(columns)}"

    def _row(self, name: str, counts: Counter[int]) -> tuple[str, list[int]]:
        return name, [counts.total(), *(counts[at] for at in range(len(self._ages.labels)))]


def _parents(domain: str) -> Iterator[str]:
    """ ".b.c" and so on of "a.b.c", but no top-level domain; none of an address literal."""
    labels = domain.split(".")
    if not domain.startswith("["):
        for at in range(1, len(labels) - 1):
            yield "." + ".".join(labels[at:])


def _shortened(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    mark = ".+" if name.startswith(".") else "+"
    return mark + name[len(name) - width + len(mark) :]


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower() if address else "MAILER-DAEMON"


def _take(shape: Shape, column: Callable[[float], int], path: str, *, senders: bool) -> None:
    """Add a message. column: of an arrival, of the epoch. Raises OSError, QueueFileCorrupt."""
    with QueueFile(path) as file:
        at = column(file.preamble.arrival)
        if senders:
            shape.add(_domain(file.envelope().sender), at)
            return
        for recipient in file.recipients():
            shape.add(_domain(recipient.address), at)


def _parse(argv: Sequence[str]) -> Options:
    """Raises getopt.GetoptError, ValueError."""
    pairs, queues = getopt.getopt(list(argv), "spm:lb:t:w:N:n:c:h")
    given = dict(pairs)
    if "-h" in given:
        raise getopt.GetoptError("")
    usual = Options()
    if not 0 <= int(given.get("-b", 0)) <= _MAX_BUCKETS:
        raise ValueError(f"bad bucket count: {given['-b']}")
    return Options(
        senders="-s" in given,
        parents="-p" in given,
        min_subdomains=int(given.get("-m", usual.min_subdomains)),
        linear="-l" in given,
        buckets=int(given.get("-b", 0)) or usual.buckets,
        minutes=float(given.get("-t", 0)) or usual.minutes,
        width=int(given.get("-w", usual.width)),
        batch=int(given.get("-N", usual.batch)),
        top=int(given.get("-n", usual.top)),
        config_directory=given.get("-c"),
        queues=tuple(queues) or usual.queues,
    )


def _show(shape: Shape, options: Options, out: TextIO) -> None:
    lines = list(shape.lines(options))
    if out.isatty():
        out.write(_CLEAR)
        del lines[options.top + 1 :]
    for line in lines:
        out.write(line.encode("utf-8", "surrogateescape").decode("utf-8", "replace") + "\n")
    out.flush()


def _run(options: Options, out: TextIO) -> None:
    config = open_config(options.config_directory, process_name="qshape")
    ages = Ages(options.buckets, options.minutes, linear=options.linear)
    shape = Shape(ages)
    now = time.time()

    def column(arrival: float) -> int:
        return ages.column(now - arrival)

    for seen, path in enumerate(_files(config.text("queue_directory"), options.queues), 1):
        try:
            _take(shape, column, path, senders=options.senders)
        except FileNotFoundError:
            continue  # it has left the queue meanwhile
        except (OSError, QueueFileCorrupt) as err:
            complain("qshape", f"warning: {path}: {err}")
        if out.isatty() and options.batch > 0 and seen % options.batch == 0:
            _show(shape, options, out)
    _show(shape, options, out)


def _files(top: str, queues: Sequence[str]) -> Iterator[str]:
    """Paths of the complete files of the queues."""
    for name in queues:
        path = os.path.join(top, name)
        try:
            os.stat(path)
        except OSError as err:
            sys.stderr.write(f"Can't stat {name}: {err.strerror}\n")
            continue
        for entry in QueueDirectory(frozenset()).scan(path):
            with suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mode & stat.S_IXUSR:
                    yield entry.path


def main(argv: Sequence[str]) -> int:
    """argv: without the program name."""
    try:
        _run(_parse(argv), sys.stdout)
    except (getopt.GetoptError, ValueError) as err:
        sys.stderr.write(f"qshape: {err}\n{_USAGE}" if str(err) else _USAGE)
        return _EX_USAGE
    except ConfigError as err:
        complain("qshape", f"fatal: {err}")
        return 1
    except OSError as err:
        complain("qshape", f"fatal: {err.filename}: {err.strerror}")
        return 1
    return 0
