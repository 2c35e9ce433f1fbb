"""The state of one client, sans I/O: the tests it has passed and failed, and what follows.

The session reports what happens, with the time.
"""

from typing import Final

from daemons.postscreen.screen_tests import BEFORE_GREETING, DEEP, Action, Record, Rules, ScreenTest
from libmail.smtp.reply import Reply

__all__ = ["DENIED", "PROTOCOL_ERROR", "Screening", "refusal"]

DENIED: Final = ("5.3.2", "Service currently unavailable")
PROTOCOL_ERROR: Final = ("5.5.1", "Protocol error")
_LATER: Final = Reply(450, "4.3.2", "Service currently unavailable")
_CODES: Final = {Action.ENFORCE: 550, Action.DROP: 521}


def refusal(action: Action, reason: tuple[str, str]) -> Reply:
    """The reply to a client that failed. reason: enhanced status code and text."""
    return Reply(_CODES[action], *reason)


class Screening:
    """The screening of one client.

    due: tests to pass in this session. record: the results of earlier sessions. failed: a test was
    failed, and that is not to be ignored. answer: the reply to each recipient. dropped: the last
    reply, if a failed test has ended the session. vetoed: nothing can be passed, as the client came
    to an address that is not in postscreen_allowlist_interfaces.
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
        self._passes: dict[ScreenTest, int] = {}
        self._failed: set[ScreenTest] = set()
        self.record = record
        self.due = record.due(rules.enabled, now)
        self.failed = False
        self.vetoed = False
        self.answer = _LATER
        self.dropped: Reply | None = None

    # what is to be done

    def needs(self, test: ScreenTest) -> bool:
        """Whether the test is due, and was neither passed nor failed."""
        return test in self.due and test not in self._passes and test not in self._failed

    def has_failed(self, test: ScreenTest) -> bool:
        """Whether a test was failed, even if that is to be ignored."""
        return test in self._failed

    @property
    def early(self) -> bool:
        """Whether to wait before the greeting: for tests, or as the client has failed already."""
        return self.failed or any(test in self.due for test in BEFORE_GREETING)

    @property
    def needs_engine(self) -> bool:
        """Whether the client has to talk to the built-in SMTP engine."""
        return self.failed or self.vetoed or any(self.needs(test) for test in DEEP)

    def begin_deep_tests(self) -> None:
        """The engine starts: deep tests are due, also those that are not enabled."""
        self.due = self.due | {test for test in DEEP if test not in self._passes}

    # what happens

    def deny(self, action: Action) -> None:
        """The access list rejects the client: earlier results do not count."""
        if action is not Action.IGNORE:
            self.record = Record()
            self.due = self._rules.enabled
        self._punish(action, DENIED)

    def veto(self) -> None:
        """The client came to an address that is not in postscreen_allowlist_interfaces."""
        self.vetoed = True

    def fail(self, test: ScreenTest, reason: tuple[str, str] = PROTOCOL_ERROR) -> None:
        """A test has failed."""
        self._failed.add(test)
        self._punish(self._rules.actions[test], reason)

    def _punish(self, action: Action, reason: tuple[str, str]) -> None:
        if action is Action.IGNORE:
            return
        self.failed = True
        self.answer = refusal(action, reason)
        if action is Action.DROP:
            self.dropped = self.answer

    def passes(self, test: ScreenTest, now: float, seconds: float | None = None) -> None:
        """A test was passed. seconds: how long that is valid, if not as configured."""
        if self.needs(test):
            lifetime = self._rules.lifetimes[test] if seconds is None else seconds
            self._passes[test] = int(now + lifetime)

    def allowlisted(self, now: float, seconds: float) -> None:
        """DNS allow lists vouch for the client: it passes all tests that it has not failed."""
        if self.failed:
            return
        for test in ScreenTest:
            if test not in self._failed:
                self._passes[test] = max(self._passes.get(test, 0), int(now + seconds))

    @property
    def promising(self) -> bool:
        """Whether the client can be handed over once it has passed the deep tests."""
        return not (self.failed or self.vetoed)

    def end_deep_tests(self, now: float) -> None:
        """A recipient was given: deep tests that were not failed are passed.

        Ignored failures count as passed, as the client could never be handed over otherwise.
        """
        for test in DEEP:
            if test not in self._failed or self._rules.actions[test] is Action.IGNORE:
                self._passes[test] = int(now + self._rules.lifetimes[test])

    # the end

    @property
    def passed(self) -> bool:
        """Whether all due tests were passed."""
        enabled = self.due & self._rules.enabled
        return self.promising and enabled <= self._passes.keys()

    def outcome(self) -> Record | None:
        """The record to store; None for no change."""
        if not (self.promising and self._passes):
            return None
        return self.record.passed(self._passes, self._rules.enabled)
