"""Counters and transcript of a session: errors, junk commands, successes of each command.

The transcript is mailed to the postmaster if notify_classes names a kind of error that occurred. It
is the only place that keeps what a client sent, so secrets are masked here.
"""

from collections import defaultdict
from collections.abc import Iterable

from daemons.smtpd.answer import Answer
from daemons.smtpd.params import SmtpdParams
from daemons.smtpd.secrets import FIRST, MASK, masked
from libmail.clients.notice import Direction
from libmail.lookup.watched import tell

__all__ = ["UNKNOWN", "Tally"]

UNKNOWN = "UNKNOWN"
"""The name under which commands that do not exist are counted."""


class Tally:
    """The counters of one session. errors: so far. kinds: classes of errors, for notify_classes.

    given: how often, by command.
    """

    __slots__ = ("_junk", "_kept", "_params", "_peer", "_secret", "_succeeded", "errors", "given",
                 "kinds", "transcript")  # fmt: skip

    def __init__(self, params: SmtpdParams) -> None:
        self._params = params
        self._kept = params.smtpd_history_flush_threshold
        self.given: dict[str, int] = defaultdict(int)
        self._succeeded: dict[str, int] = defaultdict(int)
        self._junk = 0
        self._peer = ""  # under which the log tells of the session, "" if it does not
        self._secret = False  # the last line had a secret, and the next may be the rest of it
        self.errors = 0
        self.kinds: frozenset[str] = frozenset()
        self.transcript: list[tuple[Direction, bytes]] = []

    # the transcript

    def watch(self, peer: str) -> None:
        """Tell the log, too, from now on: debug_peer_list."""
        self._peer = peer

    def heard(self, line: bytes) -> bytes:
        """Record a command line. Returns it without secrets."""
        shown = line
        if self._secret or line[:1] in FIRST:
            self._secret, shown = masked(line, after_secret=self._secret)
        if self._peer:
            tell("<", self._peer, shown)
        if len(self.transcript) < self._kept:
            self.transcript.append(("In", shown))
        return shown

    def heard_secret(self) -> None:
        """Record a line that is a secret as a whole."""
        self._secret = True
        if self._peer:
            tell("<", self._peer, MASK)
        if len(self.transcript) < self._kept:
            self.transcript.append(("In", MASK))

    def said(self, data: bytes) -> None:
        """Record a reply."""
        if self._peer:
            tell(">", self._peer, data)
        if len(self.transcript) < self._kept:
            self.transcript.append(("Out", data))

    def shown(self, data: bytes) -> bytes:
        """Data that the client sent behind the last command, without secrets."""
        return MASK if self._secret else masked(data, after_secret=False)[1]

    # commands

    def end(self, name: str, answer: Answer) -> None:
        """Count the outcome of a command."""
        if answer.error:
            self.fault(answer.kind)
        elif answer.counted:
            self._succeeded[name] += 1

    def succeeded(self, name: str) -> None:
        """Count a success of a command, also of one whose effect comes after the reply."""
        self._succeeded[name] += 1

    def fault(self, kind: str) -> None:
        """Count an error of the client."""
        self.errors += 1
        if kind:
            self.kinds |= {kind}

    def junk(self) -> None:
        """Count a junk command; beyond smtpd_junk_command_limit it is an error."""
        if self._junk > self._params.smtpd_junk_command_limit:
            self.errors += 1
        self._junk += 1

    def forgive(self) -> None:
        """Reset the counters after a message was accepted."""
        self.errors = self._junk = 0
        self.kinds = frozenset()

    @property
    def exhausted(self) -> bool:
        """Whether smtpd_hard_error_limit is reached."""
        return 0 < self.errors >= self._params.smtpd_hard_error_limit

    @property
    def delay(self) -> float:
        """Seconds to wait before a reply: smtpd_error_sleep_time."""
        params = self._params
        slow = 0 < self.errors >= params.smtpd_soft_error_limit
        return params.smtpd_error_sleep_time if slow else 0.0

    def counts(self, order: Iterable[str]) -> tuple[tuple[str, int, int], ...]:
        """(name, successes, all) of the commands that were given, for the log."""
        given, succeeded = self.given, self._succeeded
        names = sorted(given, key=[*order, UNKNOWN].index)
        return tuple([(name.lower(), succeeded[name], given[name]) for name in names])
