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
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeAlias

from libmail.ipc.messages import MilterState
from libmail.log import LOG
from libmail.milter.conversation import PASS, Act, Conversation, Decision, Snapshot
from libmail.milter.protocol import Command, Edit, MalformedReply, MilterError, Progress, Stage
from libmail.milter.settings import MilterSettings
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

    __slots__ = ("_conversation", "_failed", "_settings", "_sock")

    def __init__(self, settings: MilterSettings) -> None:
        """Not connected yet: see `open`, `resumed`."""
        self._settings = settings
        self._conversation = Conversation(settings.version)
        self._sock: socket.socket | None = None
        self._failed: Decision | None = None

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
                self._sock = await connect()
        except (OSError, TimeoutError) as error:
            LOG.warning(f"connect to Milter service {settings.endpoint}: {_reason(error)}")
            self._fail()
            return
        await self._exchange(Command.NEGOTIATE, self._conversation.start(), self._negotiated)

    # another process

    def hand_over(self, end_of_header_macros: str, end_of_data_macros: str) -> HandedOver:
        """The state for another process to go on with.

        The arguments are lists of macros for a Milter that did not ask for others.
        """
        settings, sock = self._settings, self._sock
        state = MilterState(
            settings.endpoint,
            settings.command_timeout,
            settings.content_timeout,
            settings.default_action,
            connected=False,
        )
        if self._failed is not None or sock is None:
            return HandedOver(state, None)
        noted = self._conversation.noted()
        try:
            complete = not noted or sock.send(noted) == len(noted)
        except OSError:
            complete = False
        if not complete:
            self._fail()
            return HandedOver(state, None)
        known = self._conversation.snapshot()
        state = state._replace(
            connected=True,
            version=known.version,
            edits=known.edits,
            steps=known.steps,
            silent=known.silent,
            end_of_header_macros=self.macros(Stage.END_OF_HEADER, end_of_header_macros),
            end_of_data_macros=self.macros(Stage.END_OF_MESSAGE, end_of_data_macros),
        )
        return HandedOver(state, sock)

    @classmethod
    def resumed(cls, state: MilterState, sock: socket.socket | None) -> "MilterLink":
        """Go on with a connection of another process."""
        link = cls(
            MilterSettings(
                state.endpoint,
                state.command_timeout,
                state.command_timeout,
                state.content_timeout,
                state.default_action,
                str(state.version),
            )
        )
        if sock is None:
            link._fail()
            return link
        sock.setblocking(False)
        link._sock = sock
        macros = (
            (int(Stage.END_OF_HEADER), state.end_of_header_macros),
            (int(Stage.END_OF_MESSAGE), state.end_of_data_macros),
        )
        link._conversation = Conversation.resumed(
            Snapshot(state.version, state.edits, state.steps, state.silent, macros)
        )
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
        conversation = self._conversation
        out = conversation.event(command, data, macros)
        if not out:
            return conversation.standing
        decision = PASS

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

        if not await self._exchange(command, out, answered):
            return self._failed or PASS
        return decision

    def abort(self) -> None:
        """Report the end of the current message, if any. Does not wait, as the packet is tiny."""
        out = b"" if self._failed is not None else self._conversation.abort()
        if out and self._sock is not None:
            try:
                self._sock.send(out)
            except OSError:
                pass  # the next event, if any, will find and log the problem

    def lost(self) -> None:
        """Another process did not complete the message: the state of the protocol is unknown."""
        if self._failed is None:
            self._fail()

    def close(self, *, goodbye: bool = True) -> None:
        """End the connection. goodbye: send QUIT; False in a process that only borrowed it."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if goodbye and self._failed is None:
            try:
                sock.send(self._conversation.quit())
            except OSError:
                pass  # it is being closed anyway
        sock.close()

    # the wire

    def _negotiated(self) -> bool:
        return self._conversation.accept_negotiation()

    async def _exchange(self, command: Command, out: bytes, complete: Callable[[], bool]) -> bool:
        """Send, and read until the answer is complete. False: it failed, and was logged."""
        sock = self._sock
        if sock is None:
            raise AssertionError("not connected")
        try:
            await self._send(sock, out, command)
            while not complete():
                data = await _received(sock, self._limit(command))
                if not data:
                    raise ConnectionResetError(0, "Application error")
                if self._conversation.continued(data):
                    break
                self._conversation.receive_data(data)
        except MalformedReply as error:
            self._broken(f"milter {self._settings.endpoint}: {error}", _MISTAKE)
        except MilterError as error:
            when = "" if error.told else f" after event {_NAMES[command]}"
            self._broken(f"milter {self._settings.endpoint}: {error}{when}")
        except (OSError, TimeoutError) as error:
            name, endpoint = _NAMES[command], self._settings.endpoint
            what = f"can't read {name} reply packet header"
            self._broken(f"milter {endpoint}: {what}: {_reason(error)}")
        return self._failed is None

    async def _send(self, sock: socket.socket, data: bytes, command: Command) -> None:
        """Mostly there is room for all of it at once. Raises OSError, TimeoutError."""
        try:
            sent = sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            async with asyncio.timeout(self._limit(command)):
                await asyncio.get_running_loop().sock_sendall(sock, data[sent:])

    def _limit(self, command: Command) -> float:
        """Seconds: answers at the end of a message may take longer."""
        settings = self._settings
        if command is Command.END_OF_BODY:
            return settings.content_timeout
        return settings.command_timeout

    def _broken(self, text: str, decision: Decision | None = None) -> None:
        """decision: instead of the default action."""
        LOG.warning(text)
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)  # for the process that shares it, too
            except OSError:
                pass  # it is gone already
        self._fail(decision)

    def _fail(self, decision: Decision | None = None) -> None:
        settings = self._settings
        self._failed = decision or default_decision(settings.default_action)
        if decision is None and self._failed is _MISTAKE:
            action = settings.default_action
            LOG.warning(f"milter {settings.endpoint}: unrecognized default action: {action}")
        self.close()


async def _received(sock: socket.socket, limit: float) -> bytes:
    """What comes next. Raises OSError, and TimeoutError after `limit` seconds.

    There is nothing yet when this begins, so it is not tried; and this is cheaper than asyncio's
    own way, of which a message takes one for each of its header fields.
    """
    loop = asyncio.get_running_loop()
    while True:
        ready = loop.create_future()
        loop.add_reader(sock, _wake, ready, None)
        timer = loop.call_later(limit, _wake, ready, TimeoutError())
        try:
            await ready
        finally:
            timer.cancel()
            loop.remove_reader(sock)
        try:
            return sock.recv(_READ)
        except BlockingIOError:
            continue


def _wake(waiting: asyncio.Future[None], error: TimeoutError | None) -> None:
    if waiting.done():
        return
    if error is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(error)


def _reason(error: OSError) -> str:
    """The text of the error number, without what event loops add to it."""
    if isinstance(error, TimeoutError):
        return os.strerror(errno.ETIMEDOUT)
    return os.strerror(error.errno) if error.errno else error.strerror or str(error)
