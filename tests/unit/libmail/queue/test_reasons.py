"""The logs of bounce, defer and trace, also torn ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libmail.ipc.messages import QueueId, Target
from libmail.queue.directory import QueueDirectory
from libmail.queue.reasons import ReasonLog

ID = QueueId("ABCDEF12")
TARGET = Target("a@b", "orig@b", "rfc822;x", 3, 500, "failed", "5.1.1", "no", time=1700000000.25)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReasonLog:
    monkeypatch.chdir(tmp_path)
    return ReasonLog(QueueDirectory(frozenset({"defer"}), 2), "defer")


def test_append_read_remove(log: ReasonLog) -> None:
    second = TARGET._replace(address="c@d", reason="=\udcff = é ")
    os.close(log.append(ID, [TARGET]))
    os.close(log.append(ID, [second]))
    assert log.read(ID) == [TARGET, second._replace(reason="=? = é")]
    assert oct(os.stat("defer/A/B/ABCDEF12").st_mode & 0o777) == "0o600"
    log.remove(ID)
    log.remove(ID)
    assert log.read(ID) == []


def test_each_destination_of_a_recipient_counts_once(log: ReasonLog) -> None:
    other = TARGET._replace(reason="delivers to command: x", time=1.0)
    os.close(log.append(ID, [TARGET, TARGET._replace(offset=9), other]))
    os.close(log.append(ID, [TARGET._replace(time=2.0), other._replace(time=3.0)]))
    assert log.read(ID) == [TARGET, TARGET._replace(offset=9), other]


@pytest.mark.parametrize("cut", [1, 2, 10, 100])
def test_a_torn_record_is_left_out(log: ReasonLog, cut: int) -> None:
    os.close(log.append(ID, [TARGET, TARGET._replace(address="c@d")]))
    path = "defer/A/B/ABCDEF12"
    os.truncate(path, os.stat(path).st_size - cut)
    left = log.read(ID)
    assert left[0] == TARGET
    assert len(left) == (2 if cut == 1 else 1)
    os.close(log.append(ID, [TARGET._replace(address="e@f")]))
    assert "e@f" in [target.address for target in log.read(ID)]


TEXT = st.text(max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=3))
def test_any_text_makes_one_record(log: ReasonLog, texts: list[tuple[str, str, str]]) -> None:
    log.remove(ID)
    targets = [
        TARGET._replace(address=address, reason=reason, diag_text=diagnosis, offset=at)
        for at, (address, reason, diagnosis) in enumerate(texts)
    ]
    os.close(log.append(ID, targets))
    assert [target.offset for target in log.read(ID)] == list(range(len(texts)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=200))
def test_any_file_is_read(log: ReasonLog, data: bytes) -> None:
    os.makedirs("defer/A/B", exist_ok=True)
    Path("defer/A/B/ABCDEF12").write_bytes(data)
    log.read(ID)
