"""Two ends of a session that talk to each other without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from libmail.tls.client_spec import ClientSpec
from libmail.tls.connection import Connection, Step, accept, connect
from libmail.tls.context import ClientContext, ServerContext
from libmail.tls.negotiation import Hello
from libmail.tls.pem import Chain
from libmail.tls.settings import parse_protocols

CIPHERS: Final = "HIGH:MEDIUM:!aNULL"
WITH_ANONYMOUS: Final = "aNULL:-aNULL:HIGH:MEDIUM:@STRENGTH"
ANY: Final = parse_protocols(">=TLSv1.2")
TLS_1_2: Final = parse_protocols("TLSv1.2")
TLS_1_3: Final = parse_protocols(">=TLSv1.3")
GROUPS: Final = ("X25519", "prime256v1")
MOST_ROUNDS: Final = 100

Answer = tuple[Iterable[Chain] | None, bytes]


def nothing_found(_hello: Hello) -> Answer:
    return None, b""


class Pair:
    """A server's end and a client's. chunk: octets that arrive at a time.

    session: that the client resumes.
    """

    def __init__(
        self,
        server: ServerContext,
        client: ClientContext,
        spec: ClientSpec,
        *,
        chunk: int = 1 << 30,
        lookup: Callable[[Hello], Answer] = nothing_found,
        session: bytes = b"",
    ) -> None:
        self.server = accept(server)
        self.client = connect(client, spec, session)
        self.chunk = chunk
        self.lookup = lookup
        self.hellos: list[Hello] = []
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.done = [False, False]

    def step(self, connection: Connection) -> None:
        index = 0 if connection is self.server else 1
        if self.done[index]:
            return
        step = connection.handshake()
        if step is Step.HELLO:
            hello = connection.hello
            assert hello is not None
            self.hellos.append(hello)
            connection.answer(*self.lookup(hello))
            step = connection.handshake()
        self.done[index] = step is Step.DONE

    def carry(self, source: Connection, target: Connection) -> bool:
        """Bring what one end has to say to the other; False if that is nothing."""
        data = source.output()
        (self.to_server if target is self.server else self.to_client).append(data)
        for start in range(0, len(data), self.chunk):
            target.receive(data[start : start + self.chunk])
            self.step(target)
        return bool(data)

    def shake(self) -> Pair:
        """Shake hands. Raises TlsFailed."""
        self.step(self.client)
        for _ in range(MOST_ROUNDS):
            moved = self.carry(self.client, self.server)
            moved = self.carry(self.server, self.client) or moved
            if not moved:
                break
        assert self.done == [True, True]
        return self

    def send(self, source: Connection, data: bytes) -> bytes:
        """What the other end reads of data that one writes."""
        target = self.client if source is self.server else self.server
        source.write(data)
        wire = source.output()
        got = []
        for start in range(0, len(wire), self.chunk):
            target.receive(wire[start : start + self.chunk])
            got.append(target.read())
        return b"".join(got)
