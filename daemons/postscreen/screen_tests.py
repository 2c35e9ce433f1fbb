"""The tests that a client has to pass, and how long a result is valid.

A passed test is remembered as the time when that expires, in an entry of postscreen_cache_map for
the client's address: five numbers, seconds since the epoch, separated by semicolons, in the order
of `ScreenTest`. 0 stands for a test that was never passed, 1 for one that was switched off. Postfix
writes the same, so that both can share a cache.

To add a test: a member here, in `rules_of`, and in BEFORE_GREETING (performed by
`session.Session`) or DEEP (performed by `engine.Engine`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from daemons.postscreen.params import PostscreenParams

__all__ = [
    "BEFORE_GREETING",
    "DEEP",
    "Action",
    "Record",
    "Rules",
    "ScreenTest",
    "read_record",
    "rules_of",
]

_NEVER: Final = 0
_OFF: Final = 1
_LONGEST: Final = 20  # digits of a time


class Action(Enum):
    """What to do with a client that fails a test: postscreen_*_action."""

    IGNORE = "ignore"
    ENFORCE = "enforce"
    DROP = "drop"


class ScreenTest(Enum):
    """A test, in the order of cache entries."""

    GREET = "pregreet"  # passed by waiting for the greeting
    DNSBL = "dnsbl"  # passed by a score below postscreen_dnsbl_threshold
    PIPELINING = "pipelining"  # passed by waiting for each reply
    NON_SMTP = "non-smtp command"  # passed by sending only SMTP commands
    BARE_NEWLINE = "bare newline"  # passed by ending each line with CR LF


BEFORE_GREETING: Final = (ScreenTest.GREET, ScreenTest.DNSBL)
"""Tests before the greeting."""
DEEP: Final = (ScreenTest.PIPELINING, ScreenTest.NON_SMTP, ScreenTest.BARE_NEWLINE)
"""Deep protocol tests. They need a session with the engine, which cannot be handed over."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The configuration of the tests.

    enabled: those that clients have to pass. lifetimes: seconds for which a result is valid; for
    DNSBL the maximum.
    """

    enabled: frozenset[ScreenTest]
    actions: Mapping[ScreenTest, Action]
    lifetimes: Mapping[ScreenTest, int]


def rules_of(params: PostscreenParams) -> Rules:
    """The rules that the parameters make."""
    switches = {
        ScreenTest.GREET: True,
        ScreenTest.DNSBL: bool(params.postscreen_dnsbl_sites),
        ScreenTest.PIPELINING: params.postscreen_pipelining_enable,
        ScreenTest.NON_SMTP: params.postscreen_non_smtp_command_enable,
        ScreenTest.BARE_NEWLINE: params.postscreen_bare_newline_enable,
    }
    actions = {
        ScreenTest.GREET: params.postscreen_greet_action,
        ScreenTest.DNSBL: params.postscreen_dnsbl_action,
        ScreenTest.PIPELINING: params.postscreen_pipelining_action,
        ScreenTest.NON_SMTP: params.postscreen_non_smtp_command_action,
        ScreenTest.BARE_NEWLINE: params.postscreen_bare_newline_action,
    }
    lifetimes = {
        ScreenTest.GREET: params.postscreen_greet_ttl,
        ScreenTest.DNSBL: params.postscreen_dnsbl_max_ttl,
        ScreenTest.PIPELINING: params.postscreen_pipelining_ttl,
        ScreenTest.NON_SMTP: params.postscreen_non_smtp_command_ttl,
        ScreenTest.BARE_NEWLINE: params.postscreen_bare_newline_ttl,
    }
    return Rules(
        frozenset(test for test, on in switches.items() if on),
        {test: Action(action) for test, action in actions.items()},
        {test: int(seconds) for test, seconds in lifetimes.items()},
    )


@dataclass(frozen=True, slots=True)
class Record:
    """Until when the client's passes hold, in the order of `ScreenTest`."""

    until: tuple[int, ...] = (_NEVER,) * len(ScreenTest)

    @property
    def new(self) -> bool:
        """Whether nothing was ever passed."""
        return max(self.until) <= _OFF

    def due(self, enabled: Iterable[ScreenTest], now: float) -> frozenset[ScreenTest]:
        """The tests that have to be passed now."""
        wanted = frozenset(enabled)
        pairs = zip(ScreenTest, self.until, strict=True)
        return frozenset(test for test, until in pairs if test in wanted and until <= now)

    def passed(self, passes: Mapping[ScreenTest, int], enabled: frozenset[ScreenTest]) -> "Record":
        """The record after more tests were passed. passes: until when each holds."""
        pairs = zip(ScreenTest, self.until, strict=True)
        return Record(
            tuple(_later(until, passes.get(test), test in enabled) for test, until in pairs)
        )

    def stale(self, retention: float, now: float) -> bool:
        """Whether all passes ended so many seconds ago."""
        return max(self.until) + retention <= now

    def text(self) -> str:
        """As in the table."""
        return ";".join([str(until) for until in self.until])


def _later(until: int, passed: int | None, enabled: bool) -> int:
    if passed is not None:
        return max(until, passed)
    return _OFF if until == _NEVER and not enabled else until


def read_record(text: str) -> Record:
    """The record that an entry of the table holds; that of a new client for what is none."""
    fields = text.split(";")[: len(ScreenTest)]
    if not all(field.isascii() and field.isdigit() and len(field) <= _LONGEST for field in fields):
        return Record()
    found = [int(field) for field in fields]
    return Record((*found, *(_NEVER,) * (len(ScreenTest) - len(found))))
