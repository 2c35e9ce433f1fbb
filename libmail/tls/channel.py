"""A server's connection within TLS: a `Channel` over that of the network.

`secured` performs the handshake on a channel, and returns the one to use from then on. The rules of
a channel apply: nothing is read from a client that does not read our replies, time limits are those
of the channel below, and each wait for the network lets other sessions go on. A handshake takes one
step whenever data arrives. Records can be as small as one octet of data, so other sessions have
their turn after so many octets of the network, whatever was in them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

from libmail.net.channel import Channel, ClientGone, ClientSilent
from libmail.tls.connection import Connection, Step
from libmail.tls.errors import TlsClosed, TlsFailed, warn_of_problems

__all__ = ["TlsChannel", "first_record", "secured"]

_TURN = 1 << 16  # octets of the network, after which others have their turn
_TIMED_OUT = "Connection timed out"
_HANDSHAKE = 22  # the type of a record
_HEAD = 5  # octets of its head: type, version, length
_LONGEST = 1 << 14  # octets of its content


class TlsChannel:
    """What a session needs of a connection, inside of TLS. Made by `secured`."""

    __slots__ = ("_channel", "_closed", "_connection", "_data", "_turn")

    def __init__(self, channel: Channel, connection: Connection) -> None:
        self._channel = channel
        self._connection = connection
        self._data = b""  # decrypted, and not read yet
        self._closed = False
        self._turn = 0

    def write(self, data: bytes) -> None:
        """Send; does not wait."""
        if self._closed:
            return
        try:
            self._connection.write(data)
        except TlsFailed:
            return  # the end of the session is told to whoever reads
        _pass_on(self._connection, self._channel)

    async def read(self, *, idle: bool) -> bytes:
        """What the client sent next. Raises ClientGone, ClientSilent, ServerStopping."""
        connection = self._connection
        data = b""
        if self._data or connection.unread or connection.end is not None:
            data = self._decrypted()
        while not data:
            if self._turn >= _TURN:
                self._turn = 0
                await self._channel.give_way()
            received = await self._channel.read(idle=idle)
            self._turn += len(received)
            try:
                connection.receive(received)
            except TlsFailed:
                raise ClientGone from None
            data = self._decrypted()
        self._data = b""
        return data

    async def give_way(self) -> None:
        """Let others have their turn. Raises as `read`."""
        await self._channel.give_way()

    def has_sent(self) -> bool:
        """Whether the client has sent something that was not read yet."""
        return bool(self._decrypted()) or self._channel.has_sent()

    def discard_input(self) -> None:
        """Forget what has come and was not read yet."""
        self._decrypted()
        self._data = b""

    def bindings(self) -> Mapping[str, bytes]:
        """The data of channel bindings (RFC 5056) by name."""
        return {} if self._closed else self._connection.bindings()

    def close(self) -> None:
        """Close after what was written has been sent."""
        if not self._closed:
            self._connection.shutdown()
            _pass_on(self._connection, self._channel)
            self._closed = True
            self._connection.close()
        self._channel.close()

    def _decrypted(self) -> bytes:
        """What has come, without waiting for more. Raises ClientGone.

        Where that makes something to be sent, such as new keys, it goes with what we say next.
        """
        if not self._data:
            try:
                self._data = self._connection.read()
            except TlsClosed:
                self._give_up()
            except TlsFailed as error:
                warn_of_problems(error.problems)
                self._give_up()
        return self._data

    def _give_up(self) -> NoReturn:
        """Send what the library has to say of the end."""
        if not self._closed:
            _pass_on(self._connection, self._channel)
        raise ClientGone from None


async def first_record(channel: Channel, received: bytes = b"") -> bytes:
    """What a client begins its handshake with, as soon as the library can make something of it.

    Until then no memory of the library is taken: a session takes 10 KB, and 34 KB for buffers.
    received: what has been read from the channel already. Raises TlsFailed, ServerStopping.
    """
    data = bytearray(received)
    try:
        while not _is_whole(data):
            data += await channel.read(idle=True)
    except ClientGone:
        raise TlsFailed("lost connection", lost=True) from None
    except ClientSilent:
        raise TlsFailed(_TIMED_OUT, lost=True) from None
    return bytes(data)


def _is_whole(data: bytearray) -> bool:
    """Whether there is a first record, RFC 8446 §5.1, or what is none."""
    if len(data) < _HEAD:
        return bool(data) and data[0] != _HANDSHAKE
    length = int.from_bytes(data[3:_HEAD], "big")
    return data[0] != _HANDSHAKE or length > _LONGEST or len(data) >= _HEAD + length


async def secured(
    channel: Channel,
    connection: Connection,
    answer: Callable[[Connection], Awaitable[None]],
    received: bytes = b"",
) -> TlsChannel:
    """Shake hands. answer: looks up what `connection.hello` asks for, and calls its `answer`.

    received: what has been read from the channel already. Raises TlsFailed, ServerStopping.
    Tickets, which no client waits for, go with what is said next.
    """
    waiting = True
    try:
        connection.receive(received)
        while (step := connection.handshake()) is not Step.DONE:
            if step is Step.HELLO:
                await answer(connection)
                continue
            _pass_on(connection, channel)
            connection.receive(await channel.read(idle=True))
        waiting = connection.is_awaited
    except ClientGone:
        raise TlsFailed("lost connection", lost=True) from None
    except ClientSilent:
        raise TlsFailed(_TIMED_OUT, lost=True) from None
    finally:
        if waiting:
            _pass_on(connection, channel)
    return TlsChannel(channel, connection)


def _pass_on(connection: Connection, channel: Channel) -> None:
    """Send what the library has to say."""
    if output := connection.output():
        channel.write(output)
