"""The forms of postqueue -p and -j."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.postqueue.listing import ListingRefused, json_lines, parse_stream, table_lines
from libmail.queue.queued import QueuedMessage, QueuedRecipient

GREETING = b"protocol\0mail_queue_list_protocol\0\0"
RECORD = (
    b"queue_name\0deferred\0queue_id\0ABCDEF12\0time\0001700000000\0size\0002048\0"
    b"forced_expire\0000\0sender\0a@b\0recipient\0c@d\0reason\0no\0recipient\0e@f\0reason\0\0\0"
)


def reader(data: bytes, size: int = 1 << 16) -> Callable[[], bytes]:
    pieces = iter([data[at : at + size] for at in range(0, len(data), size)])
    return lambda: next(pieces, b"")


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_parse_stream(size: int) -> None:
    (first, second) = parse_stream(reader(GREETING + RECORD + RECORD + b"\0", size))
    assert (first.queue_name, first.queue_id, first.time) == ("deferred", "ABCDEF12", 1700000000)
    assert [(r.address, r.reason) for r in second.recipients] == [("c@d", "no"), ("e@f", "")]


def test_refusal() -> None:
    with pytest.raises(ListingRefused, match="not allowed"):
        list(parse_stream(reader(GREETING + b"error\0User x is not allowed\0\0\0")))


BAD = [
    ("empty", b""),
    ("no greeting", RECORD),
    ("cut", GREETING + RECORD[:40]),
    ("no end", GREETING + RECORD),
    ("bad id", GREETING + RECORD.replace(b"ABCDEF12", b"A\x1b[2J")),
    ("bad size", GREETING + RECORD.replace(b"2048", b"-2")),
    ("bad time", GREETING + RECORD.replace(b"1700000000", b"9" * 5000)),
    ("no sender", GREETING + RECORD.replace(b"sender\0a@b\0", b"")),
]


@pytest.mark.parametrize("data", [c[1] for c in BAD], ids=[c[0] for c in BAD])
def test_malformed_streams(data: bytes) -> None:
    with pytest.raises(ValueError):
        list(parse_stream(reader(data)))


@given(st.binary(max_size=100), st.integers(0, len(RECORD)))
def test_any_stream_is_read_or_refused(noise: bytes, at: int) -> None:
    try:
        for message in parse_stream(reader(GREETING + RECORD[:at] + noise + b"\0")):
            list(table_lines([message], long_ids=False))
    except (ValueError, ListingRefused):
        pass


def message(**changes: object) -> QueuedMessage:
    found = next(parse_stream(reader(GREETING + RECORD)))
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def test_table() -> None:
    recipients = [QueuedRecipient("c@d", "no"), QueuedRecipient("e@f", "no")]
    lines = list(table_lines([message(recipients=recipients)] * 2, long_ids=False))
    stamp = time.ctime(1700000000)[:20]
    assert lines == [
        "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------",
        *[f"ABCDEF12       2048 {stamp} a@b", " " * 74 + "(no)",
          " " * 41 + "c@d", " " * 41 + "e@f", ""] * 2,
        "-- 4 Kbytes in 2 Requests.",
    ]  # fmt: skip


def test_table_of_long_queue_ids() -> None:
    found = message(queue_id="4jf2kf5YMsz5j", recipients=[QueuedRecipient("c@d", "no")])
    stamp = time.ctime(1700000000)[:19]
    assert list(table_lines([found], long_ids=True))[:-2] == [
        "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------",
        f"4jf2kf5YMsz5j         2048 {stamp} a@b",
        " " * 74 + "(no)",
        " " * 47 + "c@d",
    ]


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({}, "ABCDEF12 "),
        ({"queue_name": "active"}, "ABCDEF12*"),
        ({"queue_name": "hold"}, "ABCDEF12!"),
        ({"queue_name": "deferred", "forced_expire": True}, "ABCDEF12# "),
        ({"queue_name": "hold", "forced_expire": True}, "ABCDEF12!# "),
    ],
)
def test_marks(changes: dict[str, object], start: str) -> None:
    assert list(table_lines([message(**changes)], long_ids=True))[1].startswith(start)


def test_empty_queue() -> None:
    assert list(table_lines([], long_ids=False)) == ["Mail queue is empty"]
    assert list(json_lines([])) == []


def test_json() -> None:
    (line,) = json_lines([message(sender="")])
    assert json.loads(line) == {
        "queue_name": "deferred",
        "queue_id": "ABCDEF12",
        "arrival_time": 1700000000,
        "message_size": 2048,
        "forced_expire": False,
        "sender": "MAILER-DAEMON",
        "recipients": [
            {"orig_address": "", "address": "c@d", "delay_reason": "no"},
            {"orig_address": "", "address": "e@f"},
        ],
    }
