"""The socket of a session: connect, send, read replies, each within the time limit of its phase.

It uses the descriptor itself rather than an asyncio transport: a fresh connection costs fewer
calls, commands go out at once, and sendfile(2) needs no detour. One task uses it at a time.
`libmail.net.secure_wire` adds encryption.
"""

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from libmail.net.buffers import limit_window
from libmail.net.endpoint import is_connected
from libmail.net.introduction import introduced
from libmail.net.poller import READ, WRITE, Poller
from libmail.net.wakeup import Wakeup
from libmail.smtp.client import CONNECT, GREETING, Phase, ReplyReader, ReplyTooLong, ServerReply

__all__ = ["Address", "LineFilter", "Lost", "Wire"]

_RECEIVE: Final = 16384
_SENDFILE: Final = 1 << 20
_SHORTEST: Final = 0.001  # seconds; 0 is no limit
_KIND: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

Address = tuple[str, int] | str


class Lost(Exception):
    """The server went away, or time ran out, in this phase."""

    def __init__(self, phase: Phase, *, timed_out: bool = False) -> None:
        super().__init__(phase.doing)
        self.phase = phase
        self.timed_out = timed_out


class LineFilter(Protocol):
    """Replaces lines of replies before they are understood."""

    async def replace(self, line: bytes) -> bytes:
        """The line to use instead, both without their ends."""


class _ContentLimit:
    """How long the server may let us wait while we send content.

    With a rate the limit is for all of the content, and what was sent earns time, up to the limit;
    without, it is for each wait.
    """

    __slots__ = ("_left", "_rate")

    def __init__(self, rate: int) -> None:
        """rate: octets a second, 0 for none."""
        self._rate = rate
        self._left = -1.0  # seconds; negative: not begun

    def begin(self) -> None:
        """There was a reply: what is sent next is something else."""
        self._left = -1.0

    def seconds(self, limit: float) -> float:
        """For the next wait. limit: of the phase, 0 for none."""
        if not self._rate or not limit:
            return limit
        if self._left < 0:
            self._left = limit
        return max(self._left, _SHORTEST)

    def spend(self, seconds: float) -> None:
        """So long was waited."""
        if self._left > 0:
            self._left = max(self._left - seconds, 0.0)

    def earn(self, octets: int, limit: float) -> None:
        """So much was sent."""
        if self._left >= 0:
            self._left = min(self._left + octets / self._rate, limit)


class Wire:
    """A connection to a server. Errors of the connection are raised as Lost."""

    __slots__ = ("_content", "_eof", "_error", "_events", "_fd", "_filter", "_limits", "_out",
                 "_paused", "_per_request", "_poller", "_reader", "_socket", "_wakeup", "_writing",
                 "deadline")  # fmt: skip

    def __init__(
        self,
        poller: Poller,
        family: int,
        limits: Mapping[Phase, float],
        *,
        min_rate: int = 0,
        window: int = 0,
    ) -> None:
        """Make the socket. limits: seconds for each phase. window: tcp_windowsize.

        min_rate: a time limit holds for a whole reply, however slowly it trickles in, and for all
        of the content, which earns another second with so many octets; 0: for each wait.
        Raises OSError.
        """
        self._poller = poller
        self._socket = socket.SocketType(family, _KIND)  # what socket.socket is built upon
        self._fd = self._socket.fileno()
        limit_window(self._socket, window)
        self._limits = limits
        self._per_request = min_rate > 0
        self._content = _ContentLimit(min_rate)
        self._filter: LineFilter | None = None
        self._reader = ReplyReader()
        self._out = b""
        self._eof = False
        self._error: OSError | None = None
        self._paused = True
        self._writing = False
        self._events = 0  # that the poller watches for
        self._wakeup = Wakeup(poller.loop)
        self.deadline = 0.0

    def bind(self, source: str) -> None:
        """Connect from that address. Raises OSError."""
        self._socket.bind((source, 0))

    # waiting, by `await self._wakeup`: until something happens to the socket, or TimeoutError

    def expire(self) -> None:
        """For the poller."""
        self._wakeup.fail(TimeoutError())

    def ready(self, events: int) -> None:
        """For the poller."""
        if events != READ and self._events & WRITE:
            if self._out:
                self._flush()
            else:
                self._wakeup.wake()
        if events != WRITE and not self._paused:
            self._readable()

    def _watch(self) -> None:
        """Have the poller watch for what is of interest now."""
        events = 0 if self._paused else READ
        if self._writing or self._out:
            events |= WRITE
        before, self._events = self._events, events
        if events == before:
            return
        if not before:
            self._poller.watch(self._fd, events, self)
        elif events:
            self._poller.change(self._fd, events)
        else:
            self._poller.unwatch(self._fd)

    # connecting

    async def connect(self, address: Address, *, silent: bool = False) -> None:
        """Connect. silent: the server waits for us to speak. Raises OSError.

        Else the server speaks first: that there is something to read, or an error, is usually all
        that has to be waited for, with one registration at the event loop. What the server says,
        or that it hung up, comes from `reply`.
        """
        code = self._socket.connect_ex(address)
        if code == errno.EINPROGRESS:
            if not silent and 0 < self._limits[CONNECT] <= self._limits[GREETING]:
                self._resume_reading()
                await self._await_first_words()
                return
            # The greeting has the shorter limit, so it must be known when its time begins.
            code = await self._await_connection()
        if code:
            await _connect_with_help(self._fd, address, code)
        self._resume_reading()

    async def _await_first_words(self) -> None:
        self._poller.limit(self, self._limits[CONNECT])
        try:
            await self._wakeup
        except TimeoutError:
            if is_connected(self._socket):
                return
            raise _timed_out() from None
        if self._error is not None and self._error.errno != errno.ECONNRESET:
            raise self._error

    async def _await_connection(self) -> int:
        self._poller.limit(self, self._limits[CONNECT])
        self._writing = True
        self._watch()
        try:
            await self._wakeup
        except TimeoutError:
            raise _timed_out() from None
        finally:
            self._writing = False
            self._watch()
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    # reading

    def _resume_reading(self) -> None:
        if self._paused and not self._eof:
            self._paused = False
            self._watch()

    def _pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self._watch()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError as error:
            self._error = error
            data = b""
        self._receive(data)
        if not self._writing:
            self._wakeup.wake()

    def _receive(self, data: bytes) -> None:
        """Take what the network has brought, b"" for its end."""
        if data:
            if self._reader.receive_data(data):
                self._pause_reading()
        else:
            self._pause_reading()
            self._eof = True

    @property
    def quiet(self) -> bool:
        """Open, and nothing unexpected was received: fit for another transaction."""
        return not self._eof and not self._reader.pending and not self._out

    @property
    def pending(self) -> bool:
        """Something was received that `reply` has not given out."""
        return self._reader.pending

    def filter_replies(self, line_filter: LineFilter) -> None:
        """Have lines replaced from now on; then `reply` raises LocalTrouble, too."""
        self._filter = line_filter

    async def reply(self, phase: Phase) -> ServerReply:
        """The next reply. Raises Lost."""
        if self._per_request:
            self._content.begin()
        if self._filter is not None:
            return await self._filtered_reply(phase, self._filter)
        reply = self.next_reply(phase)
        if reply is None:
            self._poller.limit(self, self._limits[phase])
        while reply is None:
            try:
                await self._wakeup
            except TimeoutError:
                raise Lost(phase, timed_out=True) from None
            reply = self.next_reply(phase)
            if reply is None and not self._per_request:
                self._poller.limit(self, self._limits[phase])
        return reply

    async def group(self, phase: Phase, codes: tuple[int, ...]) -> Sequence[ServerReply]:
        """Replies with these codes, if they come together, see `ReplyReader.group`. Raises Lost.

        Else none, once something has come: then it is the turn of `reply`. phase: of the first.
        """
        reader = self._reader
        if reader.pending or self._paused or self._per_request or self._filter is not None:
            return ()
        self._poller.limit(self, self._limits[phase])
        try:
            await self._wakeup
        except TimeoutError:
            raise Lost(phase, timed_out=True) from None
        return reader.group(codes)

    async def _filtered_reply(self, phase: Phase, line_filter: LineFilter) -> ServerReply:
        poller, seconds = self._poller, self._limits[phase]
        until = poller.loop.time() + seconds
        while True:
            try:
                reply = await self._filtered_lines(line_filter)
            except ReplyTooLong:
                raise Lost(phase) from None
            if reply is not None:
                return reply
            if self._eof:
                raise Lost(phase)
            self._resume_reading()
            left = max(until - poller.loop.time(), 0.001) if self._per_request else seconds
            poller.limit(self, left if seconds else 0.0)
            try:
                await self._wakeup
            except TimeoutError:
                raise Lost(phase, timed_out=True) from None

    async def _filtered_lines(self, line_filter: LineFilter) -> ServerReply | None:
        """The reply that what was received makes; None when more is needed."""
        reader = self._reader
        while (line := reader.next_line()) is not None:
            reply = reader.accept(await line_filter.replace(line))
            if reply is not None:
                return reply
        return None

    def next_reply(self, phase: Phase) -> ServerReply | None:
        """The next reply, if it is there already. Raises Lost."""
        try:
            reply = self._reader.next_reply()
        except ReplyTooLong:
            raise Lost(phase) from None
        if reply is None:
            if self._eof:
                raise Lost(phase)
            if self._paused:
                self._resume_reading()
        return reply

    async def received_reply(self) -> ServerReply | None:
        """A reply that is there already, without waiting; for what comes unasked."""
        try:
            if self._filter is not None:
                return await self._filtered_lines(self._filter)
            return self._reader.next_reply()
        except ReplyTooLong:
            return None

    def unfinished_reply(self) -> tuple[tuple[str, ...], bool]:
        """Lines of a reply that is not complete, and whether one of them is none of a reply."""
        return self._reader.unfinished

    # writing

    def send(self, data: bytes) -> None:
        """Send commands, now as far as possible. An error shows up when the reply is awaited."""
        if self._out:
            self._out += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._error = error
            return  # what the server said last may still be there to be read
        if sent < len(data):
            self._out = data[sent:]
            self._watch()

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            return
        except OSError as error:
            self._error = error
            sent = len(self._out)
        self._out = self._out[sent:]
        if not self._out:
            self._watch()
            if self._writing:
                self._wakeup.wake()

    async def _writable(self, phase: Phase) -> None:
        self._poller.limit(self, self._content.seconds(self._limits[phase]))
        began = self._poller.loop.time()
        self._writing = True
        self._watch()
        try:
            await self._wakeup
        except TimeoutError:
            raise Lost(phase, timed_out=True) from None
        finally:
            self._writing = False
            self._watch()
            self._content.spend(self._poller.loop.time() - began)

    async def send_all(self, data: bytes, phase: Phase) -> None:
        """Send content, waiting while the server is slow. Raises Lost."""
        view: bytes | memoryview = data
        while view:
            try:
                sent = self._socket.send(view)
            except BlockingIOError:
                await self._writable(phase)
                continue
            except OSError:
                raise Lost(phase) from None
            if self._per_request:
                self._content.earn(sent, self._limits[phase])
            if sent == len(view):
                return
            view = memoryview(view)[sent:]

    async def sendfile(self, fd: int, offset: int, length: int, phase: Phase) -> None:
        """Send octets of a file. Raises Lost; OSError when the file ends early."""
        end = offset + length
        while offset < end:
            try:
                sent = os.sendfile(self._fd, fd, offset, min(end - offset, _SENDFILE))
            except BlockingIOError:
                await self._writable(phase)
                continue
            except (BrokenPipeError, ConnectionError, TimeoutError):
                raise Lost(phase) from None
            if not sent:
                raise OSError(5, "unexpected end of queue file")
            self._content.earn(sent, self._limits[phase])
            offset += sent

    def send_at_once(self) -> None:
        """Do not hold back small pieces (TCP_NODELAY), for content that goes out in several."""
        if self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close at once."""
        if self._events:
            self._events = 0
            self._poller.forget(self._fd)
        self._paused = self._eof = True
        self._out = b""
        self._socket.close()


def _timed_out() -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


async def _connect_with_help(fd: int, address: Address, code: int) -> None:
    """A UNIX socket may be closed to us alone. fd: becomes the connection. Raises OSError."""
    problem = OSError(code, os.strerror(code))
    if code != errno.EACCES or not isinstance(address, str):
        raise problem
    with await introduced(address, problem) as sock:
        os.dup2(sock.fileno(), fd, inheritable=False)
