"""What options do to messages, and what is said about it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from commands.postsuper import Failure, _maintain, _parse
from libmail.log import LOG
from libmail.queue.directory import QUEUES, QueueDirectory
from libmail.queue.file import FORCED_EXPIRY

QUEUE = QueueDirectory(frozenset())
ONE, TWO, THREE = "0123456789", "123456789A", "23456789AB"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in QUEUES:
        (tmp_path / name).mkdir()
    LOG.open(lambda severity, head, text: None, "postfix/postsuper")


def make(queue_name: str, *names: str, mode: int = 0o700) -> None:
    for name in names:
        path = Path(queue_name, name)
        path.touch()
        path.chmod(mode)


def where() -> dict[str, str]:
    return {
        path.name: path.parent.name + ("#" if os.stat(path).st_mode & FORCED_EXPIRY else "")
        for path in Path().glob("*/*")
    }


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    _maintain(_parse(words), QUEUE)
    return capsys.readouterr().err.replace("postsuper: ", "").splitlines()


def test_hold_and_release(capsys: pytest.CaptureFixture[str]) -> None:
    make("deferred", ONE, TWO)
    assert said(capsys, "-h", ONE) == [f"{ONE}: placed on hold", "Placed on hold: 1 message"]
    assert where() == {ONE: "hold", TWO: "deferred"}
    assert said(capsys, "-h", "ALL") == ["Placed on hold: 1 message"]
    assert said(capsys, "-H", "ALL") == ["Released from hold: 2 messages"]
    assert where() == {ONE: "deferred", TWO: "deferred"}


def test_maildrop_is_not_held(capsys: pytest.CaptureFixture[str]) -> None:
    make("maildrop", ONE)
    assert said(capsys, "-h", "ALL") == ["Placed on hold: 0 messages"]
    assert said(capsys, "-d", "ALL") == ["Deleted: 1 message"]


@pytest.mark.parametrize("option", ["-d", "-h", "-r", "-e", "-f"])
@pytest.mark.parametrize("what", ["ALL", ONE])
def test_a_message_that_is_being_received_is_left_alone(
    capsys: pytest.CaptureFixture[str], option: str, what: str
) -> None:
    """Who writes it would find it gone, and have said 250."""
    make("incoming", ONE, mode=0o600)
    assert all(line.endswith(": 0 messages") for line in said(capsys, option, what))
    assert where() == {ONE: "incoming"}


def test_expire_leaves_mail_on_hold(capsys: pytest.CaptureFixture[str]) -> None:
    make("hold", ONE)
    assert said(capsys, "-e", ONE, "-e", ONE) == [f"{ONE}: expired", "Force-expired: 1 message"]
    assert where() == {ONE: "hold#"}


def test_expire_and_release(capsys: pytest.CaptureFixture[str]) -> None:
    make("hold", ONE, TWO)
    make("deferred", THREE)
    assert said(capsys, "-f", ONE) == [
        f"{ONE}: expired",
        f"{ONE}: released from hold",
        "Force-expired: 1 message",
        "Released from hold: 1 message",
    ]
    assert said(capsys, "-f", "ALL") == [
        "Force-expired: 2 messages",
        "Released from hold: 1 message",
    ]
    assert where() == {ONE: "deferred#", TWO: "deferred#", THREE: "deferred#"}


def test_one_total_for_each_action(capsys: pytest.CaptureFixture[str]) -> None:
    make("deferred", ONE, TWO, THREE)
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/postsuper")
    assert said(capsys, "-r", ONE, "-d", TWO, "-d", "foo", "-d", "a/b", "-d", "") == [
        f"{TWO}: removed",
        f"{ONE}: requeued",
        "Requeued: 1 message",
        "Deleted: 1 message",
    ]
    assert logged[:2] == [
        "warning: invalid mail queue id: a/b",
        "warning: invalid mail queue id: ",
    ]
    assert where() == {ONE: "maildrop", THREE: "deferred"}


def test_requeued_mail_leaves_no_logs(capsys: pytest.CaptureFixture[str]) -> None:
    make("deferred", ONE)
    make("defer", ONE, TWO, mode=0o600)
    said(capsys, "-r", "ALL")
    assert sorted(map(str, Path().glob("*/*"))) == [f"defer/{TWO}", f"maildrop/{ONE}"]


def test_names_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make("hold", ONE, TWO)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ONE}\n../x\n{THREE}\n{TWO}"))
    assert said(capsys, "-f", "-")[-2:] == [
        "Force-expired: 2 messages",
        "Released from hold: 2 messages",
    ]
    assert where() == {ONE: "deferred#", TWO: "deferred#"}


def test_only_the_queues_that_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    make("deferred", ONE)
    make("hold", TWO)
    assert said(capsys, "-d", "ALL", "hold") == ["Deleted: 1 message"]
    assert said(capsys, "-d", "ALL", "bounce", "flush") == ["Deleted: 0 messages"]
    assert where() == {ONE: "deferred"}
    with pytest.raises(Failure, match="invalid directory name: nosuch"):
        _parse(["-d", "ALL", "nosuch"])
