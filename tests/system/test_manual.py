"""Manual pages are correct for both formatters that systems have."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.system.harness import need_tool

MANUAL = Path(__file__).resolve().parents[2] / "man"
LINK = ".so "
DEBIAN = MANUAL.parent / "packaging/debian/man"
PAGES = sorted([*MANUAL.rglob("*.[158]"), *DEBIAN.iterdir()])
LINKS = [page for page in PAGES if page.read_text("utf-8").startswith(LINK)]


@pytest.mark.parametrize(
    "command",
    ["mandoc -T lint -W warning", "groff -mandoc -T utf8 -ww -z"],
    ids=["mandoc", "groff"],
)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in LINKS], ids=lambda page: page.name
)
def test_formatters_have_nothing_to_say(command: str, page: Path) -> None:
    program, *arguments = command.split()
    line = [need_tool(program), *arguments, str(page)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("page", LINKS, ids=lambda page: page.name)
def test_other_names_lead_to_a_page(page: Path) -> None:
    (line,) = page.read_text("utf-8").splitlines()
    target = MANUAL / line.removeprefix(LINK)
    assert target in PAGES
    assert target not in LINKS
