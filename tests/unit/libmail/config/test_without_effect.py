"""Every parameter is read by some program, or said to be without effect; never both."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from libmail.config.core import renamed
from libmail.config.declared import all_parameters
from libmail.config.expand import references
from libmail.config.families import FAMILIES
from libmail.config.parameters.without_effect import (
    FOR_INSTALLERS,
    NEVER,
    NOT_YET,
    PROTECTING,
)

ROOT = Path(__file__).parents[4]
CODE = ("libmail", "daemons", "commands", "master")
READ_AS_MEMBERS = {"local_destination_concurrency_limit", "local_destination_recipient_limit"}
LISTS_OF_OTHERS = {"proxy_read_maps", "proxy_write_maps"}  # whether anybody reads those or not
ABOUT_ALL = ("libmail/config/parameters", "commands/postconf")


def _modules() -> Iterator[ast.Module]:
    for top in CODE:
        for path in (ROOT / top).rglob("*.py"):
            if not str(path.relative_to(ROOT)).startswith(ABOUT_ALL):
                yield ast.parse(path.read_text())


def _mentioned(module: ast.Module) -> Iterator[str]:
    """Fields of records, and literals."""
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Params"):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield field.target.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def read_parameters() -> frozenset[str]:
    """Those that programs read, and those that the defaults of these refer to."""
    parameters = all_parameters()
    mentioned = {name for module in _modules() for name in _mentioned(module)}
    mentioned |= {renamed(name, ("smtp_", "lmtp_")) for name in mentioned}
    mentioned |= {name for one in FAMILIES.values() for name in references(one.default)}
    found: set[str] = set()
    new = mentioned & parameters.keys()
    while new:
        found |= new
        new -= LISTS_OF_OTHERS
        new = {name for one in new for name in references(parameters[one].default)}
        new = new & parameters.keys() - found
    return frozenset(found)


def test_what_nobody_reads_is_in_the_list() -> None:
    silent = all_parameters().keys() - read_parameters() - READ_AS_MEMBERS
    assert silent == NOT_YET | NEVER | FOR_INSTALLERS


def test_what_is_read_is_not_in_the_list() -> None:
    assert not read_parameters() & (NOT_YET | NEVER | FOR_INSTALLERS)
    assert PROTECTING.keys() <= read_parameters()
