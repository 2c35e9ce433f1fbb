"""Fixtures of the system tests.

--system=postfix runs them against Debian's Postfix, to try the tests themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from tests.system.dovecot import Dovecot
from tests.system.harness import Instance, MailSystem, RealPostfix


class MakeSystem(Protocol):
    """Makes a mail system that the fixture stops and checks at the end of the test."""

    def __call__(
        self,
        *,
        main: Mapping[str, str | None] | None = None,
        master: Sequence[str] = (),
        privileged: bool = False,
        name: str = "mail.test",
    ) -> MailSystem: ...


class MakePostfix(Protocol):
    """Makes a real Postfix as the peer."""

    def __call__(self, *, main: Mapping[str, str | None]) -> RealPostfix: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--system", choices=("ours", "postfix"), default="ours")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keeps the outcome of the test for its fixtures: one complaint about it is enough."""
    report = yield
    if call.when == "call":
        item.stash[PASSED] = call.excinfo is None
    return report


PASSED = pytest.StashKey[bool]()


@pytest.fixture
def make_system(request: pytest.FixtureRequest) -> Iterator[MakeSystem]:
    systems: list[MailSystem] = []
    real = request.config.getoption("--system") == "postfix"

    def make(
        *,
        main: Mapping[str, str | None] | None = None,
        master: Sequence[str] = (),
        privileged: bool = False,
        name: str = "mail.test",
    ) -> MailSystem:
        system = (
            RealPostfix(main=main, master=master, name=name)
            if real
            else Instance(main=main, master=master, privileged=privileged, name=name)
        )
        systems.append(system)
        return system

    yield make
    stop_all(systems, request.node.stash.get(PASSED, False))


@pytest.fixture
def make_postfix(request: pytest.FixtureRequest) -> Iterator[MakePostfix]:
    """Makes a real Postfix, as the peer."""
    systems: list[MailSystem] = []

    def make(*, main: Mapping[str, str | None]) -> RealPostfix:
        system = RealPostfix(main=main)
        systems.append(system)
        return system

    yield make
    stop_all(systems, request.node.stash.get(PASSED, False))


@pytest.fixture
def dovecot(short_tmp: Path) -> Iterator[Dovecot]:
    """Its authentication server."""
    server = Dovecot(short_tmp)
    try:
        yield server
    finally:
        server.stop()


def stop_all(systems: Sequence[MailSystem], check: bool) -> None:
    """Stops every one, also if one complains."""
    complaints = []
    for system in systems:
        try:
            system.stop(check)
        except AssertionError as error:
            complaints.append(str(error))
    assert not complaints, "\n".join(complaints)
