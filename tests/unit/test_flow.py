"""The names in docs/flow.md are true: functions, wire messages, queues, states."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Final

import pytest

from libmail.ipc import messages
from libmail.queue.directory import QUEUES

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
FUNCTION: Final = re.compile(r"`([a-z][\w.]*):([A-Za-z_][\w.]*)`")
WORD: Final = re.compile(r"`(\w+)`")
STATE: Final = re.compile(r"\bS\d+\b")
HEADINGS: Final = ["hop", "function", "wire", "queue file"]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, without their head lines."""
    lines = (line for line in text.splitlines() if line.startswith("|"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row != HEADINGS and not row[0].startswith("---")]


FLOW: Final = (DOCS / "flow.md").read_text("utf-8")
ROWS: Final = rows(FLOW)
NAMES: Final = sorted(set(FUNCTION.findall(FLOW)))


def cell_id(name: tuple[str, str]) -> str:
    return ":".join(name)


def test_every_row_has_its_cells() -> None:
    assert len(ROWS) > 30
    assert [row for row in ROWS if len(row) != len(HEADINGS)] == []
    assert [row[0] for row in ROWS if not FUNCTION.search(row[1])] == []


# pyinotify brings asyncore along.
@pytest.mark.filterwarnings("ignore:The asyncore module:DeprecationWarning")
@pytest.mark.parametrize("name", NAMES, ids=cell_id)
def test_functions_exist(name: tuple[str, str]) -> None:
    found: object = importlib.import_module(name[0])
    for part in name[1].split("."):
        found = getattr(found, part)
    assert callable(found)


def test_functions_are_nothing_but_that() -> None:
    for row in ROWS:
        assert re.sub(r"[, ]", "", FUNCTION.sub("", row[1])) == ""


def test_wire_messages_exist() -> None:
    named = {word for row in ROWS for word in WORD.findall(row[2])}
    assert sorted(named - set(messages.__all__)) == []


def test_every_message_of_the_way_is_named() -> None:
    """The others are for what happens beside it."""
    named = {word for row in ROWS for word in WORD.findall(row[2])}
    beside = {
        "CleanupAbort",
        "ConnectReply",
        "ConnectRequest",
        "FlushAdd",
        "FlushReply",
        "FlushSite",
        "Leaving",
        "ResolveMany",
        "ResolvedMany",
        "QueueFlush",
        "ScratchRequest",
    }
    beside |= {"TableDelete", "TableEntries", "TableList", "TableUpdate"}
    assert named == {kind.__name__ for kind in sent()} - beside


def sent() -> list[type]:
    """The classes that are messages: not the flags, and not what is sent only inside another."""
    classes = [getattr(messages, name) for name in messages.__all__]
    inside = (
        messages.EventNumber,
        messages.EventUse,
        messages.Recipient,
        messages.TableEntry,
        messages.Target,
        messages.TicketKeyRecord,
    )
    return [cls for cls in classes if hasattr(cls, "_fields") and cls not in inside]


def test_queues_and_states_exist() -> None:
    cells = [row[3] for row in ROWS]
    named = {word for cell in cells for word in WORD.findall(cell)}
    assert sorted(named - set(QUEUES)) == []
    known = set(STATE.findall((DOCS / "queue.md").read_text("utf-8")))
    assert {state for cell in cells for state in STATE.findall(cell)} <= known
