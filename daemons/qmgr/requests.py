"""Requests at the socket `public/qmgr`: new mail, flush requests and trigger bytes.

Users may ask for what concerns when mail is delivered (postqueue(1), postkick(1)) if
authorized_flush_users lists them; only the mail system itself and root announce mail.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Final, cast

from libmail.ipc.codec import Unframer, WireError
from libmail.ipc.messages import CODEC, FlushReply, NewMail, QueueFlush, QueueId
from libmail.log import LOG
from libmail.queue.ids import is_queue_id
from libmail.service.connection import peer_credentials

__all__ = ["RequestConnection", "RequestHandlers"]

_TURN: Final = 64  # messages, before others have their turn
_TRIGGERS: Final = "AFDIW"  # in the order in which they take effect


@dataclass(frozen=True, slots=True)
class RequestHandlers:
    """What the queue manager does for a client.

    new_mail: called with the queue id of new mail. flush: with the queue id of the message to
    deliver now, "" for all. trigger: with one of the bytes of qmgr(8), TRIGGERS. ended: the
    connection is closed. refusal: why a user id may not flush the queue, "" if it may. spawn: runs
    a task.
    """

    new_mail: Callable[[QueueId], None]
    flush: Callable[[QueueId], None]
    trigger: Callable[[str], None]
    ended: Callable[["RequestConnection"], None]
    refusal: Callable[[int], Awaitable[str]]
    spawn: Callable[[Coroutine[object, object, object]], object]


@dataclass(frozen=True, slots=True)
class _Triggers:
    """Bytes that a trigger client wrote."""

    letters: str


class RequestConnection(asyncio.Protocol):
    """The connection of one client."""

    def __init__(self, sock: socket.SocketType, handlers: RequestHandlers) -> None:
        self._handlers = handlers
        self._unframer = Unframer(CODEC)
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._blocked = False  # the client does not take our answers
        self.uid: int = peer_credentials(sock).uid
        # Others could announce a file that is still being written.
        self.trusted = self.uid in (0, os.geteuid())
        self.refused = False  # the user has too many connections
        self._begun = False  # the client has sent something
        self._deciding = False  # a user's request waits for authorized_flush_users

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        if self.refused:
            self.close()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if not self._unframer.pending and data[0] & 0x7F:
            self._begun = True
            self._ask(_Triggers(data.decode("ascii", "replace")))
            return
        self._unframer.receive_data(data)
        self._begun = self._begun or bool(self._unframer.units)
        self._take()

    def _take(self) -> None:
        """Handle up to _TURN received messages; the rest after other clients had their turn.

        Nothing is handled while the client does not read our answers.
        """
        self._read(wanted=not self._blocked)
        try:
            for _ in range(_TURN):
                if self._blocked or (message := self._unframer.next_event()) is None:
                    return
                self._receive(message)
        except WireError as err:
            LOG.seldom("qmgr: client broke the protocol", f": {err}")
            self.close()
            return
        self._read(wanted=False)
        asyncio.get_running_loop().call_soon(self._take)

    def _read(self, *, wanted: bool) -> None:
        transport = self._transport
        if self._reading == wanted or transport is None or transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._blocked = True
        self._read(wanted=False)

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._blocked = False
        self._take()

    def _receive(self, message: object) -> None:
        if isinstance(message, NewMail) and self.trusted:
            if not is_queue_id(message.queue_id):
                raise WireError(f"bad queue id: {message.queue_id[:80]!r}")
            self._handlers.new_mail(message.queue_id)
        elif isinstance(message, QueueFlush):
            if message.queue_id and not is_queue_id(message.queue_id):
                raise WireError(f"bad queue id: {message.queue_id[:80]!r}")
            self._ask(message)
        else:
            raise WireError(f"unexpected {type(message).__name__} from user id {self.uid}")

    def _ask(self, request: "QueueFlush | _Triggers") -> None:
        """Carry out a request that users may make, too; of theirs, one at a time is decided."""
        if self.trusted:
            self._carry_out(request, "")
        elif not self._deciding:
            self._deciding = True
            self._handlers.spawn(self._decide(request))

    async def _decide(self, request: "QueueFlush | _Triggers") -> None:
        refusal = await self._handlers.refusal(self.uid)
        self._deciding = False
        self._carry_out(request, refusal)

    def _carry_out(self, request: "QueueFlush | _Triggers", refusal: str) -> None:
        if isinstance(request, QueueFlush):
            if not refusal:
                self._handlers.flush(request.queue_id)
            if self._transport is not None:
                self._transport.write(CODEC.encode(FlushReply(refusal)))
        elif not refusal:
            for letter in _TRIGGERS:
                if letter in request.letters:
                    self._handlers.trigger(letter)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        self._handlers.ended(self)

    def expire(self) -> None:
        """Close the connection if its client has said nothing."""
        if not self._begun:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()
