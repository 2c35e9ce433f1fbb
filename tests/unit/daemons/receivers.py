"""Arbitrary messages of the wire, and a connection that brings them to whoever receives them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar, cast, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from libmail.ipc.codec import Chunk, WireError
from libmail.ipc.messages import CODEC
from libmail.service.connection import Connection, ConnectionLost, Credentials, Trigger

M = TypeVar("M")
SECONDS: Final = 60

WORDS: Final = st.sampled_from(
    [
        "", "a@b.test", "alice@example.test", "@", "a@", "a@b@c", '"x y"@b.test', "\n",
        "a\nb@c.test",
        "a\r\nX: y@c.test", "\x1b[2J",
        "\udcff@b.test", "[1.2.3.4]", "a@[1.2.3.4]", "a%b@c", "b!a", "0123456789", "ABC",
        "../../etc/passwd", "rfc822;a+3D", "bounce", "warn", "trace", "one", "active", "incoming",
        "local", "remote", "+-", "flushed.test", "texthash:/x",
        "inline:{ {alice@example.test=x} {0123456789=y} {bounce=z} }",
    ]
)  # fmt: skip
LONG: Final = st.sampled_from(["x" * 5000 + "@y.test", "ä" * 1500 + "@y.test", "y" * 70_000])
TEXTS: Final = (
    WORDS | LONG | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
)
NUMBERS: Final = st.sampled_from([0, 1, 2, 4, 5, 64, 511, -1, 2**31, 2**63, 10**19])
USUAL: Final[dict[type, list[object]]] = {
    str: ["", "alice@example.test", "0123456789", "bounce"],
    int: [0, 1, 4],
    float: [0.0, 1.5],
    bool: [False, True],
}
SCALARS: Final[dict[type, st.SearchStrategy[object]]] = {
    str: TEXTS,
    int: NUMBERS,
    float: st.sampled_from([0.0, 1.5, 1e9, -1.0, 1e300, 1e25, float("inf")]),
    bool: st.booleans(),
}


def of_type(kind: type[M]) -> st.SearchStrategy[M]:
    """Values of a NamedTuple, as they may be decoded from a frame; most fields are harmless."""
    hints = get_type_hints(kind)
    usual: list[st.SearchStrategy[object]] = []
    odd: list[st.SearchStrategy[object]] = []
    for name in kind.__annotations__:
        hint = hints[name]
        hint = getattr(hint, "__supertype__", hint)
        if get_origin(hint) is tuple:
            element = get_args(hint)[0]
            inner = TEXTS if element is str else of_type(element)
            usual.append(st.lists(inner, min_size=1, max_size=4).map(tuple))
            odd.append(st.just(()))
        else:
            usual.append(st.sampled_from(USUAL[hint]))
            odd.append(SCALARS[hint])

    @st.composite
    def values(draw: st.DrawFn) -> M:
        rogue = draw(st.sets(st.integers(0, len(usual) - 1), max_size=2))
        return kind(*(draw((odd if at in rogue else usual)[at]) for at in range(len(usual))))

    return values()


PIECES: Final = st.sampled_from(
    [
        b"", b"Subject: x\r\n", b"\r\nbody\r\n", b"Message-Id: <a\0b>\r\n",
        b"From: \xff\0\r\n", b"\0",
        b"To: " + b"a@b, " * 100 + b"\r\n", b" folded\r\n", b"Message-Id: " + b"x" * 2000 + b"\r\n",
        b"\r", b"\n", b":\r\n",
    ]
)  # fmt: skip
CHUNKS: Final = PIECES.map(Chunk)
TRIGGERS: Final = st.binary(min_size=1, max_size=4).map(Trigger)


class FakeConnection:
    """Gives out units and then ends; what is sent must be possible to encode."""

    path = "test"
    write_paused = False
    is_from = Connection.is_from

    def __init__(self, units: Iterable[object], uid: int = 0) -> None:
        self._units = list(units)
        self.credentials = Credentials(1, uid, 1)
        self.sent: list[object] = []

    def received(self) -> object:
        if not self._units:
            raise ConnectionLost
        return self._units.pop(0)

    async def receive(self) -> object:
        await asyncio.sleep(0)
        return self.received()

    async def receive_as(self, kind: type[M]) -> M:
        unit = self.received()
        if not isinstance(unit, kind):
            raise WireError("another")
        return unit

    def send(self, message: object) -> None:
        CODEC.encode(message)
        self.sent.append(message)

    def write(self, data: bytes) -> None:
        pass

    async def opened(self) -> None:
        pass

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        pass

    abort = expire = close


def play(serve: Callable[[Connection], Awaitable[object]], units: Iterable[object]) -> list[object]:
    """Have a session receive these. Anything but the end of the session is an error."""
    connection = FakeConnection(units)

    async def run() -> None:
        try:
            async with asyncio.timeout(SECONDS):
                await serve(cast(Connection, connection))
        except (ConnectionLost, WireError):
            pass

    asyncio.run(run())
    return connection.sent
