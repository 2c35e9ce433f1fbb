"""Names of tables, without opening them."""

from __future__ import annotations

import pytest

from libmail.tables.registry import is_pattern, split_spec, without_proxy
from libmail.tables.table import TableConfigError


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


def test_names() -> None:
    """A table has one, but for that of MTA-STS, of which there is one only."""
    assert split_spec("hash:/etc/aliases") == ("hash", "/etc/aliases")
    assert split_spec("mta-sts:") == ("mta-sts", "")
    assert is_pattern("mta-sts:")
    for spec in ("hash:", "hash", ":x", ""):
        with pytest.raises(TableConfigError, match='expecting "type:name" form'):
            split_spec(spec)
