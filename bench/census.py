"""make bench BENCH=--census: what a delivery costs each program, in figures without noise.

Three meters, each with systems of its own: calls of Python functions and built-ins (cProfile),
system calls (perf), and instructions outside of the kernel (callgrind). All come from outside:
what is measured is the system that gets installed, started by another script.

A load is measured as the difference between a system that had much of it and one that had little,
so that what a start costs is left out. How messages meet in batches still depends on their timing:
figures repeat within some percent.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.filters import ROWS, Setup
from bench.loads import Load, Ports, aliases, census_loads, routes
from bench.measure import measure
from tests.system.harness import (
    SERVICES,
    Instance,
    installation,
    need_tool,
    reachable_interpreter,
)
from tests.system.processes import is_gone, is_listening, session_members, wait_until

__all__ = ["run_census"]

_PAGE: Final = Path(__file__).resolve().parents[1] / "docs/architecture.md"
_LITTLE: Final = 20  # messages
_MUCH: Final = 120
_CALLGRIND: Final = "{valgrind} -q --tool=callgrind --callgrind-out-file={counts}/%p.callgrind"
_SYSTEM_CALL: Final = "raw_syscalls:sys_enter"
_TOTAL: Final = re.compile(r"^(?:summary|totals): (\d+)", re.M)
_ROW: Final = re.compile(r"^\| ([a-z-]+) \| ([a-z-]+) \| ([0-9.]+ \| [0-9.]+ \| [0-9.]+) \|$", re.M)
_PROGRAMS: Final = frozenset(line.split()[7] for line in SERVICES.splitlines()) | {"smtpd"}
_LEAST: Final = 1.0  # calls; programs that make less are not worth a line

Figures = Mapping[str, float]
"""By program, for a delivery."""


class CountingSystem(Instance):
    """Our mail system, started by a script that makes each process leave its figures at its end.

    setup: what it has beside the settings of the load. tool: a command that runs the interpreter
    of master(8) and of all that it forks, or nothing.
    """

    def __init__(self, ports: Ports, load: Load, setup: Setup, tool: str = "") -> None:
        # What faces the network could make no file for its figures.
        main = {**load.settings(ports), **setup.main, "mail_network_syscall_filter": "no"}
        super().__init__(main=main, privileged=os.geteuid() == 0, name="bench.test")
        (self.config_directory / "transport").write_text(routes(ports))
        aliases(self.config_directory)
        for name, text in setup.files:
            (self.config_directory / name).write_text(text)
        self.configure({}, setup.master)
        self.counts = self.top / "counts"
        self.counts.mkdir()
        self.counts.chmod(0o1777)
        self._tool = tool.format(valgrind=shutil.which("valgrind"), counts=self.counts).split()
        self._master = 0

    def start(self) -> None:
        super().start()  # for the queue's directories
        self.halt()
        paths = [str(installation() / "lib/postfix"), str(Path(__file__).parent)]
        program = (
            f"import sys\nfrom pathlib import Path\nsys.path[:0] = {paths!r}\n"
            f"from probe import leave_figures\nfrom master.main import main\n"
            f"leave_figures(Path({str(self.counts)!r}), calls={not self._tool})\n"
            "sys.exit(main(sys.argv[1:]))\n"
        )
        command = [*self._tool, reachable_interpreter(), "-IS", "-c", program, "-w"]
        environment = {"PATH": "/usr/bin:/bin", "MAIL_CONFIG": str(self.config_directory)}
        subprocess.run(command, env=environment, cwd="/", check=True)
        wait_until(lambda: self.master_pid() and is_listening(self.smtp_port))
        self.session = self.master_pid() or 0

    def end(self) -> None:
        """All processes leave their figures; master(8) last, which would not wait for long."""
        self._master, self.session = self.session, 0
        children = [one.pid for one in session_members(self._master) if one.pid != self._master]
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: all(map(is_gone, children)))
        os.kill(self._master, signal.SIGTERM)
        wait_until(lambda: not session_members(self._master))

    def figures(self) -> Counter[str]:
        """What the processes that have ended have left: calls or instructions, by program.

        A process begins with the instructions of master(8), from which it was forked.
        """
        total: Counter[str] = Counter()
        inherited = self._instructions(self._master)
        for path in self.counts.glob("*[0-9]"):
            program, calls = path.read_text().split()
            total[program] += int(calls) + self._instructions(int(path.name)) - inherited
        return total

    def _instructions(self, pid: int) -> int:
        profile = self.counts / f"{pid}.callgrind"
        return int(_TOTAL.findall(profile.read_text())[0]) if self._tool else 0


@contextlib.contextmanager
def _running(ports: Ports, load: Load, tool: str = "") -> Iterator[CountingSystem]:
    """A system that has had the load."""
    with _setup(load.name) as setup:
        system = CountingSystem(ports, load, setup, tool)
        try:
            system.start()
            measure(system, load.traffic, load.messages, 1)
            yield system
        finally:
            system.stop(check=False)


def _setup(name: str) -> contextlib.AbstractContextManager[Setup]:
    """What the systems of a row have beside the settings of its load: a filter, or nothing."""
    found = [row for row in ROWS if row.name == name]
    return found[0].setup() if found else contextlib.nullcontext(Setup({}))


def _difference(little: Load, much: Load, ports: Ports, tool: str = "") -> Figures:
    """What processes left that had much to do, less what they left that had little."""
    found = []
    for load in (little, much):
        with _running(ports, load, tool) as system:
            system.end()
            found.append(system.figures())
    deliveries = (much.messages - little.messages) * much.fanout
    return {program: (found[1][program] - found[0][program]) / deliveries for program in found[1]}


def _calls(little: Load, much: Load, ports: Ports) -> Figures:
    return _difference(little, much, ports)


def _instructions(little: Load, much: Load, ports: Ports) -> Figures:
    need_tool("valgrind")
    found = _difference(little, much, ports, _CALLGRIND)
    return {program: count / 1000 for program, count in found.items()}


def _system_calls(little: Load, much: Load, ports: Ports) -> Figures:
    """perf(1) counts those of each program of a system that has had little.

    Nothing is stopped for that, as it is by strace(1), with which threads would wait for each other
    most of the time.
    """
    perf = need_tool("perf")
    with _running(ports, little) as system:
        found = _programs(system.session).items()
        meters = {program: _Meter(perf, pids) for program, pids in found}
        measure(system, much.traffic, much.messages, 1)
        deliveries = much.messages * much.fanout
        return {program: meter.end() / deliveries for program, meter in meters.items()}


def _programs(session: int) -> dict[str, list[int]]:
    """The processes of each program."""
    found = defaultdict(list)
    for process in session_members(session):
        found[process.title().partition(" ")[0]].append(process.pid)
    return found


class _Meter:
    """Counts the system calls of some processes, and of the threads that they start."""

    def __init__(self, perf: str, pids: list[int]) -> None:
        """Returns when it counts. perf: the command."""
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        command = [perf, "stat", "-x,", "-e", _SYSTEM_CALL, "-p", ",".join(map(str, pids))]
        self._process = subprocess.Popen(
            [*command, "--delay=-1", f"--control=fd:{commands},{answers}"],
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(commands, answers),
        )
        os.close(commands)
        os.close(answers)
        self._say(b"enable\n")

    def _say(self, word: bytes) -> None:
        os.write(self._commands, word)
        os.read(self._answers, 16)

    def end(self) -> int:
        """How many there were."""
        self._say(b"disable\n")
        self._process.send_signal(signal.SIGINT)
        _, text = self._process.communicate()
        os.close(self._commands)
        os.close(self._answers)
        found = re.findall(rf"^(\d+),.*{_SYSTEM_CALL}", text, re.M)
        return int(found[0]) if found else 0  # "<not counted>" of who did nothing


_METERS: Final = (
    ("calls", 0, _calls),
    ("system calls", 1, _system_calls),
    ("1000 instructions", 0, _instructions),
)
_ALL: Final = "all"


def _counted(name: str, ports: Ports) -> dict[str, list[float]]:
    """What each meter says of each program, and of all of them, for a delivery of a load."""
    little, much = (_load(name, messages) for messages in (_LITTLE, _MUCH))
    found = [meter(little, much, ports) for _, _, meter in _METERS]
    programs = sorted(set().union(*found) & _PROGRAMS)
    rows = {program: [figures.get(program, 0.0) for figures in found] for program in programs}
    rows[_ALL] = [sum(column) for column in zip(*rows.values(), strict=True)]
    return {program: row for program, row in rows.items() if row[0] >= _LEAST}


def _load(name: str, messages: int) -> Load:
    """Through a filter goes what is relayed in other rows."""
    found = {load.name: load for load in census_loads(messages)}
    return found.get(name) or replace(found["relay"], name=name)


def _written() -> dict[tuple[str, str], list[float]]:
    """The table of the documents."""
    rows = _ROW.findall(_PAGE.read_text("utf-8"))
    return {
        (load, program): [float(word) for word in rest.split("|")] for load, program, rest in rows
    }


def _row(load: str, program: str, figures: list[float], before: list[float] | None) -> str:
    """A row of the table, and how much it differs from the one of the documents."""
    columns = zip(figures, _METERS, strict=True)
    shown = (f"{figure:.{places}f}" for figure, (_, places, _) in columns)
    text = f"| {load} | {program} | {' | '.join(shown)} |"
    if before is None:
        return text
    return f"{text:60}" + "".join(map(_change, figures, before))


def _change(figure: float, before: float) -> str:
    return f"{(figure / before - 1) * 100:+8.1f} %" if before else " " * 10


def run_census(names: Iterable[str], ports: Ports) -> None:
    """Print the table of these loads."""
    titles = [title for title, _, _ in _METERS]
    print(f"| load | program | {' | '.join(titles)} |\n|{'---|' * (2 + len(titles))}")
    written = _written()
    for name in names:
        for program, figures in _counted(name, ports).items():
            row = _row(name, program, figures, written.get((name, program)))
            print(row, flush=True)
