"""What the sessions of postscreen(8) share: their numbers and limits, the cache, DNS lists."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from daemons.postscreen.client_socket import ClientSocket, Stopping, ends_of_socket
from daemons.postscreen.params import PostscreenParams
from daemons.postscreen.prepared import Prepared
from daemons.postscreen.result_cache import ResultCache
from daemons.postscreen.scores import Scores
from daemons.postscreen.session import Session
from libmail.clients.dnsblog import DnsblogClient
from libmail.clients.tlsproxy import TlsProxyClient
from libmail.net.poller import Poller
from libmail.service.skeleton import Runtime

__all__ = ["Front"]

_CROWDED: Final = 0.9  # share of postscreen_pre_queue_limit at which stress begins
_RELAXED: Final = 0.7  # and at which it ends


class Front:
    """Starts a session for each connection. loop: for its clock."""

    def __init__(self, prepared: Prepared, runtime: Runtime) -> None:
        params = prepared.params
        self.prepared = prepared
        self.loop: Final = asyncio.get_running_loop()
        self.cache: Final = ResultCache(
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
        self._sockets: set[ClientSocket] = set()
        self._clients: Counter[str] = Counter()
        self._screening = 0
        self._waiting = 0
        self._stress = False
        runtime.spawn(self.cache.clean_up_forever())
        runtime.spawn(self._stop())

    def accept(self, sock: socket.SocketType) -> None:
        """A client has connected."""
        self._runtime.spawn(self._session(sock))

    async def _session(self, sock: socket.SocketType) -> None:
        client = ClientSocket(sock, self._poller)
        self._sockets.add(client)
        try:
            ends = ends_of_socket(sock)
            if ends is not None:
                await Session(self, client, ends).run()
        except Stopping:
            pass
        except Exception as error:  # noqa: BLE001  a bug, which costs this session and no other
            self._runtime.session_failed(error)
        finally:
            self._sockets.discard(client)
            client.close()
            self._runtime.session_ended()

    async def _stop(self) -> None:
        """When the system stops: end all sessions."""
        await self._runtime.stopping.wait()
        for client in list(self._sockets):
            client.stop()

    # how many there are

    @property
    def params(self) -> PostscreenParams:
        """The parameters that apply now, under stress or not."""
        return self.prepared.stressed if self._stress else self.prepared.params

    @contextmanager
    def counted(self, address: str) -> Iterator[None]:
        """Count a connection of a client while it lasts."""
        self._clients[address] += 1
        try:
            yield
        finally:
            self._clients[address] -= 1
            if not self._clients[address]:
                del self._clients[address]

    def has_too_many(self, address: str) -> bool:
        """Whether postscreen_client_connection_count_limit is exceeded by this connection."""
        limit = self.prepared.params.postscreen_client_connection_count_limit
        return bool(limit) and self._clients[address] > limit

    @contextmanager
    def screening(self) -> Iterator[None]:
        """Count a client while it is tested."""
        self._screening += 1
        self._update_stress()
        try:
            yield
        finally:
            self._screening -= 1
            self._update_stress()

    def _update_stress(self) -> None:
        share = self._screening / self.prepared.params.postscreen_pre_queue_limit
        if share >= _CROWDED:
            self._stress = True
        elif share <= _RELAXED:
            self._stress = False

    @property
    def screening_busy(self) -> bool:
        """Whether postscreen_pre_queue_limit is reached."""
        return self._screening >= self.prepared.params.postscreen_pre_queue_limit

    @contextmanager
    def handing_over(self) -> Iterator[None]:
        """Count a client while it waits for the SMTP server."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    @property
    def servers_busy(self) -> bool:
        """Whether postscreen_post_queue_limit is reached."""
        return self._waiting >= self.prepared.params.postscreen_post_queue_limit
