"""Services of the network that have no place left: what is said, and that new processes hurry.

As in Postfix (STRESS_README): when all places of a service are taken that others than this host can
reach, master warns, and processes that are started from then on have the parameter stress set to
yes, until nobody had to wait for 1000 seconds. Processes of before retire, so that the next ones
hurry soon; where the limit counts processes instead of clients they would keep their successors
from being started, and stay.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["Stress", "crowd_warnings", "is_public"]

_LASTS: Final = 1000.0  # seconds, also between warnings


def is_public(addresses: Iterable[str]) -> bool:
    """Whether others can reach a service that listens at these addresses."""
    return any(not ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in addresses)


def crowd_warnings(name: str, port: int, limit: int) -> Iterator[str]:
    """What the log tells of a service that has no place left."""
    host, _, _ = name.rpartition(":")
    number = f"{host}:{port}" if host else str(port)
    yield (
        f'service "{name}" ({number}) has reached its process limit "{limit}":'
        " new clients may experience noticeable delays"
    )
    yield (
        "to avoid this condition, increase the process count in master.cf"
        " or reduce the service time per client"
    )
    yield (
        "see https://www.postfix.org/STRESS_README.html"
        " for examples of stress-adapting configuration settings"
    )


class Stress:
    """Of one service. Times are those of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._until = 0.0

    def crowded(self, now: float) -> bool:
        """Told that all places are taken; whether that has not been so for long."""
        began = now >= self._until
        self._until = now + _LASTS
        return began

    def lasts(self, now: float) -> bool:
        """Whether new processes are to hurry."""
        return now < self._until
