"""Lines that a stranger can cause, and lines in the name of a command."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from libmail.log import Logger
from libmail.log.logger import PostlogSink


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def log(lines: list[str]) -> Logger:
    logger = Logger()
    logger.open(lambda severity, head, text: lines.append(f"{head}{text}"), "postfix/showq")
    return logger


def test_one_line_of_a_kind_in_an_interval(
    log: Logger, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("libmail.log.logger.time.monotonic", lambda: now)
    for number in range(1000):
        log.seldom("x: too many", f": uid={number}")
    log.seldom("y: other")
    now = 111.0
    log.seldom("x: too many", ": uid=7")
    log.seldom("y: other")
    assert [line.partition("]: ")[2] for line in lines] == [
        "warning: x: too many: uid=0",
        "warning: y: other",
        "warning: x: too many: uid=7 (999 more since the last such line)",
        "warning: y: other",
    ]


def test_the_name_of_a_command(log: Logger, lines: list[str]) -> None:
    log.info("one")
    with log.instead_of("postqueue"):
        log.fatal("two")
    log.info("three")
    assert [" postfix/postqueue[" in line for line in lines] == [False, True, False]
    assert [" postfix/showq[" in line for line in lines] == [True, False, True]


@pytest.mark.parametrize(("terminal", "shown"), [(True, "postfix/showq"), (False, "postlog")])
def test_who_speaks_on_standard_error(
    log: Logger, monkeypatch: pytest.MonkeyPatch, terminal: bool, shown: str
) -> None:
    monkeypatch.setattr("libmail.log.logger.os.isatty", lambda fd: terminal and fd == 2)
    assert log.shown_tag() == shown


def test_lines_of_other_threads_go_by_themselves(short_tmp: Path) -> None:
    """The event loop's timers are its own, and so is what waits to be sent together."""
    timers: list[int] = []

    def later(seconds: float, flush: Callable[[], None]) -> None:
        timers.append(threading.get_ident())

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as postlogd:
        postlogd.bind(str(short_tmp / "postlog"))
        postlogd.setblocking(False)
        logger = Logger()
        logger.open(PostlogSink(str(short_tmp / "postlog"), lambda *_: None), "postfix/local")
        logger.batch(later)
        logger.info("one")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(logger.info, "two").result()
        assert postlogd.recv(1000).endswith(b"]: two\n")
        assert timers == [threading.get_ident()]
        logger.batch(None)
        assert postlogd.recv(1000).endswith(b"]: one\n")
