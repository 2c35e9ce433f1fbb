"""Names of tables, without opening them."""

from __future__ import annotations

import pytest

from libmail.tables.registry import without_proxy


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ("hash:/etc/aliases", "hash:/etc/aliases"),
        ("proxy:hash:/etc/aliases", "hash:/etc/aliases"),
        ("proxy:proxy:hash:/etc/aliases", "hash:/etc/aliases"),
        ("unionmap:{proxy:hash:/a}", "unionmap:{proxy:hash:/a}"),
        ("proxy:", ""),
    ],
)
def test_without_proxy(spec: str, want: str) -> None:
    assert without_proxy(spec) == want
