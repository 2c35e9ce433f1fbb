"""make bench: the same loads on this mail system and on a real Postfix, alternating.

Both get the same main.cf where that is possible, queues on the same file system, logs
through maillog_file; fsync is on everywhere. Real Postfix needs root; without it only our
figures are taken. Every figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping

from bench import contacts, filters, table, tables, tls
from bench.census import run_census
from bench.guesses import CLIENTS, guessing, logins
from bench.idle import idle_sessions, raise_descriptor_limit
from bench.loads import (
    Load,
    Ports,
    aliases,
    census_loads,
    loads,
    routes,
    settings,
    sinks,
    smtp_source,
)
from bench.measure import Result, measure, median
from tests.system.harness import POSTFIX_DAEMONS, Instance, MailSystem, RealPostfix
from tests.system.processes import proportional_memory

IDLE = "idle"
GUESSES = "guesses"
TLS_IDLE = "tls-idle"
OURS, POSTFIX = "ours", "postfix"


def arguments() -> argparse.Namespace:
    names = [load.name for load in loads(1)] + [IDLE, GUESSES, contacts.NAME]
    names += [row.name for row in (*filters.ROWS, *tls.ROWS)] + [TLS_IDLE]
    names += [row.name for row in tables.ROWS] + [tables.IN_PROCESS]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, a quarter of the mail")
    parser.add_argument("--rounds", type=int, help="rounds of each row, default 3")
    parser.add_argument("--scale", type=float, help="part of the usual amount of mail")
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW")
    parser.add_argument("--only", choices=(OURS, POSTFIX), help="measure one side")
    parser.add_argument("--sessions", type=int, default=10_000, help="idle sessions")
    parser.add_argument("--directory", default="/var/tmp", help="where queues and mailboxes are")
    parser.add_argument(
        "--census", action="store_true", help="count calls and instructions instead"
    )
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.scale = options.scale or (0.25 if options.quick else 1.0)
    return options


def sides(only: str | None) -> list[str]:
    """Which systems can be measured here."""
    wanted = [only] if only else [OURS, POSTFIX]
    if POSTFIX in wanted and os.geteuid() != 0:
        print("not root: real Postfix cannot be started, only our figures are taken")
        wanted.remove(POSTFIX)
    elif POSTFIX in wanted and not (POSTFIX_DAEMONS / "master").exists():
        print("no Postfix installed, only our figures are taken")
        wanted.remove(POSTFIX)
    return wanted


@contextlib.contextmanager
def running(
    side: str, ports: Ports, more: Mapping[str, str | None] | filters.Setup | None = None
) -> Iterator[MailSystem]:
    """A fresh mail system that has already delivered a little. more: of main.cf, or files, too."""
    system: MailSystem
    setup = more if isinstance(more, filters.Setup) else filters.Setup(dict(more or {}))
    main = {**settings(), **setup.main}
    if side == OURS:
        system = Instance(main=main, privileged=os.geteuid() == 0, name="bench.test")
    else:
        system = RealPostfix(main=main, name="bench.test")
    (system.config_directory / "transport").write_text(routes(ports))
    aliases(system.config_directory)
    for name, text in setup.files:
        (system.config_directory / name).write_text(text)
    system.configure({}, setup.master)
    try:
        system.start()
        measure(system, smtp_source(20, 1024, "x@discard.test"), 20, 20)
        yield system
        for line in system.problems()[:5]:
            print(f"  {side} logged: {line}")
    finally:
        system.stop(check=False)


def run_load(load: Load, names: list[str], ports: Ports, rounds: int) -> dict[str, Result]:
    """Rounds of one row, the sides taking turns."""
    results: dict[str, list[Result]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        more = load.settings(ports)
        systems = {name: stack.enter_context(running(name, ports, more)) for name in names}
        for _ in range(rounds):
            for name, system in systems.items():
                deliveries = load.messages * load.fanout
                result = measure(system, load.traffic, load.messages, deliveries)
                results[name].append(result)
    return {name: median(taken) for name, taken in results.items()}


def run_idle(names: list[str], ports: Ports, wanted: int, messages: int) -> dict[str, Result]:
    """Holds sessions and, where the server still takes new ones, sends mail meanwhile."""
    results = {}
    for name in names:
        with running(name, ports) as system, idle_sessions(system, wanted) as held:
            note = f"{held} held"
            if held == wanted:
                traffic = smtp_source(messages, 4096, "x@relay.test")
                result = measure(system, traffic, messages, messages)
                results[name] = Result(result.rate, result.user, result.system, result.memory, note)
            else:
                memory = proportional_memory(system.pids())
                results[name] = Result(0.0, 0.0, 0.0, memory, note + ", no mail meanwhile")
    return results


def run_guesses(names: list[str], ports: Ports, messages: int) -> dict[str, Result]:
    """Relays mail with and without clients that guess passwords."""
    results = {}
    traffic = smtp_source(messages, 4096, "x@relay.test")
    for name in names:
        with logins(ours=name == OURS) as main, running(name, ports, main) as system:
            system.allow("SASL PLAIN authentication failed")
            alone = measure(system, traffic, messages, messages)
            with guessing(system) as guesses:
                result = measure(system, traffic, messages, messages)
                note = f"{guesses.rate:.0f} guesses/s, {result.rate / alone.rate:.2f} of rate alone"
            results[name] = Result(result.rate, result.user, result.system, result.memory, note)
    return results


def run_contacts(
    names: list[str], ports: Ports, number: int
) -> tuple[dict[str, Result], dict[str, Result]]:
    """Verifies senders, twice."""
    first, again = {}, {}
    for name in names:
        with running(name, ports, contacts.MAIN) as system:
            system.allow("too many addresses|too many requests")
            first[name], again[name] = contacts.run_contacts(system, number)
    return first, again


def run_filter(
    row: filters.FilterRow, names: list[str], ports: Ports, rounds: int, messages: int
) -> dict[str, Result]:
    """As `run_load`, with filters; a message may pass the queue twice."""
    results: dict[str, list[Result]] = {name: [] for name in names}
    traffic = smtp_source(messages, 4096, "x@relay.test")
    with contextlib.ExitStack() as stack:
        systems = {}
        for name in names:
            setup = stack.enter_context(row.setup())
            systems[name] = stack.enter_context(running(name, ports, setup))
        passes = 1 + ("content_filter" in setup.main)
        for _ in range(rounds):
            for name, system in systems.items():
                results[name].append(measure(system, traffic, messages * passes, messages))
    return {name: median(taken) for name, taken in results.items()}


def main() -> int:
    options = arguments()
    if options.list:
        for load in loads(1):
            print(f"{load.name:12}{load.title}")
        print(f"{IDLE:12}idle sessions held while mail is relayed")
        print(f"{GUESSES:12}passwords are guessed while mail is relayed")
        print(f"{contacts.NAME:12}senders verified: at first contact, and from the cache")
        for row in (*filters.ROWS, *tls.ROWS, *tables.ROWS):
            print(f"{row.name:12}{row.title}")
        print(f"{TLS_IDLE:12}idle sessions within TLS")
        print(f"{tables.IN_PROCESS:12}lookups inside a process")
        return 0
    raise_descriptor_limit()
    tempfile.tempdir = options.directory
    if options.census:
        with sinks() as ports:
            counted = [load.name for load in census_loads(1)] + [row.name for row in filters.ROWS]
            run_census([name for name in counted if name in options.rows], ports)
        return 0
    names = sides(options.only)
    print(table.surroundings(options.rounds, options.scale))
    wanted = set(options.rows)
    of_loads = {load.name for load in loads(1)} | {row.name for row in filters.ROWS}
    if wanted & {IDLE, GUESSES, contacts.NAME, *of_loads}:
        run_mail(options, names)
    run_tls(options, names)
    for row in tables.ROWS:
        if row.name in wanted:
            print(tables.run_row(row, names, options.rounds, options.scale))
    if tables.IN_PROCESS in wanted:
        print(tables.run_in_process(options.rounds))
    return 0


def run_mail(options: argparse.Namespace, names: list[str]) -> None:
    """The rows of loads on running systems."""
    print(table.head(names))
    with sinks() as ports:
        for load in loads(options.scale):
            if load.name in options.rows:
                print(table.row(load.title, run_load(load, names, ports, options.rounds)))
        if IDLE in options.rows:
            messages = max(20, int(1000 * options.scale))
            results = run_idle(names, ports, options.sessions, messages)
            print(table.row(f"relay beside {options.sessions} idle sessions", results))
        for row in filters.ROWS:
            if row.name in options.rows:
                messages = max(20, int(1000 * options.scale))
                found = run_filter(row, names, ports, options.rounds, messages)
                print(table.row(row.title, found))
        if GUESSES in options.rows:
            messages = max(20, int(1000 * options.scale))
            results = run_guesses(names, ports, messages)
            print(table.row(f"relay beside {CLIENTS} that guess", results))
        if contacts.NAME in options.rows:
            number = max(100, int(5000 * options.scale))
            first, again = run_contacts(names, ports, number)
            print(table.row(f"{number} senders verified at first contact", first))
            print(table.row(f"{number} senders verified, from the cache", again))


def run_tls(options: argparse.Namespace, names: list[str]) -> None:
    """The rows of TLS."""
    rows = [row for row in tls.ROWS if row.name in options.rows]
    if rows or TLS_IDLE in options.rows:
        print(table.head(names))
    for row in rows:
        found = tls.run_row(row, names, running, options.rounds, options.scale)
        print(table.row(row.title, found))
    if TLS_IDLE in options.rows:
        with sinks() as ports:
            found = tls.run_idle(names, ports, running)
        print(table.row(f"{tls.IDLE_SESSIONS} idle sessions within TLS", found))


if __name__ == "__main__":
    sys.exit(main())
