"""Sessions of request and reply over a UNIX socket: who may connect, and how a session may end.

A peer that breaks the protocol is logged and dropped. A bug of ours ends the session that met it,
and no other.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from libmail.ipc.codec import WireError
from libmail.log import LOG
from libmail.service.connection import Connection, ConnectionLost, peer_credentials
from libmail.service.skeleton import Runtime
from libmail.service.user_limits import FIRST_MESSAGE, UserConnections

__all__ = ["Handle", "exchanges"]

Handle = Callable[[Connection], Awaitable[None]]
"""Serves exchanges until `receive` raises ConnectionLost, which ends the session."""


def exchanges(
    runtime: Runtime,
    handle: Handle,
    name: str = "",
    *,
    network: bool = False,
    anyone: bool = False,
    asked: bool = True,
) -> Callable[[socket.SocketType], asyncio.Protocol]:
    """For `Handlers.stream`: run `handle` as the session of every connection.

    Only the mail system itself and root may connect, and no service that faces the network, whose
    user is mail_network_user. network: those may, too. anyone: users may, within the limits of
    `UserConnections`, and `handle` decides by `Connection.credentials`. asked: the client
    speaks first, and a user has to do so within FIRST_MESSAGE seconds.
    """
    allowed = runtime.trusted | runtime.network if network else runtime.trusted
    sessions = _Sessions(runtime, handle, name or runtime.service, allowed)
    if anyone:
        return _PublicSessions(sessions, asked=asked).accept
    runtime.on_retiring(sessions.leave)  # these clients keep connections for their next exchange
    return sessions.accept


class _Sessions:
    """The sessions of a service for the mail system itself."""

    def __init__(
        self, runtime: Runtime, handle: Handle, name: str, allowed: frozenset[int]
    ) -> None:
        self.runtime = runtime
        self.name = name
        self.allowed = allowed
        self._handle = handle
        self._connections: set[Connection] = set()

    def accept(self, sock: socket.SocketType) -> asyncio.Protocol:
        """Serve a connection, or refuse that of a user."""
        connection = Connection(self.name, serving=True)
        if peer_credentials(sock).uid in self.allowed:
            self.runtime.spawn(self.serve(connection))
        else:
            LOG.seldom(f"{self.name}: connection from a user outside of the mail system")
            self.runtime.spawn(self.refuse(connection))
        return connection

    async def serve(self, connection: Connection) -> None:
        """The session of a connection, to its end."""
        self._connections.add(connection)
        try:
            await self._handle(connection)
        except ConnectionLost:
            pass
        except WireError as err:
            LOG.seldom(f"{self.name}: client broke the protocol", f": {err}")
        except Exception as err:  # noqa: BLE001  a bug, which costs this session and no other
            self.runtime.session_failed(err, self.name)
        finally:
            self._connections.discard(connection)
            connection.close()
            self.runtime.session_ended()

    async def refuse(self, connection: Connection) -> None:
        """Close a connection before anything was said."""
        try:
            await connection.opened()
            connection.close()
        finally:
            self.runtime.session_ended()

    def leave(self) -> None:
        """No more sessions are taken: clients may finish the exchange at hand."""
        for connection in self._connections:
            connection.leave()


class _PublicSessions:
    """The sessions of a service that users may connect to, too."""

    def __init__(self, sessions: _Sessions, *, asked: bool) -> None:
        self._sessions = sessions
        self._asked = asked
        self._users = UserConnections(sessions.name)

    def accept(self, sock: socket.SocketType) -> asyncio.Protocol:
        """Serve a connection, unless its user has too many."""
        sessions = self._sessions
        connection = Connection(sessions.name, serving=True)
        uid = peer_credentials(sock).uid
        if uid in sessions.allowed:
            sessions.runtime.spawn(sessions.serve(connection))
        elif uid not in sessions.runtime.network and self._users.admit(uid):
            sessions.runtime.spawn(self._serve_user(connection, uid))
        else:
            sessions.runtime.spawn(sessions.refuse(connection))
        return connection

    async def _serve_user(self, connection: Connection, uid: int) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(FIRST_MESSAGE, connection.expire_unbegun) if self._asked else None
        try:
            await self._sessions.serve(connection)
        finally:
            self._users.leave(uid)
            if timer is not None:
                timer.cancel()
