"""Every parameter is read by some program, or said to be without effect; never both."""

from __future__ import annotations

import re
from pathlib import Path

from libmail.config.declared import all_parameters
from libmail.config.parameters.without_effect import FOR_INSTALLERS, HARMLESS, NEVER
from tests.unit.libmail.config.readers import fields_of, programs, read_by, read_by_any, used_names

SILENT = NEVER | FOR_INSTALLERS | HARMLESS


def test_what_nobody_reads_is_in_the_list() -> None:
    assert all_parameters().keys() - read_by_any() == SILENT


def test_what_is_read_is_not_in_the_list() -> None:
    assert not read_by_any() & SILENT


def test_the_reasons_are_told() -> None:
    """Whoever misses a parameter finds in the documentation why it does nothing."""
    page = (Path(__file__).parents[4] / "docs/differences.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`([a-zA-Z0-9_]+)`", row)}
    assert told >= NEVER | FOR_INSTALLERS | HARMLESS
    assert not told & read_by_any()


def test_what_is_loaded_is_used() -> None:
    loaded = {name for program in programs() for name in fields_of(program)}
    assert loaded <= used_names()


def test_who_is_said_to_read_a_parameter_does() -> None:
    wrong = [
        (name, program)
        for name, parameter in all_parameters().items()
        for program in parameter.programs.split()
        if program != "*" and name not in SILENT and name not in read_by(program)
    ]
    assert wrong == []


def test_who_loads_a_parameter_is_said_to_read_it() -> None:
    parameters = all_parameters()
    wrong = [
        (name, program)
        for program in programs()
        for name in fields_of(program) & parameters.keys()
        if not {"*", program} & set(parameters[name].programs.split())
    ]
    assert wrong == []
