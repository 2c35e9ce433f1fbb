"""What is done to content before anything looks at it.

Stray line ends, message_reject_characters, message_strip_characters and
force_mime_input_conversion. `RawRules` belong to the process, a `RawContent` to a message.
"""

import re
from dataclasses import dataclass
from typing import Final, Protocol

from daemons.cleanup.events import check_line
from daemons.cleanup.status import Refused
from libmail.ipc.messages import CleanupFlag, CleanupStatus, Envelope, QueueId
from libmail.log import LOG
from libmail.message.content import StrayFilter
from libmail.message.downgrade import Downgrade
from libmail.message.headers import Batch, HeaderReader
from libmail.message.mime import MimeLimits
from libmail.text.printable import printable

__all__ = ["RawContent", "RawParams", "RawRules", "Stage", "characters"]

_FILTER: Final = int(CleanupFlag.FILTER)
_BOUNCE: Final = int(CleanupFlag.BOUNCE)
_SHOWN: Final = 200  # octets of a line in the log
_ESCAPE: Final = re.compile(rb"\\([0-7]{1,3}|.)", re.S)
_ESCAPES: Final = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
}  # fmt: skip
_LINE_ENDS: Final = {13: rb"\r(?!\n)", 10: rb"(?<!\r)\n"}  # those that end no line


@dataclass(frozen=True, slots=True)
class RawParams:
    """What is done to content as it comes."""

    cleanup_replace_stray_cr_lf: bool
    disable_mime_input_processing: bool
    force_mime_input_conversion: bool
    header_size_limit: int
    message_reject_characters: str
    message_strip_characters: str


class Stage(Protocol):
    """One after another sees all of the content, in pieces."""

    def feed(self, data: bytes) -> bytes:
        """What the next stage gets."""

    def end(self) -> bytes:
        """The rest."""


def characters(text: str) -> re.Pattern[bytes] | None:
    r"""A pattern for each octet that a parameter names, with escapes as in C; None for none.

    A CR or LF is not found where it belongs to the end of a line.
    """
    octets = set(_ESCAPE.sub(_escaped, text.encode("utf-8", "surrogateescape")))
    ends = [_LINE_ENDS[octet] for octet in sorted(octets & set(_LINE_ENDS))]
    rest = b"".join(b"\\x%02x" % octet for octet in sorted(octets - set(_LINE_ENDS)))
    alternatives = ([b"[" + rest + b"]"] if rest else []) + ends
    return re.compile(b"|".join(alternatives)) if alternatives else None


def _escaped(match: re.Match[bytes]) -> bytes:
    digits = match[1]
    if digits.isdigit() and digits[:1] < b"8":
        return bytes([int(digits, 8) & 0xFF])
    return _ESCAPES.get(digits, digits)


class RawRules:
    """For all messages of the process."""

    def __init__(self, params: RawParams, limits: MimeLimits) -> None:
        """limits: of the MIME structure, for the conversion."""
        self.strays: Final = params.cleanup_replace_stray_cr_lf
        self.reject: Final = characters(params.message_reject_characters)
        self.strip: Final = characters(params.message_strip_characters)
        self.size_limit: Final = params.header_size_limit
        self.limits: Final = limits
        self.converts: Final = (
            params.force_mime_input_conversion and not params.disable_mime_input_processing
        )
        self._usual = self.strays and not (self.reject or self.strip or self.converts)

    def begin(self, flags: int, envelope: Envelope, recipient: str, queue_id: QueueId) -> Stage:
        """For one message. flags: CleanupFlag bits. recipient: for the log."""
        if self._usual:
            return StrayFilter()
        stages: list[Stage] = []
        if self.strays:
            stages.append(StrayFilter())
        if (self.reject or self.strip) and flags & _FILTER:
            returned = bool(flags & _BOUNCE)
            stages.append(_Characters(self, envelope, recipient, queue_id, returned=returned))
        if self.converts:
            stages.append(_Conversion(self))
        return RawContent(stages)


class RawContent:
    """Several stages in a row, or none."""

    def __init__(self, stages: list[Stage]) -> None:
        self._stages = stages

    def feed(self, data: bytes) -> bytes:
        """The next piece. Raises Refused."""
        for stage in self._stages:
            data = stage.feed(data)
        return data

    def end(self) -> bytes:
        """The rest. Raises Refused."""
        data = b""
        for stage in self._stages:
            data = (stage.feed(data) if data else b"") + stage.end()
        return data


class _Characters:
    """message_reject_characters and message_strip_characters."""

    def __init__(
        self, rules: RawRules, envelope: Envelope, recipient: str, queue_id: QueueId, *,
        returned: bool,
    ) -> None:  # fmt: skip
        """returned: a rejected message is returned to its sender, so it is read to its end."""
        self._rules = rules
        self._envelope = envelope
        self._recipient = recipient
        self._queue_id = queue_id
        self._returned = returned
        self._held = b""  # a final CR, which may belong to the next piece
        self._refused: Refused | None = None

    def feed(self, data: bytes) -> bytes:
        """The next piece without the characters. Raises Refused."""
        data, self._held = self._held + data, b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        return self._checked(data)

    def end(self) -> bytes:
        """What was held back. Raises Refused."""
        rest = self._checked(self._held) if self._held else b""
        if self._refused is not None:
            raise self._refused
        return rest

    def _checked(self, data: bytes) -> bytes:
        rules = self._rules
        if rules.reject is not None and self._refused is None:
            found = rules.reject.search(data)
            if found is not None:
                self._reject(data, found.start())
        return data if rules.strip is None else rules.strip.sub(b"", data)

    def _reject(self, data: bytes, at: int) -> None:
        start = data.rfind(b"\r\n", 0, at) + 2 if b"\r\n" in data[:at] else 0
        line = data[start : start + _SHOWN].partition(b"\r\n")[0].partition(b"\0")[0]
        dsn, reason = "5.7.1", "disallowed character"
        LOG.event(
            check_line(
                self._envelope, self._queue_id, self._recipient, "reject", "content",
                printable(line.decode("utf-8", "surrogateescape")), f"{dsn} {reason}",
            )
        )  # fmt: skip
        self._refused = Refused(CleanupStatus.CONTENT, dsn, reason)
        if not self._returned:
            raise self._refused


class _Conversion:
    """8-bit body parts to quoted-printable, as smtp(8) does it for servers without 8BITMIME."""

    def __init__(self, rules: RawRules) -> None:
        self._reader = HeaderReader(rules.size_limit)
        self._downgrade = Downgrade(rules.limits)
        self._in_header = True

    def feed(self, data: bytes) -> bytes:
        """The next piece, in 7 bits."""
        return self._header(self._reader.feed(data)) if self._in_header else self._body(data)

    def end(self) -> bytes:
        """The rest."""
        rest = self._header(self._reader.end()) if self._in_header else b""
        return rest + self._downgrade.end()

    def _header(self, batch: Batch) -> bytes:
        data = self._downgrade.fields(batch.data, batch.fields)
        if not batch.complete:
            return data
        self._in_header = False
        return data + self._downgrade.end_header() + self._body(batch.data[batch.end :])

    def _body(self, data: bytes) -> bytes:
        return self._downgrade.feed(data) if data else b""
