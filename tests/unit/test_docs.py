"""What the documents name exists: files, folders, make targets, modules and functions."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from libmail.config import Config
from libmail.service.skeleton import Service, Startup

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

LINK: Final = re.compile(r"\[[^]]*\]\((?!https?:|#|mailto:)([^)#\s]+)")
TARGET: Final = re.compile(r"\bmake ([a-z-]+)\b")
MODULE: Final = re.compile(
    r"`(?!master\.cf\b)((?:libmail|daemons|commands|master)(?:[./]\w+)+)(?:\.py)?(?::([A-Za-z_][\w.]*))?(?:\(\))?`"
)
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)`")
ANY: Final = re.compile(r"(?<![a-z])[A-Z]{4,}(?![a-z])")  # stands for a name: NAME, AREA

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def defined(path: Path) -> set[str]:
    """Names that a module defines at the top, and "Class.method"."""
    names = set()
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            members = (item for item in node.body)
            names |= {f"{node.name}.{m.name}" for m in members if hasattr(m, "name")}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def source_of(dotted: str) -> tuple[Path | None, str]:
    """The file of a dotted name, and what is left of the name behind the module."""
    parts = dotted.removesuffix(".py").replace("/", ".").split(".")
    for end in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:end])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path, ".".join(parts[end:])
    return None, dotted


@each_document
def test_links_lead_somewhere(path: Path) -> None:
    missing = [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert missing == []


@each_document
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    code = re.findall(r"`make [^`]*`|^    make .*", path.read_text(), re.M)
    named = {name for text in code for name in TARGET.findall(text)}
    assert named - targets == set()


def stands_for_some(path: str) -> bool:
    """Whether part of a path stands for a name, as in `daemons/NAME.py`; its folder must exist."""
    before = ANY.split(path)[0]
    return before != path and (ROOT / before).parent.is_dir()


@each_document
def test_modules_and_functions_exist(path: Path) -> None:
    wrong = []
    for dotted, name in MODULE.findall(path.read_text()):
        source, rest = source_of(dotted)
        if (ROOT / dotted).exists() or stands_for_some(dotted):
            continue
        wanted = name or rest
        if source is None or (wanted and wanted not in defined(source)):
            wrong.append(f"{dotted}:{name}" if name else dotted)
    assert wrong == []


@each_document
def test_named_tests_exist(path: Path) -> None:
    named = [name for name in TEST.findall(path.read_text()) if not stands_for_some(name)]
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_flow_stays_one_page() -> None:
    assert len((ROOT / "docs/flow.md").read_text().splitlines()) <= 100


def test_the_example_of_a_daemon_is_one() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.S)
    names: dict[str, object] = {}
    exec(compile(code, "architecture.md", "exec"), names)
    service = names["SERVICE"]
    assert isinstance(service, Service)
    config = Config("/nowhere").override([("myorigin", "x.test")])
    assert service.prepare(Startup(config, "upper", ())) == "x.test"


def test_own_parameters_exist_with_these_defaults() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    named = re.findall(r"^### (\w+) \(default: (.*)\)$", text, re.M)
    config = Config("/nowhere")
    assert named == [(name, config.default(name.replace("NAME", "smtp"))) for name, _ in named]
    assert len(named) > 2
