"""The records of flush: written, taken, tidied."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libmail.ipc.messages import QueueId
from libmail.queue.directory import QueueDirectory
from libmail.queue.sites import SiteRecords

ONE, TWO, THREE = QueueId("0123456789"), QueueId("ABCDEF0123"), QueueId("3PdLQj0dMTz1K")
HOUR, DAY = 3600.0, 86400.0


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flush").mkdir()
    (tmp_path / "deferred").mkdir()


@pytest.fixture
def records() -> SiteRecords:
    return SiteRecords(QueueDirectory(frozenset()))


def test_what_was_added_is_taken_once(records: SiteRecords) -> None:
    for queue_id in (ONE, TWO, ONE, THREE):
        records.add("site.test", queue_id)
    records.add("other.test", TWO)
    assert records.take("Site.TEST") == [ONE, TWO, THREE]
    assert records.take("site.test") == []
    assert records.take("never.test") == []
    assert records.take("other.test") == [TWO]


def test_recipients_of_a_message_count_once(records: SiteRecords) -> None:
    for _ in range(50):
        records.add("site.test", ONE)
    assert Path("flush/site.test").read_text() == f"{ONE}\n"


@pytest.mark.parametrize(
    ("site", "name"),
    [
        ("Site.TEST", "site.test"),
        ("[192.0.2.1]", "%5b192.0.2.1%5d"),
        ("[IPv6:::1]", "%5bipv6%3a%3a%3a1%5d"),
        ("a_b.c", "a%5fb.c"),
    ],
)
def test_names_of_files(records: SiteRecords, site: str, name: str) -> None:
    assert records.path(site) == f"flush/{name}"


def test_hashed_directory() -> None:
    records = SiteRecords(QueueDirectory(frozenset({"flush"}), 3))
    assert records.path("x.test") == "flush/x/_/t/x.test"
    records.add("x.test", ONE)
    assert list(records.paths()) == ["flush/x/_/t/x.test"]
    assert records.take("x.test") == [ONE]


def test_a_torn_line_spoils_nothing_else(records: SiteRecords) -> None:
    Path("flush/site.test").write_bytes(b"0123\xff\n\n../../etc\n0123456789\nABC")
    records.add("site.test", TWO)
    assert records.take("site.test") == [ONE, TWO]


def tidy(records: SiteRecords, after: float) -> None:
    path = "flush/site.test"
    records.tidy(path, os.stat(path).st_mtime + after, refresh=12 * HOUR, purge=7 * DAY)


def test_refresh_strikes_out_what_has_gone(records: SiteRecords) -> None:
    for queue_id in (ONE, TWO):
        records.add("site.test", queue_id)
    Path("deferred", TWO).touch()
    tidy(records, 11 * HOUR)
    assert Path("flush/site.test").read_text() == f"{ONE}\n{TWO}\n"
    tidy(records, 13 * HOUR)
    assert Path("flush/site.test").read_text() == f"{TWO}\n"
    tidy(records, 30 * DAY)  # what is not empty is not purged
    assert records.take("site.test") == [TWO]


def test_purge_removes_what_was_not_used(records: SiteRecords) -> None:
    records.add("site.test", ONE)
    records.take("site.test")
    tidy(records, 6 * DAY)
    assert Path("flush/site.test").exists()
    tidy(records, 8 * DAY)
    assert not Path("flush/site.test").exists()
    records.tidy("flush/site.test", 0.0, refresh=1, purge=1)  # gone meanwhile
    records.add("site.test", TWO)
    assert records.take("site.test") == [TWO]
