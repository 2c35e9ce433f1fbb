"""docs/messages.md tells what libmail/ipc/messages.py declares."""

from __future__ import annotations

import re

from libmail.ipc import messages
from tests.messages_page import PAGE, elements, render, type_name


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == render(), "out of date: make docs"


def test_every_class_has_a_section_and_a_docstring() -> None:
    sections = set(re.findall(r"^## (\w+)$\n\n(?!\n|[|])", render(), re.M))
    exported = {name for name in messages.__all__ if isinstance(getattr(messages, name), type)}
    assert sections == exported


def test_elements_are_told_from_messages() -> None:
    declared = [messages.Recipients, messages.NewMail, messages.BounceAppend]
    assert elements(declared) == {messages.Recipient, messages.Target}


def test_types_are_written_as_in_the_source() -> None:
    assert type_name(tuple[messages.Recipient, ...]) == "tuple[Recipient, ...]"
    assert type_name(messages.QueueId) == "QueueId"
    assert type_name(float) == "float"
