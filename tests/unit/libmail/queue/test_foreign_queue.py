"""Mail of an original Postfix in the queue directory: nobody starts on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from libmail.log import Fatal
from libmail.queue.foreign_queue import foreign_mail, refuse_foreign_mail

# The first records of a queue file of Postfix: sizes, then the time of arrival.
HEAD = b"C\x5f            512             600               1               0             512    "
ORIGINAL = HEAD + b" " * (0x5F + 2 - len(HEAD)) + b"T\x111700000000 123456"


@pytest.mark.parametrize(
    "name", ["incoming/3B2A1F00", "active/4KxYzT3dBrz1pq", "deferred/A/B/AB2A1F00", "hold/3B2A1F00"]
)
def test_mail_of_the_original(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(ORIGINAL)
    assert foreign_mail(str(tmp_path)) == name
    with pytest.raises(Fatal, match=f"^{tmp_path}: {name} .*postsuper --import"):
        refuse_foreign_mail(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("maildrop/3B2A1F00", ORIGINAL),  # pickup takes it
        ("corrupt/3B2A1F00", ORIGINAL),
        ("incoming/not-an-id", ORIGINAL),
        ("incoming/3B2A1F00", b""),
        ("incoming/3B2A1F00", b"C"),
        ("incoming/3B2A1F00", b"Come and see"),
        ("incoming/3B2A1F00", b"\x93MAILQ1\n" + bytes(120)),
    ],
)
def test_what_is_none(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    (tmp_path / "hold").mkdir()
    (tmp_path / "hold/3B2A1F01").symlink_to("/dev/zero")
    assert foreign_mail(str(tmp_path)) == ""
    refuse_foreign_mail(str(tmp_path))
