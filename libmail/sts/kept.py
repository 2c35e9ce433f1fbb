"""An MTA-STS policy in the cache: `ID FETCHED USED MODE MAX_AGE MX...` under the name of a domain.

Times are of the epoch, as a policy outlives the process and the machine's uptime. A policy of the
future is one that was kept before the clock was set back: it is fetched again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from libmail.sts.policy import Policy, PolicyInvalid, parse_policy, valid_id

__all__ = ["KeptPolicy"]

_OFTEN_ENOUGH: Final = 86_400.0  # seconds between fetches of a policy that lives long
_LARGEST: Final = 2**40  # of a time


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """id: of the record that announced it. fetched, used: seconds since the epoch."""

    id: str
    fetched: int
    used: int
    policy: Policy

    @classmethod
    def parse(cls, value: str | None) -> KeptPolicy | None:
        """What stands in the cache; None for what is none."""
        words = (value or "").split(" ")
        if len(words) < 5 or not valid_id(words[0]) or not (value or "").isprintable():
            return None
        numbers = (words[1], words[2])
        if not all(word.isascii() and word.isdigit() and len(word) < 14 for word in numbers):
            return None
        fetched, used = map(int, numbers)
        if max(fetched, used) > _LARGEST:
            return None
        lines = ["version: STSv1", f"mode: {words[3]}", f"max_age: {words[4]}"]
        lines += [f"mx: {pattern}" for pattern in words[5:]]
        try:
            policy = parse_policy("\n".join(lines).encode("utf-8", "replace"))
        except PolicyInvalid:
            return None
        return cls(words[0], fetched, used, policy)

    def value(self) -> str:
        """As it stands in the cache."""
        policy = self.policy
        words = (self.id, self.fetched, self.used, policy.mode.value, policy.max_age, *policy.mx)
        return " ".join(map(str, words))

    def left(self, now: float) -> float:
        """Seconds for which it may be used; 0 or less if not any more."""
        return self.fetched + self.policy.max_age - now

    def over(self, now: float) -> bool:
        """Whether it must not be used any more."""
        return self.left(now) <= 0

    def ageing(self, now: float) -> bool:
        """Whether it is time to fetch it again, long before its end (RFC 8461 §10.2)."""
        return not 0 <= now - self.fetched < min(_OFTEN_ENOUGH, self.policy.max_age / 2)

    def unused(self, now: float) -> float:
        """Seconds since mail has gone to the domain, about."""
        return max(0.0, now - self.used)

    def used_at(self, now: float) -> KeptPolicy:
        """The same, with mail that goes to the domain now."""
        return replace(self, used=int(now))
