"""A server's handshake on the channel of a client, which has all go through TLS from then on.

The rules of a channel apply: nothing is read from a client that does not read our replies, time
limits are those of the channel, and each wait for the network lets other sessions go on. A
handshake takes one step whenever data arrives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from libmail.net.channel import Channel, ClientChannel, ClientGone, ClientSilent
from libmail.tls.connection import Connection, Step
from libmail.tls.errors import TlsFailed
from libmail.tls.layer import TlsLayer

__all__ = ["first_record", "secured"]

_TIMED_OUT = "Connection timed out"
_HANDSHAKE = 22  # the type of a record
_HEAD = 5  # octets of its head: type, version, length
_LONGEST = 1 << 14  # octets of its content


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
    channel: ClientChannel,
    connection: Connection,
    answer: Callable[[Connection], Awaitable[None]],
    received: bytes = b"",
) -> TlsLayer:
    """Shake hands, and have all go through the layer that is returned.

    answer: looks up what `connection.hello` asks for, and calls its `answer`. received: what has
    been read from the channel already. Raises TlsFailed, ServerStopping. Tickets, which no client
    waits for, go with what is said next.
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
    layer = TlsLayer(connection)
    channel.enter(layer)
    return layer


def _pass_on(connection: Connection, channel: Channel) -> None:
    """Send what the library has to say."""
    if output := connection.output():
        channel.write(output)
