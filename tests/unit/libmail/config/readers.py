"""Which parameters the programs read, as far as their source tells."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from libmail.config.core import renamed
from libmail.config.declared import all_parameters
from libmail.config.expand import references
from libmail.config.families import FAMILIES

__all__ = ["fields_of", "programs", "read_by", "read_by_any", "used_names"]

ROOT = Path(__file__).parents[4]
FOLDERS = ("libmail", "daemons", "commands", "master")
CALLED = ("daemons", "commands")
ABOUT_ALL = ("libmail.config.declared", "libmail.config.parameters", "commands.postconf")
LISTS_OF_OTHERS = {"proxy_read_maps", "proxy_write_maps"}  # whether anybody reads those or not
READ_OTHERWISE = {
    "bounce": {"delay_warning_time"},  # in the text of templates
    "qmgr": {"local_destination_concurrency_limit", "local_destination_recipient_limit"},
}
LIKE_SMTPD = {"postscreen": ("postscreen_",), "tlsproxy": ("postscreen_", "tlsproxy_")}
SECOND_NAMES = {
    "defer": "bounce", "lmtp": "smtp", "newaliases": "sendmail", "oqmgr": "qmgr",
    "proxywrite": "proxymap", "retry": "error", "trace": "bounce",
}  # fmt: skip


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def _modules() -> dict[str, ast.Module]:
    paths = [path for top in FOLDERS for path in (ROOT / top).rglob("*.py")]
    trees = {_module(path): path for path in paths}
    return {
        name: ast.parse(path.read_text())
        for name, path in trees.items()
        if not name.startswith(ABOUT_ALL)
    }


def _fields(module: str) -> Iterator[str]:
    """Fields of the records that a configuration loads."""
    for node in ast.walk(_modules()[module]):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Params"):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield field.target.id


@cache
def _mentioned(module: str) -> frozenset[str]:
    """Fields and literals."""
    literals = (
        node.value
        for node in ast.walk(_modules()[module])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return frozenset((*_fields(module), *literals))


@cache
def used_names() -> frozenset[str]:
    """Attributes that are read, and literals, which may name attributes."""
    names = (
        node.attr if isinstance(node, ast.Attribute) else node.value
        for module in _modules().values()
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute | ast.Constant)
    )
    return frozenset(name for name in names if isinstance(name, str))


@cache
def _imported(module: str) -> frozenset[str]:
    """Modules that it imports, or names in order to import them."""
    names = {*_mentioned(module), module.rpartition(".")[0]}
    for node in ast.walk(_modules()[module]):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names & _modules().keys())


def _with_imports(modules: Iterable[str]) -> set[str]:
    found: set[str] = set()
    new = set(modules)
    while new:
        found |= new
        new = {name for one in new for name in _imported(one)} - found
    return found


def _own_modules(program: str) -> list[str]:
    name = SECOND_NAMES.get(program, program).replace("-", "_")
    tops = ("master",) if name == "master" else (f"daemons.{name}", f"commands.{name}")
    return [
        one for one in _modules() if one in tops or one.startswith(tuple(f"{t}." for t in tops))
    ]


def programs() -> set[str]:
    """The programs that there are, by their first names."""
    paths = [name.split(".") for name in _modules()]
    inside = {path[1].replace("_", "-") for path in paths if path[0] in CALLED and path[1:]}
    return {"master", *inside} - SECOND_NAMES.keys()


def _parameters(names: set[str], families: Iterable[str], like: Iterable[str]) -> frozenset[str]:
    """Those of the names that are parameters, and what the defaults of these refer to.

    like: with what names begin that stand for those of smtpd.
    """
    parameters = all_parameters()
    prefixes = [("smtp_", "lmtp_"), *(("smtpd_", prefix) for prefix in like)]
    names |= {renamed(name, prefix) for name in names for prefix in prefixes}
    names |= {name for suffix in families for name in references(FAMILIES[suffix].default)}
    found: set[str] = set()
    new = names & parameters.keys()
    while new:
        found |= new
        new -= LISTS_OF_OTHERS
        new = {name for one in new for name in references(parameters[one].default)}
        new = new & parameters.keys() - found
    return frozenset(found)


@cache
def read_by_any() -> frozenset[str]:
    """What some program reads; what a library would read for one that does not use it, is not."""
    started = (name for name in _modules() if name.split(".")[0] in (*CALLED, "master"))
    names = {name for module in _with_imports(started) for name in _mentioned(module)}
    like = LIKE_SMTPD["tlsproxy"]
    return _parameters(names, FAMILIES, like).union(*READ_OTHERWISE.values())


@cache
def read_by(program: str) -> frozenset[str]:
    """What a program may read: it, or a module that it imports, has the name."""
    names = {name for one in _with_imports(_own_modules(program)) for name in _mentioned(one)}
    families = [one.suffix for one in FAMILIES.values() if program in one.programs.split()]
    like = LIKE_SMTPD.get(program, ())
    return _parameters(names, families, like) | READ_OTHERWISE.get(program, set())


def fields_of(program: str) -> set[str]:
    """What a program loads by records of its own."""
    return {name for one in _own_modules(program) for name in _fields(one)}
