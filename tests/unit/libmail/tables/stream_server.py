"""A server for the clients of byte streams, in the event loop of the test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

P = TypeVar("P", bound=asyncio.Protocol)


@dataclass
class Server:
    """Answers each chunk of octets that comes; an answer of None closes the connection."""

    answers: dict[bytes, bytes | None]
    refuse: bool = False
    asked: list[tuple[int, bytes]] = field(default_factory=list)
    connections: list[asyncio.Transport] = field(default_factory=list)
    pairs: list[asyncio.Task[tuple[asyncio.Transport, asyncio.Protocol]]] = field(
        default_factory=list
    )

    async def connect(self, factory: Callable[[], P]) -> P:
        if self.refuse:
            raise ConnectionRefusedError(111, "not here")
        pair = asyncio.create_task(self._pair(factory))
        self.pairs.append(pair)
        return (await asyncio.shield(pair))[1]

    async def _pair(self, factory: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: Side(self), sock=theirs)
        return await loop.create_connection(factory, sock=ours)

    async def end(self) -> None:
        """Close both ends of all connections, also of one that a client gave up meanwhile."""
        for transport, _ in await asyncio.gather(*self.pairs):
            transport.abort()
        for transport in self.connections:
            transport.abort()


class Side(asyncio.Protocol):
    """The server's end of a connection."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.number = len(self.server.connections)
        self.server.connections.append(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self.server.asked.append((self.number, data))
        answer = self.server.answers.get(data, b"")
        transport = self.server.connections[self.number]
        if answer is None:
            transport.close()
        else:
            transport.write(answer)


class Serve(Protocol):
    def __call__(self, answers: dict[bytes, bytes | None], *, refuse: bool = False) -> Server: ...


def run(main: Callable[[Serve], Awaitable[None]]) -> None:
    """Run `main` with a function that makes servers."""
    servers: list[Server] = []

    def serve(answers: dict[bytes, bytes | None], *, refuse: bool = False) -> Server:
        servers.append(Server(answers, refuse))
        return servers[-1]

    async def limited() -> None:
        async with asyncio.timeout(60):
            await main(serve)
        for server in servers:
            await server.end()
        await asyncio.sleep(0)

    asyncio.run(limited())
