"""What became of mail that a command was given, by its exit status and its output: sysexits(3)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from libmail.agents.delivery import Bounced, Deferred
from libmail.log import LOG

__all__ = ["CommandResult", "Verdict", "judge"]

_DSN: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?=\s|$)\s*")

_STATUS: Final[Mapping[int, tuple[str, str]]] = {
    64: ("5.3.0", "command line usage error"),
    65: ("5.6.0", "data format error"),
    66: ("5.3.0", "cannot open input"),
    67: ("5.1.1", "user unknown"),
    68: ("5.1.2", "host name unknown"),
    69: ("5.3.0", "service unavailable"),
    70: ("5.3.0", "internal software error"),
    71: ("4.3.0", "system resource problem"),
    72: ("5.3.0", "critical OS file missing"),
    73: ("5.2.0", "can't create user output file"),
    74: ("5.3.0", "input/output error"),
    75: ("4.3.0", "temporary failure"),
    76: ("5.5.0", "remote error in protocol"),
    77: ("5.7.0", "permission denied"),
    78: ("5.3.5", "local configuration error"),
}
# Controls, and octets that are no UTF-8.
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_INTERNAL: Final = "internal software error"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """status: exit status; -N: ended by signal N; None: killed, as the time was over.

    output: what it printed, cut off, as text.
    """

    status: int | None
    output: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a result means for the mail.

    reason: for the log; "" if it was sent. detail: the command's own words, or where it had none
    (and failed) the name of the failure: what a report gives as diagnostic code, if not "".
    """

    kind: Literal["sent", "deferred", "bounced"]
    dsn: str
    reason: str
    detail: str

    def failure(self, relay: str) -> Deferred | Bounced:
        """The outcome of what was not sent. relay: the name of the service."""
        kind = Deferred if self.kind == "deferred" else Bounced
        return kind(
            dsn=self.dsn,
            reason=self.reason,
            relay=relay,
            diag_type="x-unix" if self.detail else "",
            diag_text=self.detail,
        )


def judge(command: str, result: CommandResult) -> Verdict:
    """What became of mail that a command was given; command: how the report calls it."""
    text = _printable(result.output)
    if result.status == 0:
        return Verdict("sent", "2.0.0", "", text)
    if result.status is None:
        return _failed("5.3.0", f'Command time limit exceeded: "{command}"', text, _INTERNAL)
    if result.status < 0:
        reason = f'Command died with signal {-result.status}: "{command}"'
        return _failed("4.3.0", reason, text, _INTERNAL)
    match = _DSN.match(text)
    if match and (words := text[match.end() :]):
        # The command's own code and words say it all; a code of success cannot be meant.
        dsn = match[1]
        if dsn[0] == "2":
            LOG.warning(f'bounce_append: ignoring dsn code "{dsn}"')
            dsn = "5.0.0"
        kind: Literal["deferred", "bounced"] = "deferred" if dsn[0] == "4" else "bounced"
        return Verdict(kind, dsn, words, words.strip())
    dsn, meaning = _STATUS.get(result.status, ("5.3.0", ""))
    if match:
        dsn, text = (dsn if match[1][0] == "2" else match[1]), ""
    reason = meaning or f'Command died with status {result.status}: "{command}"'
    return _failed(dsn, reason, text, meaning or f"unknown mail system error {result.status}")


def _printable(output: str) -> str:
    """One line of text. What follows a NUL is lost, as it is in the original."""
    text = output.partition("\0")[0].replace("\n", " ").replace("\t", " ")
    return _UNPRINTABLE.sub("_", text)


def _failed(dsn: str, reason: str, output: str, meaning: str) -> Verdict:
    if output:
        reason, meaning = f"{reason}. Command output: {output}", output.strip()
    return Verdict("deferred" if dsn[0] == "4" else "bounced", dsn, reason, meaning)
