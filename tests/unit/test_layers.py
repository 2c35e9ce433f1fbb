"""Folders are layers: imports point down only, and daemons do not know each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("libmail", "daemons", "commands", "master")
PROGRAMS: Final = 3

# A program that is another one under a second name: (it, the other).
ALIASES: Final = {("daemons.lmtp", "daemons.smtp")}

# The longest name that matches decides.
LAYERS: Final = {
    "libmail.config": 0,
    "libmail.ipc": 0,
    "libmail.log": 0,
    "libmail.privileges": 0,
    "libmail.files": 0,
    "libmail.text": 0,
    "libmail.smtp": 1,
    "libmail.message": 1,
    "libmail.queue": 1,
    "libmail.dsn": 1,
    "libmail.tables": 2,
    "libmail.dns": 2,
    "libmail.service": 2,
    "libmail.clients": 2,
    "libmail.execution": 2,
    "libmail.mailbox": 2,
    "libmail.lookup": 2,
    "libmail.tls": 2,
    "daemons": PROGRAMS,
    "commands": PROGRAMS,
    "master": PROGRAMS,
}


def layer(module: str) -> int | None:
    """The layer of a module; None when nobody has said where its folder belongs."""
    names = [name for name in LAYERS if module == name or module.startswith(name + ".")]
    return LAYERS[max(names, key=len)] if names else None


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
        here, there = layer(importer), layer(target)
        if here is None or there is None:
            continue
        across = here == PROGRAMS == there and program(importer) != program(target)
        preload = program(importer) == "master" and target.startswith("daemons")
        alias = (program(importer), program(target)) in ALIASES
        if there > here or (across and not preload and not alias):
            bad.append((importer, target))
    return bad


def test_imports_point_down() -> None:
    assert bad_imports(edges()) == []


def test_every_module_has_a_layer() -> None:
    modules = {module_name(path) for path in sources()}
    assert sorted(m for m in modules if layer(m) is None and m != "libmail") == []


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
