"""The connection to one Milter for an SMTP session, on a descriptor that can be handed over.

Called by: smtpd, for the events of a session; cleanup, for the content of a message, and for mail
that did not come by SMTP. Asks: the Milters.

A Milter that cannot be reached, disconnects, stalls or breaks the protocol never stops mail by
itself: from then on its `default_action` is its answer to everything, with one warning in the log.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from libmail.ipc.messages import MilterState
from libmail.log import LOG
from libmail.milter.conversation import PASS, Act, Conversation, Decision, Event, Snapshot
from libmail.milter.protocol import Command, Edit, MalformedReply, MilterError, Progress, Stage
from libmail.milter.settings import MilterSettings
from libmail.net.wakeup import Wakeup
from libmail.smtp.reply import Reply, ReplySyntax, parse_reply

__all__ = ["Dial", "HandedOver", "MilterLink", "default_decision", "no_edits"]

_READ: Final = 1 << 16
_TOGETHER: Final = 1 << 16  # octets of events without answers that wait for the next one
_NAMES: Final = {
    Command.ABORT: "SMFIC_ABORT",
    Command.BODY: "SMFIC_BODY",
    Command.CONNECT: "SMFIC_CONNECT",
    Command.END_OF_BODY: "SMFIC_BODYEOB",
    Command.HELO: "SMFIC_HELO",
    Command.HEADER: "SMFIC_HEADER",
    Command.MAIL: "SMFIC_MAIL",
    Command.END_OF_HEADER: "SMFIC_EOH",
    Command.NEGOTIATE: "SMFIC_OPTNEG",
    Command.QUIT: "SMFIC_QUIT",
    Command.RCPT: "SMFIC_RCPT",
    Command.DATA: "SMFIC_DATA",
    Command.UNKNOWN: "SMFIC_UNKNOWN",
}
_DEFAULTS: Final = {
    "accept": PASS,
    "quarantine": Decision(Act.HOLD, reason="default_action"),
    "reject": Decision(Act.REFUSE, Reply(550, "5.5.0", "Service unavailable")),
    "shutdown": Decision(Act.DISCONNECT, Reply(421, "4.7.0", "Server closing connection")),
    "tempfail": Decision(Act.REFUSE, Reply(451, "4.7.1", "Service unavailable - try again later")),
}
_MISTAKE: Final = Decision(
    Act.REFUSE, Reply(451, "4.3.5", "Server configuration problem - try again later")
)
Dial: TypeAlias = Callable[[], Awaitable[socket.socket]]
"""Makes a connected socket that does not block. Raises OSError."""


def default_decision(action: str) -> Decision:
    """The decision for a milter_default_action: one of its words, or an SMTP reply."""
    known = _DEFAULTS.get(action.lower())
    if known is not None:
        return known
    try:
        reply = parse_reply([action])
    except ReplySyntax:
        return _MISTAKE
    act = Act.DISCONNECT if reply.code == 421 else Act.REFUSE
    return Decision(act, reply)


def no_edits(edit: Edit) -> None:
    """The `edit` of events that permit no changes; `Conversation` rejects those earlier."""
    raise AssertionError(edit)


class HandedOver(NamedTuple):
    """A link to be handed over. sock: its connection, which stays open here, too; None for none."""

    state: MilterState
    sock: socket.socket | None


class MilterLink:
    """One Milter in one session."""

    __slots__ = ("_conversation", "_failed", "_series", "_settings", "_unsent", "_wire")

    def __init__(self, settings: MilterSettings, conversation: Conversation | None = None) -> None:
        """Not connected yet: see `open`, `resumed`. conversation: so far."""
        self._settings = settings
        self._conversation = conversation or Conversation(settings.version)
        self._wire: _Wire | None = None
        self._failed: Decision | None = None
        self._series: deque[Event] = deque()  # events to be reported
        self._unsent = b""  # events that have no answer

    @property
    def failed(self) -> bool:
        """Whether its `default_action` speaks for it."""
        return self._failed is not None

    @property
    def settings(self) -> MilterSettings:
        """The configuration of the Milter."""
        return self._settings

    async def open(self, connect: Dial) -> None:
        """Connect and negotiate."""
        settings = self._settings
        try:
            async with asyncio.timeout(settings.connect_timeout):
                self._wire = _Wire(await connect())
        except (OSError, TimeoutError) as error:
            LOG.warning(f"connect to Milter service {settings.endpoint}: {_reason(error)}")
            self._fail()
            return
        talk = self._conversation
        limit = settings.command_timeout
        await self._exchange(talk.start(), limit, talk.accept_negotiation)

    # another process

    def hand_over(self, end_of_header_macros: str, end_of_data_macros: str) -> HandedOver:
        """The state for another process to go on with.

        The arguments are lists of macros for a Milter that did not ask for others.
        """
        known, wire = self._settings, self._wire
        limits = known.command_timeout, known.content_timeout
        if self._failed is None and wire is not None:
            if wire.hand_over(self._conversation.noted()):
                version, edits, steps, silent, _ = self._conversation.snapshot()
                at_header = self.macros(Stage.END_OF_HEADER, end_of_header_macros)
                at_end = self.macros(Stage.END_OF_MESSAGE, end_of_data_macros)
                state = MilterState(
                    known.endpoint, *limits, known.default_action, connected=True, version=version,
                    edits=edits, steps=steps, silent=silent, end_of_header_macros=at_header,
                    end_of_data_macros=at_end,
                )  # fmt: skip
                return HandedOver(state, wire.sock)
            self._fail()
        state = MilterState(known.endpoint, *limits, known.default_action, connected=False)
        return HandedOver(state, None)

    @classmethod
    def resumed(cls, state: MilterState, sock: socket.socket | None) -> "MilterLink":
        """Go on with a connection of another process."""
        settings = MilterSettings(
            state.endpoint, state.command_timeout, state.command_timeout, state.content_timeout,
            state.default_action, str(state.version),
        )  # fmt: skip
        macros = (
            (int(Stage.END_OF_HEADER), state.end_of_header_macros),
            (int(Stage.END_OF_MESSAGE), state.end_of_data_macros),
        )
        known = Snapshot(state.version, state.edits, state.steps, state.silent, macros)
        link = cls(settings, Conversation.resumed(known))
        if sock is None:
            link._fail()
        else:
            sock.setblocking(False)
            link._wire = _Wire(sock)
        return link

    # events

    def wants(self, command: Command) -> bool:
        """Whether the Milter wants such an event now."""
        return self._failed is None and self._conversation.wants(command)

    def notes(self, command: Command) -> bool:
        """Whether the Milter is told the macros of such an event in any case."""
        return self._failed is None and self._conversation.notes(command)

    def macros(self, stage: Stage, ours: str) -> str:
        """The list of macros for a stage."""
        return ours if self._failed is not None else self._conversation.macros(stage, ours)

    @property
    def leading_space(self) -> bool:
        """Whether values of fields keep the space behind the colon."""
        return self._failed is None and self._conversation.leading_space

    async def event(
        self,
        command: Command,
        data: bytes = b"",
        macros: bytes | None = None,
        edit: Callable[[Edit], None] = no_edits,
    ) -> Decision:
        """Report an event and wait for the decision.

        macros: names and values; None for no list. edit: takes each change asked for.
        """
        if self._failed is not None:
            return self._failed
        out = self._conversation.event(command, data, macros)
        if not out:
            return self._conversation.standing
        if self._unsent:
            out, self._unsent = self._unsent + out, b""
        return await self._report(out, self._limit(command), edit)

    async def events(self, events: Iterable[Event]) -> Decision:
        """Report one event after the other, up to the first decision but to continue.

        As long as the Milter says nothing else, each follows from within the callback in which the
        answer to the one before it arrives. Another event has to follow this series: those that are
        not answered are sent together with the next that is.
        """
        series, decision = self._series, PASS
        series.extend(events)
        while series and self._failed is None and decision is PASS:
            out = self._next_events()
            if not out and len(self._unsent) >= _TOGETHER:
                out, self._unsent = self._unsent, b""
            if out:
                decision = await self._report(out, self._settings.command_timeout, no_edits)
        series.clear()
        return self._failed or decision

    def _next_events(self) -> bytes:
        """The next events of the series up to one that is answered; until that comes, they wait."""
        conversation, series, out = self._conversation, self._series, self._unsent
        while series and len(out) < _TOGETHER:
            out += conversation.event(*series.popleft())
            if conversation.awaiting:
                self._unsent = b""
                return out
        self._unsent = out
        return b""

    def _continue(self, data: bytes) -> bytes | None:
        """What to send when the Milter has said this: b"" for nothing.

        None: it has said something else than to go on.
        """
        return self._next_events() if self._conversation.continued(data) else None

    async def _report(self, out: bytes, limit: float, edit: Callable[[Edit], None]) -> Decision:
        """Send events, and wait for the answer to the last one if it has any."""
        conversation, decision = self._conversation, PASS

        def answered() -> bool:
            nonlocal decision
            while conversation.awaiting:
                answer = conversation.next_answer()
                if answer is None:
                    return False
                if isinstance(answer, Decision):
                    decision = answer
                elif not isinstance(answer, Progress):
                    edit(answer)
            return True

        if await self._exchange(out, limit, answered if conversation.awaiting else None):
            return decision
        return self._failed or PASS

    def abort(self) -> None:
        """Report the end of the current message, if any. Does not wait, as the packet is tiny."""
        out = b"" if self._failed is not None else self._conversation.abort()
        if out and self._wire is not None:
            self._wire.say(out)  # the next event, if any, will find and log the problem

    def lost(self) -> None:
        """Another process did not complete the message: the state of the protocol is unknown."""
        if self._failed is None:
            self._fail()

    def close(self, *, goodbye: bool = True) -> None:
        """End the connection. goodbye: send QUIT; False in a process that only borrowed it."""
        wire, self._wire = self._wire, None
        if wire is None:
            return
        if goodbye and self._failed is None:
            wire.say(self._conversation.quit())
        wire.close()

    # the exchange

    async def _exchange(
        self, out: bytes, limit: float, complete: Callable[[], bool] | None
    ) -> bool:
        """Send, and read until the answer is complete. False: it failed, and was logged.

        complete: None where there is no answer.
        """
        wire, conversation = self._wire, self._conversation
        if wire is None:
            raise AssertionError("not connected")
        try:
            if unsent := wire.send(out):
                await wire.send_all(unsent, limit)
            while complete is not None:
                data = await wire.receive(limit, self._continue)
                if not data:
                    return True
                conversation.receive_data(data)
                if complete():
                    return True
        except MalformedReply as error:
            self._broken(f"milter {self._settings.endpoint}: {error}", _MISTAKE)
        except MilterError as error:
            when = "" if error.told else f" after event {_NAMES[conversation.latest]}"
            self._broken(f"milter {self._settings.endpoint}: {error}{when}")
        except (OSError, TimeoutError) as error:
            name, endpoint = _NAMES[conversation.latest], self._settings.endpoint
            what = f"can't read {name} reply packet header"
            self._broken(f"milter {endpoint}: {what}: {_reason(error)}")
        return self._failed is None

    def _limit(self, command: Command) -> float:
        """Seconds: answers at the end of a message may take longer."""
        settings = self._settings
        if command is Command.END_OF_BODY:
            return settings.content_timeout
        return settings.command_timeout

    def _broken(self, text: str, decision: Decision | None = None) -> None:
        """decision: instead of the default action."""
        LOG.warning(text)
        if self._wire is not None:
            self._wire.shut_down()
        self._fail(decision)

    def _fail(self, decision: Decision | None = None) -> None:
        settings = self._settings
        self._failed = decision or default_decision(settings.default_action)
        if decision is None and self._failed is _MISTAKE:
            action = settings.default_action
            LOG.warning(f"milter {settings.endpoint}: unrecognized default action: {action}")
        self.close()


class _Wire:
    """The connection to a Milter, which the loop watches while answers of the Milter are awaited.

    It is watched from one answer to the next, as a message takes one for each of its fields. But no
    longer than until another process goes on: of what the Milter says then, nothing is for us.
    """

    __slots__ = ("_continue", "_deadline", "_limit", "_loop", "_received", "_timer", "_unsent",
                 "_wakeup", "_watched", "sock")  # fmt: skip

    def __init__(self, sock: socket.socket) -> None:
        """sock: connected, does not block; owned from now on."""
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._wakeup = Wakeup(self._loop)
        self._watched = False
        self._continue: Callable[[bytes], bytes | None] = _nothing
        self._received = b""  # what the caller is to see
        self._unsent = b""  # of what `_continue` has given
        self._limit = self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None  # one for many answers

    def send(self, data: bytes) -> bytes:
        """Mostly there is room for all of it at once. Returns what is left. Raises OSError."""
        try:
            return data[self.sock.send(data) :]
        except BlockingIOError:
            return data

    async def send_all(self, data: bytes, limit: float) -> None:
        """Send what was left. Raises OSError, TimeoutError."""
        async with asyncio.timeout(limit):
            await self._loop.sock_sendall(self.sock, data)

    def say(self, data: bytes) -> bool:
        """Send a few octets without waiting. Returns whether that was possible."""
        try:
            return not data or self.sock.send(data) == len(data)
        except OSError:
            return False

    def hand_over(self, data: bytes) -> bool:
        """As `say`; what comes is for another process from now on, until the next `receive`."""
        self._rest()
        return self.say(data)

    async def receive(self, limit: float, go_on: Callable[[bytes], bytes | None]) -> bytes:
        """What comes next, and was not for `go_on`. Raises OSError, and TimeoutError if nothing
        comes for `limit` seconds.

        go_on: is given what comes, and gives what to send then; after b"" there is no more to be
        received, and after None it is for the caller.
        """
        self._continue, self._limit = go_on, limit
        while True:
            self._watch()
            await self._wakeup
            if not self._unsent:
                return self._received
            unsent, self._unsent = self._unsent, b""
            await self.send_all(unsent, limit)

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self.sock, self._ready)
        self._deadline = self._loop.time() + self._limit
        if self._timer is None or self._deadline < self._timer.when():
            self._set_timer()

    def _ready(self) -> None:
        if not self._wakeup.waiting:
            self._rest()  # it is for the next event to find
            return
        try:
            data = self.sock.recv(_READ)
            if not data:
                raise ConnectionResetError(0, "Application error")
            out = self._continue(data)
            if out:
                self._unsent = self.send(out)
        except BlockingIOError:
            return
        except OSError as error:
            self._wakeup.fail(error)
            return
        if not out or self._unsent:
            self._received = data if out is None else b""
            self._wakeup.wake()
        else:
            self._deadline = self._loop.time() + self._limit

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._wakeup.waiting:
            if self._deadline > self._loop.time():
                self._set_timer()
            else:
                self._wakeup.fail(TimeoutError())

    def _rest(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self.sock)

    def shut_down(self) -> None:
        """End the connection, for another process that shares it, too."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone already

    def close(self) -> None:
        """Close the socket."""
        self._rest()
        if self._timer is not None:
            self._timer.cancel()
        self.sock.close()


def _nothing(data: bytes) -> None:
    """What comes is for the caller."""


def _reason(error: OSError) -> str:
    """The text of the error number, without what event loops add to it."""
    if isinstance(error, TimeoutError):
        return os.strerror(errno.ETIMEDOUT)
    return os.strerror(error.errno) if error.errno else error.strerror or str(error)
