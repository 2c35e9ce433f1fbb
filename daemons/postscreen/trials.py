"""The tests that a client has to pass, and how long a pass holds.

A pass is remembered as the time until which it holds, in an entry of postscreen_cache_map for the
client's address: five numbers, seconds since the epoch, between semicolons, in the order of
`Trial`. 0 stands for a test that was never passed, 1 for one that was switched off. That is also
what Postfix writes, so that both can share a cache.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from daemons.postscreen.params import PostscreenParams

__all__ = ["EARLY", "LATE", "Action", "Record", "Rules", "Trial", "read_record", "rules_of"]

_NEVER: Final = 0
_OFF: Final = 1
_LONGEST: Final = 20  # digits of a time that is one


class Action(Enum):
    """What becomes of a client that fails a test."""

    IGNORE = "ignore"
    ENFORCE = "enforce"
    DROP = "drop"


class Trial(Enum):
    """A test."""

    GREET = "pregreet"  # the client waits for the greeting
    DNSBL = "dnsbl"  # it is on no block list
    PIPELINING = "pipelining"  # it waits for each reply
    NON_SMTP = "non-smtp command"
    BARE_NEWLINE = "bare newline"


EARLY: Final = (Trial.GREET, Trial.DNSBL)
"""Before the greeting."""
LATE: Final = (Trial.PIPELINING, Trial.NON_SMTP, Trial.BARE_NEWLINE)
"""After it: they need a session in SMTP, which cannot be handed over."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is configured of the tests. enabled: those that clients have to pass. lifetimes: of a
    pass, seconds; that of DNSBL at the most."""

    enabled: frozenset[Trial]
    actions: Mapping[Trial, Action]
    lifetimes: Mapping[Trial, int]


def rules_of(params: PostscreenParams) -> Rules:
    """The rules that the parameters make."""
    switches = {
        Trial.GREET: True,
        Trial.DNSBL: bool(params.postscreen_dnsbl_sites),
        Trial.PIPELINING: params.postscreen_pipelining_enable,
        Trial.NON_SMTP: params.postscreen_non_smtp_command_enable,
        Trial.BARE_NEWLINE: params.postscreen_bare_newline_enable,
    }
    actions = {
        Trial.GREET: params.postscreen_greet_action,
        Trial.DNSBL: params.postscreen_dnsbl_action,
        Trial.PIPELINING: params.postscreen_pipelining_action,
        Trial.NON_SMTP: params.postscreen_non_smtp_command_action,
        Trial.BARE_NEWLINE: params.postscreen_bare_newline_action,
    }
    lifetimes = {
        Trial.GREET: params.postscreen_greet_ttl,
        Trial.DNSBL: params.postscreen_dnsbl_max_ttl,
        Trial.PIPELINING: params.postscreen_pipelining_ttl,
        Trial.NON_SMTP: params.postscreen_non_smtp_command_ttl,
        Trial.BARE_NEWLINE: params.postscreen_bare_newline_ttl,
    }
    return Rules(
        frozenset(trial for trial, on in switches.items() if on),
        {trial: Action(action) for trial, action in actions.items()},
        {trial: int(seconds) for trial, seconds in lifetimes.items()},
    )


@dataclass(frozen=True, slots=True)
class Record:
    """Until when the client's passes hold, in the order of `Trial`."""

    until: tuple[int, ...] = (_NEVER,) * len(Trial)

    @property
    def new(self) -> bool:
        """Whether nothing was ever passed."""
        return max(self.until) <= _OFF

    def due(self, enabled: Iterable[Trial], now: float) -> frozenset[Trial]:
        """The tests that have to be passed now."""
        wanted = frozenset(enabled)
        pairs = zip(Trial, self.until, strict=True)
        return frozenset(trial for trial, until in pairs if trial in wanted and until <= now)

    def passed(self, passes: Mapping[Trial, int], enabled: frozenset[Trial]) -> "Record":
        """The record after more tests were passed. passes: until when each holds."""
        pairs = zip(Trial, self.until, strict=True)
        return Record(
            tuple(_later(until, passes.get(trial), trial in enabled) for trial, until in pairs)
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
    fields = text.split(";")[: len(Trial)]
    if not all(field.isascii() and field.isdigit() and len(field) <= _LONGEST for field in fields):
        return Record()
    found = [int(field) for field in fields]
    return Record((*found, *(_NEVER,) * (len(Trial) - len(found))))
