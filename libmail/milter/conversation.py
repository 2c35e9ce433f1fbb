"""The Milter protocol on one connection, sans I/O: negotiation, events, answers, decisions.

The rules: after `start` the Milter negotiates. Then each event that it wants is reported with the
macros of that stage; unless it has negotiated not to reply to such events, the answer must be read
before the next event. A decision about the session (accept or reject at connect or HELO) silences
the connection to its end, one about the message until the next MAIL. Only the end of a message has
several answers: changes first, one decision last.

A Milter that requests a change which it did not negotiate, answers without an event, or never
comes to an end, has broken the protocol (`MilterError`); the caller then closes the connection and
applies `milter_default_action`.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from libmail.milter.protocol import (
    Accept,
    AddHeader,
    AddRecipient,
    Answer,
    ChangeHeader,
    ChangeSender,
    Command,
    ConnectionFailed,
    Continue,
    DeleteRecipient,
    Discard,
    Edit,
    Edits,
    InsertHeader,
    MilterError,
    Negotiated,
    PacketReader,
    Progress,
    Quarantine,
    Refuse,
    Reject,
    ReplaceBody,
    Shutdown,
    Skip,
    Steps,
    TempFail,
    macro_packet,
    negotiation,
    packet,
    parse_answer,
    parse_negotiation,
)
from libmail.smtp.reply import Reply

__all__ = ["PASS", "VERSIONS", "Act", "Conversation", "Decision", "Event", "Snapshot"]

Event: TypeAlias = tuple[Command, bytes, bytes | None]
"""What is reported: the command, its data, and macros (names and values); None for no list."""


class Act(Enum):
    """What to do with the session or message."""

    GO_ON = "continue"
    REFUSE = "refuse"
    DISCARD = "discard"
    HOLD = "hold"
    DISCONNECT = "disconnect"


class Decision(NamedTuple):
    """reply: with REFUSE and DISCONNECT. reason: of HOLD, for the log."""

    act: Act
    reply: Reply | None = None
    reason: str = ""


PASS: Final = Decision(Act.GO_ON)
_REJECT: Final = Decision(Act.REFUSE, Reply(550, "5.7.1", "Command rejected"))
_TEMPFAIL: Final = Decision(
    Act.REFUSE, Reply(451, "4.7.1", "Service unavailable - try again later")
)
_SHUTDOWN: Final = Decision(Act.DISCONNECT, Reply(421, "4.7.0", "Server closing connection"))
_DISCARD: Final = Decision(Act.DISCARD)
_CLOSE: Final = frozenset({421})

_STEPS_2: Final = (
    Steps.NO_CONNECT | Steps.NO_HELO | Steps.NO_MAIL | Steps.NO_RCPT | Steps.NO_BODY
    | Steps.NO_HEADERS | Steps.NO_END_OF_HEADER
)  # fmt: skip
_EDITS: Final = (
    Edits.ADD_HEADERS | Edits.CHANGE_BODY | Edits.ADD_RECIPIENTS | Edits.DELETE_RECIPIENTS
    | Edits.CHANGE_HEADERS | Edits.QUARANTINE | Edits.CHANGE_SENDER
    | Edits.ADD_RECIPIENTS_WITH_ARGUMENTS | Edits.SET_MACROS
)  # fmt: skip
_STEPS_6: Final = (
    _STEPS_2 | Steps.NO_UNKNOWN | Steps.NO_DATA | Steps.SKIP | Steps.NO_REPLY_HEADER
    | Steps.NO_REPLY_CONNECT | Steps.NO_REPLY_HELO | Steps.NO_REPLY_MAIL | Steps.NO_REPLY_RCPT
    | Steps.NO_REPLY_DATA | Steps.NO_REPLY_UNKNOWN | Steps.NO_REPLY_END_OF_HEADER
    | Steps.NO_REPLY_BODY | Steps.REJECTED_RCPT | Steps.LEADING_SPACE
)  # fmt: skip
VERSIONS: Final[Mapping[int, tuple[Edits, Steps]]] = {
    2: (_EDITS, _STEPS_2),
    3: (_EDITS, _STEPS_2 | Steps.NO_UNKNOWN),
    4: (_EDITS, _STEPS_2 | Steps.NO_UNKNOWN | Steps.NO_DATA),
    6: (_EDITS, _STEPS_6),
}
"""The actions and steps that are offered in each version of the protocol (milter_protocol)."""
_OFFERS: Final[Mapping[int, tuple[int, int, int]]] = {
    version: (version, int(edits), int(steps)) for version, (edits, steps) in VERSIONS.items()
}


class _Event(NamedTuple):
    """A kind of event.

    unwanted, unanswered: the steps with which a Milter declines it, or to reply to it. since: first
    protocol version. session: a decision is about the session, not the message.
    """

    unwanted: Steps
    unanswered: Steps
    since: int = 1
    session: bool = False


_NEVER: Final = Steps(0)
_MOST_ANSWERS: Final = 10_000  # to one event, beside pieces of a body
_MOST_OCTETS: Final = 1 << 24  # of these
_TOGETHER: Final = 1 << 16  # octets of events without answers that wait for the next one
_EVENTS: Final[Mapping[Command, _Event]] = {
    Command.CONNECT: _Event(Steps.NO_CONNECT, Steps.NO_REPLY_CONNECT, session=True),
    Command.HELO: _Event(Steps.NO_HELO, Steps.NO_REPLY_HELO, session=True),
    Command.MAIL: _Event(Steps.NO_MAIL, Steps.NO_REPLY_MAIL),
    Command.RCPT: _Event(Steps.NO_RCPT, Steps.NO_REPLY_RCPT),
    Command.DATA: _Event(Steps.NO_DATA, Steps.NO_REPLY_DATA, since=4),
    Command.UNKNOWN: _Event(Steps.NO_UNKNOWN, Steps.NO_REPLY_UNKNOWN, since=3),
    Command.HEADER: _Event(Steps.NO_HEADERS, Steps.NO_REPLY_HEADER),
    Command.END_OF_HEADER: _Event(Steps.NO_END_OF_HEADER, Steps.NO_REPLY_END_OF_HEADER),
    Command.BODY: _Event(Steps.NO_BODY, Steps.NO_REPLY_BODY),
    Command.END_OF_BODY: _Event(_NEVER, _NEVER),
}
_PERMITTED: Final[Mapping[type[object], int]] = {
    AddHeader: int(Edits.ADD_HEADERS),
    InsertHeader: int(Edits.ADD_HEADERS),
    ChangeHeader: int(Edits.CHANGE_HEADERS),
    ReplaceBody: int(Edits.CHANGE_BODY),
    AddRecipient: int(Edits.ADD_RECIPIENTS | Edits.ADD_RECIPIENTS_WITH_ARGUMENTS),
    DeleteRecipient: int(Edits.DELETE_RECIPIENTS),
    ChangeSender: int(Edits.CHANGE_SENDER),
    Quarantine: int(Edits.QUARANTINE),
}


_EDIT_NAMES: Final[Mapping[str, str]] = {
    "+": "SMFIR_ADDRCPT",
    "-": "SMFIR_DELRCPT",
    "2": "SMFIR_ADDRCPT_PAR",
    "b": "SMFIR_REPLBODY",
    "e": "SMFIR_CHGFROM",
    "h": "SMFIR_ADDHEADER",
    "i": "SMFIR_INSHEADER",
    "m": "SMFIR_CHGHEADER",
    "q": "SMFIR_QUARANTINE",
}


_LEADING_SPACE: Final = int(Steps.LEADING_SPACE)
_CONTINUE: Final = b"\0\0\0\1c"
_NOTED: Final = frozenset((Command.CONNECT, Command.HELO, Command.MAIL, Command.RCPT, Command.DATA))


class _State(Enum):
    OPEN = "open"
    SILENT = "silent"  # until the next message
    ENDED = "ended"  # the session was decided


# Attributes of enumerations are slow.
_OPEN: Final = _State.OPEN
_SILENT: Final = _State.SILENT
_ENDED: Final = _State.ENDED
_MAIL: Final = Command.MAIL
_ABORT: Final = packet(Command.ABORT)
_QUIT: Final = packet(Command.QUIT)


@lru_cache(8)
def _offer(version: int) -> bytes:
    edits, steps = VERSIONS[version]
    return negotiation(version, edits, steps)


@lru_cache(64)
def _wanted(version: int, steps: int) -> tuple[frozenset[Command], frozenset[Command]]:
    """The events that are reported, and those that are answered. steps: a plain integer, as
    the operators of flags are slow."""
    wanted = {
        command
        for command, event in _EVENTS.items()
        if event.since <= version and not steps & int(event.unwanted)
    }
    answered = {command for command in wanted if not steps & int(_EVENTS[command].unanswered)}
    return frozenset(wanted), frozenset(answered)


class Snapshot(NamedTuple):
    """The state for another process to go on with. silent: nothing more of this message is wanted.

    macros: names that the Milter asked for, by stage.
    """

    version: int
    edits: int
    steps: int
    silent: bool
    macros: tuple[tuple[int, str], ...]


class Conversation:
    """The protocol of one connection. Methods return the octets to send."""

    __slots__ = (
        "_answered",
        "_answers",
        "_decided",
        "_negotiated",
        "_noted",
        "_octets",
        "_offered",
        "_reader",
        "_skipped",
        "_state",
        "_steps",
        "_unsent",
        "_wanted",
        "asked",
        "awaited",
        "latest",
        "leading_space",
    )

    def __init__(self, version: int = 6) -> None:
        """version: one of VERSIONS, the newest that may be spoken.

        asked: lists of macros that the Milter wants instead of ours, by Stage.
        awaited: the event that the Milter has to answer before the next one, if any.
        leading_space: whether field values keep the space behind the colon, in both directions.
        latest: what was sent last.
        """
        self._offered = version
        self._reader = PacketReader()
        self._negotiated: Negotiated | None = None
        self.asked: Mapping[int, str] = {}
        self.awaited: Command | None = None
        self._answers = self._octets = 0  # so far, to the event that awaits some
        self._state = _OPEN
        self._decided = PASS  # while the session has ended
        self._noted: dict[Command, bytes] = {}  # macros that go before the next event
        self._skipped: Command | None = None  # more of them are not wanted of this message
        self._steps: deque[tuple[Command, bytes]] = (
            deque()
        )  # lined up: up to an event, what to send
        self._unsent = b""  # events without answers, and the end of a message: before the next one
        self._wanted: frozenset[Command] = frozenset()
        self._answered: frozenset[Command] = frozenset()
        self.leading_space = False
        self.latest = Command.NEGOTIATE

    # the connection

    def start(self) -> bytes:
        """The first packet; its answer goes to `accept_negotiation`."""
        return _offer(self._offered)

    def accept_negotiation(self) -> bool:
        """Whether the answer to `start` is complete. Raises MilterError."""
        received = self._reader.next_packet()
        if received is None:
            return False
        version, edits, steps, macros = parse_negotiation(*received)
        ours, our_edits, our_steps = _OFFERS[self._offered]
        if not 0 < version <= ours:
            versions = f"{version} conflict with MTA protocol version {ours}"
            raise MilterError(f"protocol version {versions}", told=True)
        if unknown := edits & ~our_edits:
            masks = f"0x{unknown:x} conflict with MTA request mask 0x{our_edits:x}"
            raise MilterError(f"request mask {masks}", told=True)
        # Steps that were not offered do nothing.
        self._agree(Negotiated(version, edits, steps & our_steps, macros))
        return True

    def _agree(self, negotiated: Negotiated) -> None:
        self._negotiated, self.asked = negotiated, negotiated.macros
        self._wanted, self._answered = _wanted(negotiated.version, negotiated.steps)
        self.leading_space = bool(negotiated.steps & _LEADING_SPACE)

    @property
    def negotiated(self) -> Negotiated:
        """The result of the negotiation, which has to be complete."""
        if self._negotiated is None:
            raise AssertionError("no negotiation yet")
        return self._negotiated

    def snapshot(self) -> Snapshot:
        """The state for the process that goes on with this connection, between two events."""
        known = self.negotiated
        silent = self._state is not _OPEN
        return Snapshot(
            known.version, known.edits, known.steps, silent, tuple(known.macros.items())
        )

    @classmethod
    def resumed(cls, state: Snapshot) -> "Conversation":
        """Go on where another process stopped."""
        self = cls(state.version)
        version, edits, steps, _, macros = state
        self._agree(Negotiated(version, edits, steps, dict(macros)))
        self._state = _SILENT if state.silent else _OPEN
        return self

    # events

    def wants(self, command: Command) -> bool:
        """Whether the Milter wants such an event now."""
        return command in self._wanted and self._state is _OPEN and command is not self._skipped

    def notes(self, command: Command) -> bool:
        """Whether it gets the macros of an event in any case: it may use them later."""
        known = command in _NOTED and _EVENTS[command].since <= self.negotiated.version
        return known and self._state is not _ENDED

    def unsent(self) -> bytes:
        """What is to be sent before anything else, and before another process goes on: what has
        waited for that, and macros of events not wanted."""
        out = self._unsent + b"".join(self._noted.values())
        self._unsent, self._noted = b"", {}
        return out

    def event(self, command: Command, data: bytes = b"", macros: bytes | None = None) -> bytes:
        """What to send for an event; b"" when the Milter does not want it.

        data: of the packet. macros: names and values, which go before it; None for no list.
        If one is `awaited` afterwards, answers must be read before the next event.
        """
        if command is _MAIL:
            self._next_message()
        if not self.wants(command):
            if macros and self._state is _OPEN and self.notes(command):
                self._noted[command] = macro_packet(command, macros)
            return b""
        self.latest = command
        if command in self._answered:
            self.awaited = command
            self._answers = self._octets = 0
        out = packet(command, data)
        if macros is not None:
            out = macro_packet(command, macros) + out
        if self._unsent or self._noted:
            out = self.unsent() + out
        return out

    def line_up(self, events: Iterable[Event]) -> None:
        """Events that are to be reported one after the other, as `event`, while nothing is decided.

        What there is to send for them, `proceed` and `continued` tell. Other events have to follow:
        those that are not answered are sent together with the next that is.
        """
        steps, out, about, known = self._steps, b"", b"", None
        latest: Command | None = None
        for command, data, macros in events:
            if command is not latest or macros is not known:
                if not self.wants(command):
                    continue
                latest, known = command, macros
                about = b"" if macros is None else macro_packet(command, macros)
                out += self.unsent()
            out += about + packet(command, data)
            if command in self._answered:
                steps.append((command, out))
                out = b""
        if latest is not None and len(out) >= _TOGETHER:
            steps.append((latest, out))
            out = b""
        self._unsent += out

    def proceed(self) -> bytes:
        """What to send next of that which is lined up; b"" for nothing."""
        steps, out = self._steps, b""
        while steps and self.awaited is None:
            self.latest, data = steps.popleft()
            if self.latest in self._answered:
                self.awaited = self.latest
                self._answers = self._octets = 0
            out += data
        return out

    def abort(self, *, at_once: bool = True) -> bytes:
        """End the current message, if any; another may follow.

        at_once: else the Milter is told before anything else that it is told.
        """
        self.awaited = None
        self._next_message()
        if self._state is _ENDED:
            return b""
        out, self._unsent = self._unsent + _ABORT, b""
        if not at_once:
            out, self._unsent = b"", out
        return out

    def _next_message(self) -> None:
        self._skipped = None
        self._steps.clear()
        if self._state is _SILENT:
            self._state = _OPEN

    def quit(self) -> bytes:
        """End the connection, unless the Milter has decided about the session already."""
        return self._unsent if self._state is _ENDED else self._unsent + _QUIT

    @property
    def standing(self) -> Decision:
        """The decision about the whole session; PASS if there is none."""
        return self._decided

    # answers

    @property
    def clean(self) -> bool:
        """Whether the connection can be handed over or kept: nothing is pending."""
        return self.awaited is None and not self._reader.pending

    def continued(self, data: bytes) -> bytes | None:
        """What to send when the Milter has said this; b"" for nothing.

        None: it is not just what a Milter mostly says, to go on; then it is for `receive_data`.
        """
        if data != _CONTINUE or self.awaited is None or self._reader.pending:
            return None
        self.awaited = None
        return self.proceed() if self._steps else b""

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the Milter."""
        self._reader.receive_data(data)

    def next_answer(self) -> Decision | Edit | Progress | None:
        """The next answer to the event that was reported; None if more must be received.

        A Decision ends the waiting. Raises MilterError.
        """
        received = self._reader.next_packet()
        if received is None:
            return None
        awaited = self.awaited
        if awaited is None:
            raise MilterError("answer to no event")
        answer = parse_answer(*received)
        self._count(answer, len(received[1]))
        permitted = _PERMITTED.get(type(answer))
        if permitted is not None:
            self._check_edit(awaited, received[0], permitted)
            return answer  # type: ignore[return-value]
        if isinstance(answer, Progress):
            return answer
        self.awaited = None
        return self._decide(awaited, answer)

    def _count(self, answer: Answer, octets: int) -> None:
        if isinstance(answer, ReplaceBody) and octets:
            return  # the size of a message has a limit of its own
        self._answers += 1
        self._octets += octets
        if self._answers > _MOST_ANSWERS or self._octets > _MOST_OCTETS:
            raise MilterError("too many answers")

    def _check_edit(self, awaited: Command, name: int, permitted: int) -> None:
        if awaited is not Command.END_OF_BODY:
            raise _unexpected(_EDIT_NAMES[chr(name)])
        if not self.negotiated.edits & permitted:
            raise MilterError("change request that was not negotiated")

    def _decide(self, awaited: Command, answer: Answer) -> Decision:
        decision = self._decision(awaited, answer)
        if not isinstance(answer, Continue):
            self._forget_unwanted()
        return decision

    def _forget_unwanted(self) -> None:
        """Of what is lined up, report no more than is still wanted."""
        self._steps = deque(step for step in self._steps if self.wants(step[0]))
        if self._state is not _OPEN:
            self._unsent = b""

    def _decision(self, awaited: Command, answer: Answer) -> Decision:
        session = _EVENTS[awaited].session
        match answer:
            case Continue():
                return PASS
            case Accept():
                self._state = _ENDED if session else _SILENT
                return PASS
            case Skip():
                if awaited in (Command.HEADER, Command.BODY):
                    self._skipped = awaited
                return PASS
            case Discard():
                if session:
                    return PASS  # there is nothing yet to discard
                self._state = _SILENT
                return _DISCARD
            case ConnectionFailed():
                raise _unexpected("SMFIR_CONN_FAIL")
            case Shutdown():
                self._state = _ENDED
                return _SHUTDOWN
            case Reject():
                return self._refused(awaited, _REJECT)
            case TempFail():
                return self._refused(awaited, _TEMPFAIL)
            case Refuse(reply):
                act = Act.DISCONNECT if reply.code in _CLOSE else Act.REFUSE
                return self._refused(awaited, Decision(act, reply))
        raise AssertionError(answer)

    def _refused(self, awaited: Command, decision: Decision) -> Decision:
        """The state after a rejection; that of a recipient changes nothing for the others."""
        if _EVENTS[awaited].session:
            self._state, self._decided = _ENDED, decision
        elif awaited not in (Command.RCPT, Command.UNKNOWN):
            self._state = _SILENT
        return decision


def _unexpected(name: str) -> MilterError:
    return MilterError(f"unexpected filter response {name}")
