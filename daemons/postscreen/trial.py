"""One client on trial, without input and output: what it has passed, what it failed, what follows.

The session tells what happens; time is told with it.
"""

from typing import Final

from daemons.postscreen.trials import EARLY, LATE, Action, Record, Rules, Trial
from libmail.smtp.reply import Reply

__all__ = ["DENIED", "PROTOCOL_ERROR", "Case", "refusal"]

DENIED: Final = ("5.3.2", "Service currently unavailable")
PROTOCOL_ERROR: Final = ("5.5.1", "Protocol error")
_LATER: Final = Reply(450, "4.3.2", "Service currently unavailable")
_CODES: Final = {Action.ENFORCE: 550, Action.DROP: 521}


def refusal(action: Action, reason: tuple[str, str]) -> Reply:
    """What a client hears that has failed. reason: enhanced status code and text."""
    return Reply(_CODES[action], *reason)


class Case:
    """The state of a client.

    due: what it has yet to do. answer: to each recipient. dropped: the last word of the session, if
    a test has ended it. vetoed: nothing passes here, as it came to the wrong address of ours.
    """

    __slots__ = (
        "_failed",
        "_passes",
        "_rules",
        "answer",
        "dropped",
        "due",
        "failed",
        "record",
        "vetoed",
    )  # fmt: skip

    def __init__(self, rules: Rules, record: Record, now: float) -> None:
        self._rules = rules
        self._passes: dict[Trial, int] = {}
        self._failed: set[Trial] = set()
        self.record = record
        self.due = record.due(rules.enabled, now)
        self.failed = False  # where that counts
        self.vetoed = False
        self.answer = _LATER
        self.dropped: Reply | None = None

    # what is to be done

    def needs(self, trial: Trial) -> bool:
        """Whether the test is due, and was neither passed nor failed."""
        return trial in self.due and trial not in self._passes and trial not in self._failed

    def has_failed(self, trial: Trial) -> bool:
        """Whether it failed the test, be that ignored."""
        return trial in self._failed

    @property
    def early(self) -> bool:
        """Whether there are tests before the greeting; a client that failed has to wait as well."""
        return self.failed or any(trial in self.due for trial in EARLY)

    @property
    def talks_to_us(self) -> bool:
        """Whether the client gets our SMTP instead of the server's."""
        return self.failed or self.vetoed or any(self.needs(trial) for trial in LATE)

    def begin_late(self) -> None:
        """The client talks to us: see what there is to see, also of tests that are not enabled."""
        self.due = self.due | {trial for trial in LATE if trial not in self._passes}

    # what happens

    def deny(self, action: Action) -> None:
        """The access list rejects the client, who then has no passes."""
        if action is not Action.IGNORE:
            self.record = Record()
            self.due = self._rules.enabled
        self._punish(action, DENIED)

    def veto(self) -> None:
        """The client has come to an address where nothing can be passed."""
        self.vetoed = True

    def fail(self, trial: Trial, reason: tuple[str, str] = PROTOCOL_ERROR) -> None:
        """A test has failed."""
        self._failed.add(trial)
        self._punish(self._rules.actions[trial], reason)

    def _punish(self, action: Action, reason: tuple[str, str]) -> None:
        if action is Action.IGNORE:
            return
        self.failed = True
        self.answer = refusal(action, reason)
        if action is Action.DROP:
            self.dropped = self.answer

    def passes(self, trial: Trial, now: float, seconds: float | None = None) -> None:
        """A test is passed. seconds: for which that holds, if not as long as usual."""
        if self.needs(trial):
            lifetime = self._rules.lifetimes[trial] if seconds is None else seconds
            self._passes[trial] = int(now + lifetime)

    def vouched_for(self, now: float, seconds: float) -> None:
        """Allow lists know the client: whatever it has not failed, it has passed."""
        if self.failed:
            return
        for trial in Trial:
            if trial not in self._failed:
                self._passes[trial] = max(self._passes.get(trial, 0), int(now + seconds))

    def end_late(self, now: float) -> None:
        """The client has come as far as a recipient, so it has passed what it has not failed.

        Failures that are ignored count as passed here: it could never be handed over otherwise.
        """
        for trial in LATE:
            if trial not in self._failed or self._rules.actions[trial] is Action.IGNORE:
                self._passes[trial] = int(now + self._rules.lifetimes[trial])

    # the end

    @property
    def passed(self) -> bool:
        """Whether the client has passed all tests that it had to."""
        enabled = self.due & self._rules.enabled
        return not (self.failed or self.vetoed) and enabled <= self._passes.keys()

    def outcome(self) -> Record | None:
        """What to remember; None: nothing new."""
        if self.failed or self.vetoed or not self._passes:
            return None
        return self.record.passed(self._passes, self._rules.enabled)
