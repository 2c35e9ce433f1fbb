"""What the sessions of postscreen(8) share: how many there are, what they ask, where they wait."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from daemons.postscreen.memory import Memory
from daemons.postscreen.params import PostscreenParams
from daemons.postscreen.prepared import Prepared
from daemons.postscreen.scores import Scores
from daemons.postscreen.session import Session
from daemons.postscreen.visitor import Stopping, Visitor, ends_of_socket
from libmail.clients.dnsblog import DnsblogClient
from libmail.clients.tlsproxy import TlsProxyClient
from libmail.net.poller import Poller
from libmail.service.skeleton import Runtime

__all__ = ["Front"]

_CROWDED: Final = 0.9  # of postscreen_pre_queue_limit, from which on we are in a hurry
_RELAXED: Final = 0.7  # down to which we are


class Front:
    """Makes a session of each connection. loop: its clock is theirs."""

    def __init__(self, prepared: Prepared, runtime: Runtime) -> None:
        params = prepared.params
        self.prepared = prepared
        self.loop: Final = asyncio.get_running_loop()
        self.memory: Final = Memory(
            prepared.cache,
            params.postscreen_cache_cleanup_interval,
            params.postscreen_cache_retention_time,
        )
        path = f"private/{params.dnsblog_service_name}"
        client = DnsblogClient(path, params.postscreen_dnsbl_timeout)
        self.scores: Final = Scores(client, prepared.sites, runtime)
        self.tlsproxy: Final = TlsProxyClient(f"private/{params.tlsproxy_service_name}")
        self._runtime = runtime
        self._poller = Poller(self.loop)
        self._visitors: set[Visitor] = set()
        self._clients: Counter[str] = Counter()
        self._screening = 0
        self._waiting = 0
        self._stress = False
        runtime.spawn(self.memory.tidy_for_ever())
        runtime.spawn(self._stop())

    def accept(self, sock: socket.socket) -> None:
        """A client has connected."""
        self._runtime.spawn(self._session(sock))

    async def _session(self, sock: socket.socket) -> None:
        visitor = Visitor(sock, self._poller)
        self._visitors.add(visitor)
        try:
            ends = ends_of_socket(sock)
            if ends is not None:
                await Session(self, visitor, ends).run()
        except Stopping:
            pass
        except Exception as error:  # noqa: BLE001  a bug, which costs this session and no other
            self._runtime.session_failed(error)
        finally:
            self._visitors.discard(visitor)
            visitor.close()
            self._runtime.session_ended()

    async def _stop(self) -> None:
        """When the system stops: end all sessions."""
        await self._runtime.stopping.wait()
        for visitor in list(self._visitors):
            visitor.stop()

    # how many there are

    @property
    def params(self) -> PostscreenParams:
        """The parameters as they are now: in a hurry some are others."""
        return self.prepared.stressed if self._stress else self.prepared.params

    @contextmanager
    def counted(self, address: str) -> Iterator[None]:
        """A connection of this client."""
        self._clients[address] += 1
        try:
            yield
        finally:
            self._clients[address] -= 1
            if not self._clients[address]:
                del self._clients[address]

    def has_too_many(self, address: str) -> bool:
        """Whether a client has more connections than it may, that at hand counted."""
        limit = self.prepared.params.postscreen_client_connection_count_limit
        return bool(limit) and self._clients[address] > limit

    @contextmanager
    def screening(self) -> Iterator[None]:
        """A client is being tested."""
        self._screening += 1
        self._feel()
        try:
            yield
        finally:
            self._screening -= 1
            self._feel()

    def _feel(self) -> None:
        share = self._screening / self.prepared.params.postscreen_pre_queue_limit
        if share >= _CROWDED:
            self._stress = True
        elif share <= _RELAXED:
            self._stress = False

    @property
    def screening_busy(self) -> bool:
        """Whether there is no room for another client to be tested."""
        return self._screening >= self.prepared.params.postscreen_pre_queue_limit

    @contextmanager
    def handing_over(self) -> Iterator[None]:
        """A client waits for the SMTP server."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    @property
    def servers_busy(self) -> bool:
        """Whether there is no room for another client to wait for the SMTP server."""
        return self._waiting >= self.prepared.params.postscreen_post_queue_limit
