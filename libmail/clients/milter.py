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
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
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
_END_OF_HEADER_STAGE: Final = int(Stage.END_OF_HEADER)
_END_OF_MESSAGE_STAGE: Final = int(Stage.END_OF_MESSAGE)
_END_OF_BODY: Final = Command.END_OF_BODY  # attributes of enumerations are slow
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


async def _known(decision: Decision) -> Decision:
    """What nobody needs to be asked for."""
    return decision


class HandedOver(NamedTuple):
    """A link to be handed over. sock: its connection, which stays open here, too; None for none."""

    state: MilterState
    sock: socket.socket | None


class MilterLink:
    """One Milter in one session."""

    __slots__ = ("_conversation", "_decision", "_edit", "_failed", "_settings", "_wire")

    def __init__(self, settings: MilterSettings, conversation: Conversation | None = None) -> None:
        """Not connected yet: see `open`, `resumed`. conversation: so far."""
        self._settings = settings
        self._conversation = conversation or Conversation(settings.version)
        self._wire: _Wire | None = None
        self._failed: Decision | None = None
        self._decision = PASS  # about the event at hand
        self._edit: Callable[[Edit], None] = no_edits  # takes changes that the Milter asks for

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
                self._wire = _Wire(await connect(), self._conversation.continued)
        except (OSError, TimeoutError) as error:
            LOG.warning(f"connect to Milter service {settings.endpoint}: {_reason(error)}")
            self._fail()
            return
        talk = self._conversation
        limit = settings.command_timeout
        await self._exchange(talk.start(), limit, self._negotiated)

    # another process

    def hand_over(self, end_of_header_macros: str, end_of_data_macros: str) -> HandedOver:
        """The state for another process to go on with.

        The arguments are lists of macros for a Milter that did not ask for others.
        """
        known, wire = self._settings, self._wire
        limits = known.command_timeout, known.content_timeout
        if self._failed is None and wire is not None:
            if wire.hand_over(self._conversation.unsent()):
                version, edits, steps, silent, _ = self._conversation.snapshot()
                asked = self._conversation.asked
                at_header = asked.get(_END_OF_HEADER_STAGE, end_of_header_macros)
                at_end = asked.get(_END_OF_MESSAGE_STAGE, end_of_data_macros)
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
        settings = _settings(
            state.endpoint, state.command_timeout, state.content_timeout, state.default_action,
            state.version,
        )  # fmt: skip
        at_header, at_end = state.end_of_header_macros, state.end_of_data_macros
        macros = (_END_OF_HEADER_STAGE, at_header), (_END_OF_MESSAGE_STAGE, at_end)
        known = Snapshot(state.version, state.edits, state.steps, state.silent, macros)
        link = cls(settings, Conversation.resumed(known))
        if sock is None:
            link._fail()
        else:
            sock.setblocking(False)
            link._wire = _Wire(sock, link._conversation.continued)
        return link

    # events

    def wants(self, command: Command) -> bool:
        """Whether the Milter wants such an event now."""
        return self._failed is None and self._conversation.wants(command)

    def notes(self, command: Command) -> bool:
        """Whether the Milter is told the macros of such an event in any case."""
        return self._failed is None and self._conversation.notes(command)

    @property
    def asked(self) -> Mapping[int, str]:
        """The lists of macros that the Milter asked for, by Stage."""
        return self._conversation.asked

    @property
    def leading_space(self) -> bool:
        """Whether values of fields keep the space behind the colon."""
        return self._failed is None and self._conversation.leading_space

    def event(
        self,
        command: Command,
        data: bytes = b"",
        macros: bytes | None = None,
        edit: Callable[[Edit], None] = no_edits,
    ) -> Awaitable[Decision]:
        """Report an event and wait for the decision; to be awaited at once.

        macros: names and values; None for no list. edit: takes each change asked for.
        """
        if self._failed is not None:
            return _known(self._failed)
        conversation, settings = self._conversation, self._settings
        out = conversation.event(command, data, macros)
        if not out:
            return _known(conversation.standing)
        self._edit, self._decision = edit, PASS
        at_end = command is _END_OF_BODY  # there, answers may take longer
        limit = settings.content_timeout if at_end else settings.command_timeout
        return self._exchange(out, limit, self._answered if conversation.awaited else None)

    async def events(self, events: Iterable[Event]) -> Decision:
        """Report one event after the other, up to the first decision but to continue.

        As long as the Milter says nothing else, each follows from within the callback in which the
        answer to the one before it arrives. Another event has to follow this series: those that are
        not answered are sent together with the next that is.
        """
        if self._failed is not None:
            return self._failed
        conversation, limit = self._conversation, self._settings.command_timeout
        self._edit, self._decision = no_edits, PASS
        conversation.line_up(events)
        while self._decision is PASS and self._failed is None and (out := conversation.proceed()):
            await self._exchange(out, limit, self._answered if conversation.awaited else None)
        return self._failed or self._decision

    def _negotiated(self, data: bytes) -> bool:
        """Take an answer to the offer. Returns whether it is complete."""
        self._conversation.receive_data(data)
        return self._conversation.accept_negotiation()

    def _answered(self, data: bytes) -> bool:
        """Take answers to an event. Returns whether the last one is there."""
        conversation = self._conversation
        conversation.receive_data(data)
        while conversation.awaited:
            answer = conversation.next_answer()
            if answer is None:
                return False
            if isinstance(answer, Decision):
                self._decision = answer
            elif not isinstance(answer, Progress):
                self._edit(answer)
        return True

    def abort(self, *, at_once: bool = True) -> None:
        """Report the end of the current message, if any. Does not wait, as the packet is tiny.

        at_once: else together with what is reported next.
        """
        out = b"" if self._failed is not None else self._conversation.abort(at_once=at_once)
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
        self, out: bytes, limit: float, answered: Callable[[bytes], bool] | None
    ) -> Decision:
        """Send, and read until the answer is complete, or log why that has failed.

        answered: takes what the Milter says, and returns whether that is all; None for no answer.
        Returns the decision about the event at hand.
        """
        wire = self._wire
        if wire is None:
            raise AssertionError("not connected")
        try:
            if unsent := wire.send(out):
                await wire.send_all(unsent, limit)
            while answered is not None:
                await wire.receive(limit)
                if wire.unsent:
                    await wire.send_rest(limit)
                elif not wire.received or answered(wire.received):
                    break
        except (MilterError, OSError) as error:
            self._broken(error)
        return self._failed or self._decision

    def _broken(self, error: MilterError | OSError) -> None:
        """The exchange has failed."""
        endpoint, latest = self._settings.endpoint, _NAMES[self._conversation.latest]
        if not isinstance(error, MilterError):
            text = f"can't read {latest} reply packet header: {_reason(error)}"
        elif error.told or isinstance(error, MalformedReply):
            text = str(error)
        else:
            text = f"{error} after event {latest}"
        LOG.warning(f"milter {endpoint}: {text}")
        if self._wire is not None:
            self._wire.shut_down()
        self._fail(_MISTAKE if isinstance(error, MalformedReply) else None)

    def _fail(self, decision: Decision | None = None) -> None:
        settings = self._settings
        self._failed = decision or default_decision(settings.default_action)
        if decision is None and self._failed is _MISTAKE:
            action = settings.default_action
            LOG.warning(f"milter {settings.endpoint}: unrecognized default action: {action}")
        self.close()


@lru_cache(64)
def _settings(
    endpoint: str, command_timeout: float, content_timeout: float, action: str, version: int
) -> MilterSettings:
    """What there is to know of a Milter to which another process has connected."""
    return MilterSettings(
        endpoint, command_timeout, command_timeout, content_timeout, action, str(version)
    )


class _Wire:
    """The connection to a Milter, which the loop watches while answers of the Milter are awaited.

    It is watched from one answer to the next, as a message takes one for each of its fields. But no
    longer than until another process goes on: of what the Milter says then, nothing is for us.
    """

    __slots__ = ("_continue", "_deadline", "_limit", "_loop", "_timer", "_wakeup", "_watched",
                 "received", "sock", "unsent")  # fmt: skip

    def __init__(self, sock: socket.socket, go_on: Callable[[bytes], bytes | None]) -> None:
        """sock: connected, does not block; owned from now on.

        go_on: is given what comes, and gives what to send then; after b"" there is no more to be
        received, and after None it is for the caller.
        received: what came for the caller. unsent: what is left of that which `go_on` has given.
        """
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._wakeup = Wakeup(self._loop)
        self._watched = False
        self._continue = go_on
        self.received = self.unsent = b""
        self._limit = self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None  # one for many answers

    def send(self, data: bytes) -> bytes:
        """Mostly there is room for all of it at once. Returns what is left. Raises OSError."""
        try:
            return data[self.sock.send(data) :]
        except BlockingIOError:
            return data

    async def send_rest(self, limit: float) -> None:
        """Send what is unsent. Raises OSError, TimeoutError."""
        data, self.unsent = self.unsent, b""
        await self.send_all(data, limit)

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

    def receive(self, limit: float) -> Wakeup:
        """To be awaited, at once: until something comes that is not just another occasion to go on,
        or something is left unsent. Raises OSError, and TimeoutError if nothing comes for `limit`
        seconds.
        """
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self.sock, self._ready)
        self._limit = limit
        self._deadline = deadline = self._loop.time() + limit
        if self._timer is None or deadline < self._timer.when():
            self._set_timer()
        return self._wakeup

    def _ready(self) -> None:
        if not self._wakeup.waiting:
            self._rest()  # it is for the next event to find
            return
        try:
            data = self.sock.recv(_READ)
            out = self._continue(data)
            if out:
                self.unsent = out
                self.unsent = out[self.sock.send(out) :]
            elif not data:
                raise ConnectionResetError(0, "Application error")
        except BlockingIOError:
            if not self.unsent:
                return  # there was nothing to receive
        except OSError as error:
            self._wakeup.fail(error)
            return
        if not out or self.unsent:
            self.received = data if out is None else b""
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


def _reason(error: OSError) -> str:
    """The text of the error number, without what event loops add to it."""
    if isinstance(error, TimeoutError):
        return os.strerror(errno.ETIMEDOUT)
    return os.strerror(error.errno) if error.errno else error.strerror or str(error)
