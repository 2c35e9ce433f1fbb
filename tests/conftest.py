"""Options and fixtures of all tests.

--loop=asyncio|uvloop chooses the event loop; with uvloop only those test modules run that
use one, the others would only repeat themselves.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import hypothesis
import pytest

TIME_LIMIT: Final = 600  # seconds


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loop", choices=("asyncio", "uvloop"), default="asyncio")


def pytest_configure(config: pytest.Config) -> None:
    # Tests that start an interpreter of their own, in whatever directory, find the tree.
    os.environ["PYTHONPATH"] = str(config.rootpath)
    # How long an example takes says nothing on a loaded machine. In CI the examples are always
    # the same: a search that finds something new there would blame a change that did not do it.
    hypothesis.settings.register_profile(
        "patient",
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
        derandomize=os.environ.get("CI") == "true",
    )
    hypothesis.settings.load_profile("patient")
    if config.getoption("--loop") == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.getoption("--loop") == "uvloop" and collection_path.name.startswith("test_"):
        return True if b"asyncio" not in collection_path.read_bytes() else None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `root` are skipped for ordinary users; never silently in CI."""
    if os.geteuid() == 0 or os.environ.get("CI") == "true":
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """No test hangs for ever: it gets a TimeoutError instead."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"the test took longer than {TIME_LIMIT} seconds")

    old = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TIME_LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A temporary directory with a short name, for UNIX sockets, that every account may enter."""
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="mail-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)
