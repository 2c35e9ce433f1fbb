"""What was said in a session, for `notify_classes`; kept only where somebody wants to know."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from daemons.smtp.failure import ErrorClass
from libmail.clients.notice import Direction, Postmaster
from libmail.lookup.watched import tell
from libmail.net.poller import Poller
from libmail.net.secure_wire import SecureWire
from libmail.net.wire import Lost, Wire
from libmail.smtp.client import Phase, ServerReply

__all__ = ["Notices", "RecordingWire", "WatchedWire", "blame", "mask_record", "note_sent"]

_CLASSES: Final = ("data", "protocol")
_MASK: Final = b"(left out)"


class RecordingWire(SecureWire):
    """A wire that records the session. lines: sent and received. errors: classes of errors."""

    __slots__ = ("errors", "lines")

    def __init__(
        self,
        poller: Poller,
        family: int,
        limits: Mapping[Phase, float],
        *,
        min_rate: int = 0,
        window: int = 0,
    ) -> None:
        """See Wire."""
        self.lines: list[tuple[Direction, bytes]] = []
        self.errors: set[ErrorClass] = set()
        super().__init__(poller, family, limits, min_rate=min_rate, window=window)

    def send(self, data: bytes) -> None:
        """See Wire."""
        self.lines.append(("Out", data))
        super().send(data)

    async def group(self, phase: Phase, codes: tuple[int, ...]) -> Sequence[ServerReply]:
        """None: all are recorded by `reply`."""
        return ()

    async def reply(self, phase: Phase) -> ServerReply:
        """See Wire."""
        try:
            reply = await super().reply(phase)
        except Lost:
            unfinished, garbage = self.unfinished_reply()
            if unfinished:
                self._heard(unfinished)
            if garbage:
                self.errors.add("protocol")
            raise
        self._heard(reply.lines)
        return reply

    async def received_reply(self) -> ServerReply | None:
        """See Wire."""
        reply = await super().received_reply()
        if reply is not None:
            self._heard(reply.lines)
        return reply

    def _heard(self, lines: tuple[str, ...]) -> None:
        text = "\r\n".join([line.rstrip() for line in lines])
        self.lines.append(("In", text.encode("utf-8", "surrogateescape")))


class WatchedWire(RecordingWire):
    """A wire whose session is told in the log, too: debug_peer_list. What is said from AUTH to its
    final reply is left out."""

    __slots__ = ("_secret", "peer")

    def __init__(
        self,
        poller: Poller,
        family: int,
        limits: Mapping[Phase, float],
        *,
        min_rate: int = 0,
        window: int = 0,
    ) -> None:
        """See Wire."""
        self.peer = ""
        self._secret = False
        super().__init__(poller, family, limits, min_rate=min_rate, window=window)

    def send(self, data: bytes) -> None:
        """See Wire."""
        self._secret = self._secret or data[:5].upper() == b"AUTH "
        tell(">", self.peer, _MASK if self._secret else data)
        super().send(data)

    def _heard(self, lines: tuple[str, ...]) -> None:
        said = "\r\n".join([line[:3] for line in lines] if self._secret else lines)
        tell("<", self.peer, said.encode("utf-8", "surrogateescape"))
        self._secret = self._secret and lines[-1].startswith("3")
        super()._heard(lines)


def note_sent(wire: Wire, data: bytes) -> None:
    """Record commands that went out together with content."""
    if isinstance(wire, WatchedWire):
        tell(">", wire.peer, data)
    if isinstance(wire, RecordingWire):
        wire.lines.append(("Out", data))


def blame(wire: Wire, error_class: ErrorClass) -> None:
    """Record a class of error for the session."""
    if isinstance(wire, RecordingWire):
        wire.errors.add(error_class)


def mask_record(wire: Wire, masked: Callable[[str], str]) -> None:
    """Have nobody see what was said in confidence. masked: a text without that."""
    if isinstance(wire, RecordingWire):
        wire.lines = [
            (
                way,
                masked(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape"),
            )
            for way, line in wire.lines
        ]


class Notices:
    """Tells the postmaster of servers that break the protocol, and of tables that fail."""

    def __init__(self, postmaster: Postmaster, *, lmtp: bool) -> None:
        self._postmaster = postmaster
        self._protocol = "LMTP" if lmtp else "SMTP"

    def __bool__(self) -> bool:
        """Whether sessions are to be recorded."""
        return self._postmaster.wants(_CLASSES)

    async def about(self, wire: Wire, relay: str, sender: str) -> None:
        """Report on the session if something was wrong, and begin a new record.

        relay: the server. sender: of the message; failing notices are not reported upon.
        """
        if not isinstance(wire, RecordingWire):
            return
        lines, wire.lines = wire.lines, []
        errors, wire.errors = wire.errors, set()
        if not sender or sender == self._postmaster.sender or not self._postmaster.wants(errors):
            return
        await self._postmaster.tell(
            f"{self._protocol} client: errors from {relay}",
            lines,
            opening=f"Unexpected response from {relay}.",
        )
