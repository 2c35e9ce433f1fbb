"""The size and shape of the code: `python -m tests.measures`, which `make lint` runs.

Prints what is measured and fails on what is not allowed: a function over 60 lines, a class over
350, a function without types, packages that import each other in a circle. Code is what gets
installed.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.unit.test_layers import circle, folder_edges

__all__ = ["ROOT", "TOO_LONG", "Code", "Part", "main", "problems", "read_code"]

ROOT: Final = Path(__file__).resolve().parents[1]
PROGRAMS: Final = ("libmail", "daemons", "commands", "master")
LONGEST_FUNCTION: Final = 60
LONGEST_CLASS: Final = 350
COPY: Final = 8  # equal lines in a row that count as copied

# What is too long for now. Nothing is; what has to be for a while is named here, not measured away.
TOO_LONG: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Part:
    """A function or class: where it is, and its length in lines."""

    name: str
    place: str
    lines: int


@dataclass(slots=True)
class Code:
    """What was read. copied: lines that are there twice."""

    functions: list[Part] = field(default_factory=list)
    classes: list[Part] = field(default_factory=list)
    untyped: list[Part] = field(default_factory=list)
    files: list[Part] = field(default_factory=list)
    copied: int = 0


def read_code(root: Path = ROOT) -> Code:
    """Measure all modules below the folders of the programs."""
    code = Code()
    texts: list[str] = []
    for path in sorted(path for name in PROGRAMS for path in (root / name).rglob("*.py")):
        text = path.read_text("utf-8")
        place = str(path.relative_to(root))
        code.files.append(Part(place, place, text.count("\n")))
        _read_module(code, ast.parse(text), place)
        texts.append(text)
    code.copied = _copied_lines(texts)
    return code


def _read_module(code: Code, tree: ast.Module, place: str) -> None:
    module = place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                part = Part(f"{module}.{node.name}", f"{place}:{node.lineno}", _length(node))
                code.functions.append(part)
                if not _is_typed(node):
                    code.untyped.append(part)
            case ast.ClassDef():
                part = Part(f"{module}.{node.name}", f"{place}:{node.lineno}", _length(node))
                code.classes.append(part)


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _is_typed(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether all is annotated but `self` and `cls`."""
    args = node.args
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    rest = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    missing = [arg for arg in (*named, *rest) if arg.annotation is None]
    return node.returns is not None and all(arg.arg in ("self", "cls") for arg in missing)


def _copied_lines(texts: Iterable[str]) -> int:
    """Lines in runs of COPY equal ones (without blank ones and imports) that are there twice."""
    seen: dict[bytes, tuple[int, int]] = {}
    copied: set[tuple[int, int]] = set()
    for number, text in enumerate(texts):
        lines = [line.strip() for line in text.splitlines()]
        lines = [x for x in lines if x and not x.startswith(("import ", "from ", "#"))]
        for at in range(len(lines) - COPY + 1):
            key = hashlib.blake2b(
                "\n".join(lines[at : at + COPY]).encode(), digest_size=12
            ).digest()
            first = seen.setdefault(key, (number, at))
            if first != (number, at):
                copied.update((number, at + k) for k in range(COPY))
    return len(copied)


def problems(code: Code, too_long: frozenset[str] = TOO_LONG) -> list[str]:
    """What must not be, a line each."""
    limits = ((code.functions, LONGEST_FUNCTION), (code.classes, LONGEST_CLASS))
    long = {part.name: part for parts, limit in limits for part in parts if part.lines > limit}
    found = [
        f"{part.place}: {part.name} has {part.lines} lines"
        for name, part in long.items()
        if name not in too_long
    ]
    found += [f"{part.place}: {part.name} is not annotated" for part in code.untyped]
    done = sorted(too_long - long.keys())
    return found + [
        f"tests/measures.py: {name} is not too long: take it off the list" for name in done
    ]


def _share(values: Sequence[int], share: float) -> int:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _row(title: str, parts: Sequence[Part]) -> str:
    lines = [part.lines for part in parts]
    shares = " ".join(f"{_share(lines, share):6d}" for share in (0.5, 0.9, 0.99))
    longest = max(parts, key=lambda part: part.lines)
    return f"{title:<10}{len(lines):6d} {shares} {longest.lines:6d}  {longest.name}"


def report(code: Code) -> Iterator[str]:
    """The measures as a table."""
    total = sum(part.lines for part in code.files)
    yield f"{'lines':<10}{'count':>6} {'median':>6} {'p90':>6} {'p99':>6} {'max':>6}"
    yield _row("functions", code.functions)
    yield _row("classes", code.classes)
    yield _row("files", code.files)
    yield f"copied: {100 * code.copied / total:.1f} % of {total} lines"
    yield f"not annotated: {len(code.untyped)} functions"
    if TOO_LONG:
        yield f"still too long: {' '.join(sorted(TOO_LONG))}"


def main() -> int:
    """Print measures and problems; the exit status."""
    code = read_code()
    for line in report(code):
        print(line)
    found = problems(code)
    if packages := circle(folder_edges()):
        found.append(f"packages import each other: {' '.join(packages)}")
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
