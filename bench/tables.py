"""Tables: building and asking them with postmap(1), and a lookup inside a process.

Both sides get the same sources and keys; a time is the shortest of the rounds, in seconds.
"""

from __future__ import annotations

import os
import random
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from libmail.tables.registry import open_table
from libmail.tables.table import Table, lookup_now
from tests.system.harness import installation

LINES: Final = 1_000_000
PATTERNS: Final = 200
PATTERN_KEYS: Final = 20_000
LOOKUPS: Final = 20_000
POSTMAP: Final = "/usr/sbin/postmap"


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. prepare: writes what the command reads, and returns its arguments and
    standard input."""

    name: str
    title: str
    prepare: Callable[[Path, float], tuple[list[str], Path | None]]


def _source(folder: Path, scale: float) -> Path:
    """Unsorted lines, as address tables are."""
    path = folder / "table"
    if not path.exists():
        count = int(LINES * scale)
        numbers = list(range(count))
        random.Random(1).shuffle(numbers)
        with path.open("w") as file:
            file.writelines(f"user{n}@example.com mailbox{n}\n" for n in numbers)
    return path


def build(folder: Path, scale: float) -> tuple[list[str], Path | None]:
    path = _source(folder, scale)
    Path(f"{path}.lmdb").unlink(missing_ok=True)
    return [f"lmdb:{path}"], None


def ask(folder: Path, scale: float) -> tuple[list[str], Path | None]:
    keys = folder / "keys"
    if not keys.exists():
        lines = _source(folder, scale).read_text().splitlines()
        keys.write_text("".join(line.split(" ")[0] + "\n" for line in lines))
    return ["-q", "-", f"lmdb:{folder}/table"], keys


def ask_patterns(kind: str) -> Callable[[Path, float], tuple[list[str], Path | None]]:
    def prepare(folder: Path, scale: float) -> tuple[list[str], Path | None]:
        table, keys = folder / f"patterns.{kind}", folder / f"keys.{kind}"
        if not table.exists():
            table.write_text(
                "".join(
                    f"/^(friend|colleague)[0-9]*\\.{n}@(.*\\.)?example{n}\\.com$/ REJECT {n}\n"
                    for n in range(PATTERNS)
                )
            )
            count = int(PATTERN_KEYS * scale)
            keys.write_text(
                "".join(f"friend7.{n % 400}@mx.example{n % 400}.com\n" for n in range(count))
            )
        return ["-q", "-", f"{kind}:{table}"], keys

    return prepare


ROWS: Final = (
    Row("postmap", "postmap, 1,000,000 lines", build),
    Row("postmap-q", "postmap -q -, 1,000,000 keys", ask),
    Row("regexp", "200 patterns, 20,000 keys", ask_patterns("regexp")),
    Row("pcre", "200 patterns, 20,000 keys", ask_patterns("pcre")),
)
IN_PROCESS: Final = "lookup"


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of a command."""

    wall: float
    cpu: float


def _run(program: str, row: Row, folder: Path, scale: float) -> Taken:
    arguments, stdin = row.prepare(folder, scale)
    os.sync()
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with (stdin or Path(os.devnull)).open("rb") as keys:
        subprocess.run(
            [program, "-c", str(folder), *arguments],
            stdin=keys,
            stdout=subprocess.DEVNULL,
            check=True,
        )
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(wall, cpu)


def run_row(row: Row, sides: Sequence[str], rounds: int, scale: float) -> str:
    """One line: the seconds of each side, and ours in relation to those of Postfix."""
    programs = {"ours": f"{installation()}/sbin/postmap", "postfix": POSTMAP}
    best: dict[str, Taken] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "main.cf").write_text("lmdb_map_size = 1000000000\n")
        if row.prepare is ask:
            _run(programs["ours"], ROWS[0], folder, scale)
        for _ in range(rounds):
            for side in sides:
                taken = _run(programs[side], row, folder, scale)
                if side not in best or taken.wall < best[side].wall:
                    best[side] = taken
    text = f"{row.name + ': ' + row.title:42}"
    text += "".join(f"{side}: {t.wall:6.2f} s ({t.cpu:.2f} s CPU)   " for side, t in best.items())
    if len(best) == 2:
        text += f"{best['ours'].wall / best['postfix'].wall:4.2f}x the time"
    return text


def run_in_process(rounds: int) -> str:
    """The median of lookups that a daemon makes of its own tables, in microseconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "main.cf").write_text("")
        _run(f"{installation()}/sbin/postmap", ROWS[0], folder, 0.1)
        table = open_table(f"lmdb:{folder}/table")
        found = min(_median(table, "user%d@example.com") for _ in range(rounds))
        missed = min(_median(table, "nobody%d@example.com") for _ in range(rounds))
        table.close()
    title = f"{IN_PROCESS}: lmdb, 100,000 lines, median"
    return f"{title:42}found {found:.1f} us, not found {missed:.1f} us"


def _median(table: Table, form: str) -> float:
    keys = [form % (n * 37 % 100_000) for n in range(LOOKUPS)]
    times = []
    for key in keys:
        start = time.perf_counter_ns()
        lookup_now(table, key)
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000
