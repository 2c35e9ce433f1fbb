"""What is process-wide in a daemon starts anew in each test."""

from weakref import WeakSet

import pytest

from libmail.files import freshness


@pytest.fixture(autouse=True)
def nothing_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "_READ_ONCE", {})
    monkeypatch.setattr(freshness, "_HELD", WeakSet())
