"""A service without a place left: when it is one, what is said, and for how long others hurry."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from master.children import Child
from master.services import Service
from master.stress import Stress, crowd_warnings, is_public
from tests.unit.master.test_services import NETWORK, child, plan


@pytest.mark.parametrize(
    ("addresses", "public"),
    [
        (["127.0.0.1", "::1"], False),
        (["127.0.0.1", "192.0.2.1"], True),
        (["0.0.0.0"], True),
        (["::"], True),
        (["fe80::1%eth0"], True),
        ([], False),
    ],
)
def test_who_can_be_reached(addresses: list[str], public: bool) -> None:
    assert is_public(addresses) == public


def test_stress_lasts_a_while_after_the_last_crowd() -> None:
    stress = Stress()
    assert not stress.lasts(5.0)
    assert stress.crowded(5.0)
    assert not stress.crowded(900.0)
    assert stress.lasts(1899.0)
    assert not stress.lasts(1900.0)
    assert stress.crowded(1900.0)


def test_warnings() -> None:
    first, *_ = crowd_warnings("smtp", 25, 100)
    assert first == (
        'service "smtp" (25) has reached its process limit "100":'
        " new clients may experience noticeable delays"
    )
    assert 'service "0.0.0.0:smtp" (0.0.0.0:25)' in next(crowd_warnings("0.0.0.0:smtp", 25, 100))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("0.0.0.0", 0)) as sock:
        yield sock


@pytest.mark.parametrize(
    ("maxproc", "children", "crowded"),
    [
        ("5", [], False),
        ("5", [child(1, 5)], False),
        ("5", [child(1, 5, 0)], True),
        ("5", [child(1, 5, -4)], False),
        ("5", [child(1, 5, -4), child(2, 1, 0)], True),
        ("1", [child(1, 1, 0)], False),
        ("0", [child(1, 10, 0)], False),
    ],
)
def test_when_there_is_no_place(
    listener: socket.socket, maxproc: str, children: list[Child], crowded: bool
) -> None:
    own = Service(plan(f"25 inet n - n - {maxproc} smtpd"), NETWORK, [listener])
    own.children = {one.pid: one for one in children}
    assert own.is_crowded(1) == crowded
    own.listeners = []
    assert not own.is_crowded(1)
