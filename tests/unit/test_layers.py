"""Folders are layers: imports point down only, and daemons do not know each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("libmail", "daemons", "commands", "master")

# A program that is another one under a second name: (it, the other).
ALIASES: Final = {("daemons.lmtp", "daemons.smtp"), ("daemons.oqmgr", "daemons.qmgr")}

# Layer by layer, from below. What stands in one imports what stands before it, in its layer, too.
LAYERS: Final = (
    (
        "libmail.text",
        "libmail.files",
        "libmail.config",
        "libmail.privileges",
        "libmail.ipc",
        "libmail.log",
    ),
    (
        "libmail.smtp",
        "libmail.message",
        "libmail.queue",
        "libmail.dsn",
        "libmail.milter",
        "libmail.sasl",
    ),
    (
        "libmail.net",
        "libmail.oauth",
        "libmail.dns",
        "libmail.sts",
        "libmail.service",
        "libmail.tables",
        "libmail.tls",
        "libmail.lookup",
        "libmail.mailbox",
        "libmail.clients",
        "libmail.handshakes",
        "libmail.agents",
        "libmail.execution",
        "libmail.load",
    ),
    ("daemons", "commands", "master"),
)
ORDER: Final = tuple(name for layer in LAYERS for name in layer)
PROGRAMS: Final = ORDER.index("daemons")


def place(module: str) -> int | None:
    """Where a module's package stands in the list; None when nobody has said."""
    for at, package in enumerate(ORDER):
        if module == package or module.startswith(package + "."):
            return min(at, PROGRAMS)  # among programs, `program` decides
    return None


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it."""
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *filter(None, [node.module])]) if node.level else node.module
            yield from (f"{base}.{alias.name}" for alias in node.names)


def sources() -> list[Path]:
    return [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]


def edges() -> list[tuple[str, str]]:
    pairs = ((module_name(path), name) for path in sources() for name in imported(path))
    return [(a, b) for a, b in pairs if b.split(".")[0] in PACKAGES]


def program(module: str) -> str:
    """ "daemons.smtpd" for every module of it, "master" for all of master."""
    parts = module.split(".")
    return parts[0] if parts[0] == "master" else ".".join(parts[:2])


def bad_imports(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that point up, and those between programs except master's of a daemon."""
    bad = []
    for importer, target in pairs:
        here, there = place(importer), place(target)
        if here is None or there is None:
            continue
        across = here == PROGRAMS == there and program(importer) != program(target)
        preload = program(importer) == "master" and target.startswith("daemons")
        alias = (program(importer), program(target)) in ALIASES
        if there > here or (across and not preload and not alias):
            bad.append((importer, target))
    return bad


def folder(module: str, modules: Mapping[str, Path]) -> str:
    """The package that a module is in; a program is one, whatever folders it has."""
    at = place(module)
    if at is None or at == PROGRAMS:
        return program(module)
    return module if modules[module].name == "__init__.py" else module.rpartition(".")[0]


def folder_edges() -> dict[str, set[str]]:
    """Which packages import from which others."""
    modules = {module_name(path): path for path in sources()}
    found: dict[str, set[str]] = defaultdict(set)
    for importer, name in edges():
        target = name if name in modules else name.rpartition(".")[0]
        if target in modules:
            found[folder(importer, modules)].add(folder(target, modules))
    return {name: targets - {name} for name, targets in found.items()}


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Nodes of which each has an edge to the next, the last to the first; [] where there are none.

    Takes away what has no edges to what is left, until nothing is, or a circle.
    """
    left = {name: set(targets) & graph.keys() for name, targets in graph.items()}
    while ends := {name for name, targets in left.items() if not targets}:
        left = {name: targets - ends for name, targets in left.items() if name not in ends}
    path: list[str] = []
    at = min(left, default="")
    while at and at not in path:
        path.append(at)
        at = min(left[at])
    return path[path.index(at) :] if at else []


def test_imports_point_down() -> None:
    assert bad_imports(edges()) == []


def test_every_module_has_a_layer() -> None:
    modules = {module_name(path) for path in sources()}
    assert sorted(m for m in modules if place(m) is None and m != "libmail") == []


def test_there_is_no_circle_of_packages() -> None:
    assert circle(folder_edges()) == []


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}}, ["b", "c"]),
        ({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": {"a"}}, ["a", "b", "d"]),
    ],
)
def test_circles(graph: dict[str, set[str]], found: list[str]) -> None:
    assert circle(graph) == found


@pytest.mark.parametrize(
    ("importer", "target", "allowed"),
    [
        ("daemons.smtpd.session", "libmail.ipc.codec", True),
        ("daemons.smtpd.session", "daemons.smtpd.policy", True),
        ("daemons.smtpd", "daemons.qmgr", False),
        ("master.services", "daemons.qmgr.main", True),
        ("daemons.qmgr", "master", False),
        ("commands.sendmail", "commands.postqueue", False),
        ("commands.sendmail", "daemons.smtpd", False),
        ("libmail.queue.file", "libmail.service.skeleton", False),
        ("libmail.ipc.codec", "libmail.queue", False),
        ("libmail.service", "libmail.config.core", True),
        ("libmail.tables.servers.proxy", "libmail.service.pool", True),
        ("libmail.service.skeleton", "libmail.tables.table", False),
        ("libmail.dns.resolver", "libmail.net.cache", True),
        ("libmail.net.endpoint", "libmail.dns.native", False),
    ],
)
def test_rule(importer: str, target: str, allowed: bool) -> None:
    assert (bad_imports([(importer, target)]) == []) is allowed


@pytest.mark.parametrize("command", ["sendmail", "postqueue"])
def test_commands_of_users_import_lazily(command: str) -> None:
    """Their start-up counts: nothing heavy before it is needed."""
    if not list((ROOT / "commands").glob(f"{command}*")):
        pytest.skip(f"no command {command} yet")
    heavy = ("asyncio", "argparse", "ssl", "email", "lmdb", "uvloop", "logging", "subprocess")
    code = f"import sys, commands.{command}; print(*(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
