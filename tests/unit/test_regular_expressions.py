"""Every regular expression of the tree that meets input takes linear time.

The sources are searched for calls of `re`; the expressions are those of the modules as they run.
"""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from libmail.lookup import final_domain
from libmail.smtp import address
from libmail.tables.sql import template as sql_template
from tests.ambiguity import ambiguous

TOP: Final = Path(__file__).parents[2]
FOLDERS: Final = ("libmail", "daemons", "commands", "master")
METHODS: Final = frozenset(
    ("match", "fullmatch", "search", "findall", "finditer", "sub", "subn", "split")
)


class Use(NamedTuple):
    """A call of `re`. source: of its arguments. methods: that are called on the result."""

    module: str
    line: int
    pattern: ast.expr
    flags: ast.expr | None
    methods: frozenset[str]

    @property
    def name(self) -> str:
        return f"{self.module}:{self.line}"


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in FOLDERS:
        for path in sorted((TOP / folder).rglob("*.py")):
            name = ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text("utf-8"))


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            where = node.func.value
            if isinstance(where, ast.Name) and where.id == "re" and node.func.attr != "escape":
                yield node, node.func.attr


def methods_of(call: ast.Call, tree: ast.Module) -> frozenset[str]:
    """What is called on a compiled expression; all if that is not plain."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.value is call:
            return frozenset((node.attr,))
        if isinstance(node, ast.Assign) and node.value is call:
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign) and node.value is call:
            names |= {node.target.id} if isinstance(node.target, ast.Name) else set()
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in names
    }
    return frozenset(used & METHODS) or METHODS


def uses() -> Iterator[Use]:
    for module, tree in modules():
        for call, function in calls(tree):
            flags = call.args[1] if function == "compile" and len(call.args) > 1 else None
            flags = flags or next((k.value for k in call.keywords if k.arg == "flags"), None)
            methods = methods_of(call, tree) if function == "compile" else frozenset((function,))
            yield Use(module, call.lineno, call.args[0], flags, methods)


USES: Final = list(uses())


def value_of(expression: ast.expr, module: str) -> object:
    code = compile(ast.Expression(expression), module, "eval")
    return eval(code, dict(vars(importlib.import_module(module))))


# Expressions that are made where they run: what they are made of.
MADE: Final[dict[str, list[str | bytes]]] = {
    "libmail.text.search": [
        rb"(?<!\r)\n|\r(?!\n)",
        rb"(?<!\r)\n",
        rb"\r\r\n",
        rb"\n\.",
        rb"a(?:b|c(?:d|e))|b",
    ],
    "daemons.cleanup.raw": [rb"[\x00a]|(?<!\r)\n|\r(?!\n)"],
    "libmail.tables.sql.template": list(sql_template._TOKENS.values()),
    "daemons.smtp.content": [rb"[^\n]{999}[^\n]*+"],
    "libmail.milter.header": [rb"(?im)^X-Name[ \t]*:"],
}
# Why these are linear, which the check cannot see, or meet no input.
EXCEPTIONS: Final[dict[str | bytes, str]] = {
    **dict.fromkeys(sql_template._TOKENS.values(), "reads configuration, once"),
    final_domain._PLAIN.pattern: "the look ahead ends with the label, and so does what follows it",
    address._TOKEN.pattern: "cuts text into tokens: it begins where the last one ended, and a quote"
    " or bracket without its end is one character, behind which no other one can begin a scan",
}


@pytest.mark.parametrize("use", USES, ids=[use.name for use in USES])
def test_linear(use: Use) -> None:
    try:
        patterns = [value_of(use.pattern, use.module)]
    except NameError:
        patterns = list(MADE[use.module])
    for pattern in patterns:
        check(pattern, use)


def check(pattern: object, use: Use) -> None:
    assert isinstance(pattern, str | bytes)
    if pattern in EXCEPTIONS:
        return
    flags = int(value_of(use.flags, use.module)) if use.flags else 0  # type: ignore[call-overload]
    whole = use.methods == {"fullmatch"}
    search = not use.methods <= {"match", "fullmatch"}
    assert ambiguous(pattern, flags, whole=whole, search=search) == "", pattern


@pytest.mark.parametrize(
    ("pattern", "how", "found"),
    [
        (r"(a+)+b", "match", "exponential"),
        (r"(?:x*y*)*", "fullmatch", "exponential"),
        (r"(?:a|aa)*b", "match", "exponential"),
        (r"a*a*b", "match", "quadratic"),
        (r".*a.*b", "match", "quadratic"),
        (r"a*b", "search", "quadratic"),
        (r"(?:b*c)?", "search", "quadratic"),
        (r"[ \t]+$", "search", "quadratic"),
        (r'"(?:[^"\\]|\\.)*"', "search", "quadratic"),
        (r"(?m)^\s*a", "search", "quadratic"),
        (r'"(?:[^"\\]|\\.)*"', "match", ""),
        (r"(?m)^[ \t]*a", "search", ""),
        (r"^[ \t]*a", "search", ""),
        (r"\w+", "search", ""),
        (r"\s*x", "match", ""),
        (r"[^\n]*+\n", "match", ""),
        (r"a{1,3}b", "search", ""),
        (r"(?:ab|ba)*c", "match", ""),
    ],
)
def test_the_check_finds(pattern: str, how: str, found: str) -> None:
    assert ambiguous(pattern, 0, whole=how == "fullmatch", search=how == "search") == found
