"""How many deliveries a destination gets at a time, and when it counts as dead.

SCHEDULER_README, "Concurrency scheduling": success widens a destination's window, connection or
handshake failure narrows it, each by a share of one delivery, so that the window moves after
1/feedback events; after too many pseudo-cohorts of failures the destination is dead. Nothing here
knows of time or of messages.
"""

import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

_NUMBER: Final = r"([0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})"
_FEEDBACK: Final = re.compile(rf"\s*{_NUMBER}\s*(?:/\s*(?:{_NUMBER}|([a-z_]+))\s*)?")
# Feedback of 1/N, N times, must come to 1 although floating point falls short of it.
_ROUNDING: Final = 1e-9


class FeedbackSyntax(ValueError):
    """Text is no feedback, or one outside of 0..1."""


class Scale(Enum):
    """What the number of a feedback is divided by."""

    CONSTANT = ""
    CONCURRENCY = "concurrency"
    SQUARE_ROOT = "sqrt_concurrency"


@dataclass(frozen=True, slots=True)
class Feedback:
    """What one delivery adds to or takes from a window. number: 0 to 1."""

    number: float
    scale: Scale = Scale.CONSTANT

    @classmethod
    def parse(cls, text: str) -> "Feedback":
        """`number`, `number/number`, `number/concurrency` or `number/sqrt_concurrency`.

        Postconf(5), default_destination_concurrency_positive_feedback. Raises FeedbackSyntax.
        """
        match = _FEEDBACK.fullmatch(text)
        if match is None:
            raise FeedbackSyntax(text)
        number, scale = float(match[1]), Scale.CONSTANT
        if match[2] is not None:
            divisor = float(match[2])
            number = number / divisor if divisor else math.inf
        elif match[3] is not None:
            try:
                scale = Scale(match[3])
            except ValueError:
                raise FeedbackSyntax(text) from None
        if not 0 <= number <= 1:
            raise FeedbackSyntax(text)
        return cls(number, scale)

    def at(self, concurrency: int) -> float:
        """The feedback of one delivery at this concurrency, which is above 0."""
        if self.scale is Scale.CONSTANT:
            return self.number
        if self.scale is Scale.CONCURRENCY:
            return self.number / concurrency
        return self.number / math.sqrt(concurrency)


@dataclass(frozen=True, slots=True)
class WindowRules:
    """What all destinations of a transport share.

    initial: concurrency to begin with. limit: the highest; 0 for none. cohorts: failed
    pseudo-cohorts after which a destination is dead; 0 for never.
    """

    initial: int
    limit: int
    positive: Feedback
    negative: Feedback
    cohorts: int


class Window:
    """The concurrency of one destination; 0 while it is dead."""

    __slots__ = ("_rules", "concurrency", "failed_cohorts", "failure", "success")

    def __init__(self, rules: WindowRules) -> None:
        self._rules = rules
        self.concurrency = 0
        self.success = self.failure = self.failed_cohorts = 0.0
        self.reset()

    def reset(self) -> None:
        """Begin again, as for a new destination."""
        rules = self._rules
        self.concurrency = min(rules.initial, rules.limit) if rules.limit else rules.initial
        self.success = self.failure = self.failed_cohorts = 0.0

    def succeeded(self, busy: int) -> None:
        """A delivery did not suffer from the destination; busy: deliveries before it ended."""
        rules = self._rules
        self.failed_cohorts = 0.0
        if not 0 < self.concurrency < busy + rules.initial:
            return  # a window much wider than its use would be too slow to close
        if rules.limit and self.concurrency >= rules.limit:
            return
        self.success += rules.positive.at(self.concurrency)
        while self.success + _ROUNDING >= 1:
            self.concurrency += 1
            self.success -= 1
            self.failure = 0.0
        if rules.limit and self.concurrency > rules.limit:
            self.concurrency = rules.limit

    def failed(self) -> bool:
        """Connection or handshake failed. Returns whether the destination is dead now."""
        rules = self._rules
        if self.concurrency == 0:
            return True
        if rules.cohorts:
            self.failed_cohorts += 1 / self.concurrency
            if self.failed_cohorts + _ROUNDING >= rules.cohorts:
                self.concurrency = 0
                return True
        self.failure -= rules.negative.at(self.concurrency)
        while self.failure < -_ROUNDING:
            self.concurrency -= 1
            self.failure += 1
            self.success = 0.0
        self.concurrency = max(self.concurrency, 1)
        return False

    def kill(self) -> None:
        """The destination is dead for another reason."""
        self.concurrency = 0
