"""Rows with filters in the way of relayed mail: a Milter, a filter after the queue, many patterns.

Neither filter does any work worth mentioning, as it is the mail system that is measured. The one
after the queue does nothing at all: mail goes from the queue right back to a second smtpd.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tests.system.harness import free_port
from tests.system.processes import is_listening, wait_until

__all__ = ["ROWS", "FilterRow", "Setup"]

_ROOT: Final = Path(__file__).resolve().parents[1]
_PATTERNS: Final = 200


class Setup(NamedTuple):
    """What a system has in addition. files: text by name, in the directory of main.cf."""

    main: dict[str, str | None]
    master: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FilterRow:
    """One row. setup: for one system, and what has to run beside it meanwhile."""

    name: str
    title: str
    setup: Callable[[], AbstractContextManager[Setup]]


@contextlib.contextmanager
def _milter() -> Iterator[Setup]:
    port = free_port()
    milter = subprocess.Popen([sys.executable, "-m", "bench.milter", str(port)], cwd=_ROOT)
    try:
        wait_until(lambda: is_listening(port))
        yield Setup({"smtpd_milters": f"inet:127.0.0.1:{port}"})
    finally:
        milter.terminate()
        milter.wait()


@contextlib.contextmanager
def _after_queue() -> Iterator[Setup]:
    port = free_port()
    again = f"127.0.0.1:{port} inet n - n - - smtpd -o content_filter= -o syslog_name=postfix/again"
    yield Setup({"content_filter": f"smtp:[127.0.0.1]:{port}"}, (again,))


@contextlib.contextmanager
def _checks() -> Iterator[Setup]:
    """Tables as sites have them: words of spam in subjects and bodies, names of programs."""
    half = range(_PATTERNS // 2)
    header = "".join(
        f"/^Subject:.*\\b(cheap|free|best) *product{n}\\b/ REJECT spam {n}\n" for n in half
    )
    body = "".join(f"/^.*(http|ftp):\\/\\/www\\.bad{n}\\.test\\/[a-z]+/ REJECT {n}\n" for n in half)
    tables = ("header_checks", header), ("body_checks", body)
    yield Setup({name: f"pcre:$config_directory/{name}" for name, _ in tables}, files=tables)


ROWS: Final = (
    FilterRow("milter", "relay 4 KB, a Milter adds a header", _milter),
    FilterRow("filter", "relay 4 KB, content filter after the queue", _after_queue),
    FilterRow("checks", f"relay 4 KB, {_PATTERNS} patterns for header and body", _checks),
)
