"""Senders that name the recipient."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.message.verp import usable_delimiters, verp_sender


@pytest.mark.parametrize(
    ("sender", "delimiters", "recipient", "wanted"),
    [
        ("owner-list@origin", "+=", "user@domain", "owner-list+user=domain@origin"),
        ("list@origin", "-=", "user", "list-user@origin"),
        ("list", "+=", "user@domain", "list+user=domain"),
        ("a@b@origin", "+=", "c@d@domain", "a@b+c@d=domain@origin"),
        ("list@origin", "+=", "b c@domain", "list+b c=domain@origin"),
    ],
)
def test_sender(sender: str, delimiters: str, recipient: str, wanted: str) -> None:
    assert verp_sender(sender, delimiters, recipient) == wanted


@given(st.text(), st.text())
def test_recipient_can_be_told_again(user: str, domain: str) -> None:
    domain = domain.replace("@", "").replace("=", "")
    found = verp_sender("list@origin", "+=", f"{user}@{domain}")
    assert found.removeprefix("list+").removesuffix("@origin").rpartition("=") == (
        user, "=", domain
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "usable"),
    [("+=", True), ("--", True), ("+", False), ("", False), ("+=+", False), ("a=", False)],
)
def test_delimiters(text: str, usable: bool) -> None:
    assert usable_delimiters(text, "-=+") is usable
