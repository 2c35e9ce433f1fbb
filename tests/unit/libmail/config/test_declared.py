"""The declarations of parameters are complete and without contradiction."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from libmail.config import Config
from libmail.config.core import kind_of
from libmail.config.declare import LIST, split_list
from libmail.config.declared import all_parameters
from libmail.config.families import FAMILIES

ROOT = Path(__file__).parents[4]
CODE = ("libmail", "daemons", "commands", "master")


@pytest.mark.parametrize("name", sorted(all_parameters()))
def test_default_is_usable(name: str) -> None:
    parameter = all_parameters()[name]
    opened = Config("/nowhere", process_name="test", service_name="test")
    text = opened.text(name) if parameter.kind.expanded else parameter.default
    parameter.kind.parse(name, text)
    assert parameter.programs


def test_defaults_of_families_are_usable() -> None:
    opened = Config("/nowhere")
    for suffix in FAMILIES:
        opened.family(suffix, "some")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("a, b\tc,,d", ("a", "b", "c", "d")),
        ("check { inet:x:1, y = z } b", ("check", "{ inet:x:1, y = z }", "b")),
        ("inline:{{a=b c}, d=e} f", ("inline:{{a=b c}, d=e}", "f")),
        ("a } b {c", ("a", "}", "b", "{c")),
        ("a\u00a0b", ("a\u00a0b",)),
    ],
)
def test_lists(text: str, expected: tuple[str, ...]) -> None:
    assert split_list(text) == expected


def _files_with_records() -> list[str]:
    paths = [path for top in CODE for path in sorted((ROOT / top).rglob("*.py"))]
    return [str(path.relative_to(ROOT)) for path in paths if "Params:" in path.read_text()]


@pytest.mark.parametrize("file", _files_with_records())
def test_records_fit_the_declarations(file: str) -> None:
    wrong: list[str] = []
    for cls in ast.walk(ast.parse((ROOT / file).read_text())):
        if not (isinstance(cls, ast.ClassDef) and cls.name.endswith("Params")):
            continue
        for field in cls.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                kind = kind_of(field.target.id)
                annotation = ast.unparse(field.annotation)
                fits = kind is not None and annotation in (
                    (kind.annotation, "str") if kind is LIST else (kind.annotation,)
                )
                if not fits:
                    wrong.append(f"{cls.name}.{field.target.id}: {annotation}")
    assert wrong == []
