"""When a deferred message is tried again, and when it has been tried long enough."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """minimal, maximal: `minimal_backoff_time`, `maximal_backoff_time`. lifetime, bounce_lifetime:

    `maximal_queue_lifetime` and, for the null sender, `bounce_queue_lifetime`. All in seconds.
    """

    minimal: float
    maximal: float
    lifetime: float
    bounce_lifetime: float

    def next_try(self, arrival: float, now: float) -> float:
        """The time of the next try: the message's age from now, which doubles with every try.

        The age counts as at least `minimal` and at most `maximal`. Both arguments are of the epoch.
        """
        return now + max(self.minimal, min(now - arrival, self.maximal))

    def expired(self, sender: str, arrival: float, now: float) -> bool:
        """Whether mail that was deferred now is to be returned."""
        return now - arrival >= (self.lifetime if sender else self.bounce_lifetime)
