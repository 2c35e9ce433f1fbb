"""Services that serve exchanges: who may connect, and what a session of theirs may cost.

A peer that breaks the protocol is logged and dropped, and an error of ours costs its session and
no other.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from libmail.ipc.codec import WireError
from libmail.log import LOG
from libmail.service.connection import Connection, ConnectionLost, peer_credentials
from libmail.service.skeleton import Runtime
from libmail.service.visitors import FIRST_MESSAGE, Visitors

__all__ = ["Handle", "exchanges"]

Handle = Callable[[Connection], Awaitable[None]]
"""Serves exchanges until `receive` raises ConnectionLost, which ends the session."""


def exchanges(
    runtime: Runtime, handle: Handle, name: str = "", *, anyone: bool = False, asked: bool = True
) -> Callable[[socket.socket], asyncio.Protocol]:
    """For `Handlers.stream`: run `handle` as the session of every connection.

    anyone: users may connect too, within the limits of `Visitors`, and `handle` decides by
    `Connection.credentials`; otherwise only the mail system itself and root may. asked: clients
    have to say what they want, and users have to do it soon.
    """
    sessions = _Sessions(runtime, handle, name or runtime.service)
    if anyone:
        return _Hall(sessions, asked=asked).accept
    runtime.on_retiring(sessions.leave)  # these clients keep connections for their next exchange
    return sessions.accept


class _Sessions:
    """What is served to the mail system itself."""

    def __init__(self, runtime: Runtime, handle: Handle, name: str) -> None:
        self.runtime = runtime
        self.name = name
        self._handle = handle
        self._connections: set[Connection] = set()

    def accept(self, sock: socket.socket) -> asyncio.Protocol:
        """Serve a connection, or refuse that of a user."""
        connection = Connection(self.name, serving=True)
        if peer_credentials(sock).uid in self.runtime.trusted:
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


class _Hall:
    """What is served to users, too."""

    def __init__(self, sessions: _Sessions, *, asked: bool) -> None:
        self._sessions = sessions
        self._asked = asked
        self._visitors = Visitors(sessions.name)

    def accept(self, sock: socket.socket) -> asyncio.Protocol:
        """Serve a connection while its user has not too many."""
        sessions = self._sessions
        connection = Connection(sessions.name, serving=True)
        uid = peer_credentials(sock).uid
        if uid in sessions.runtime.trusted:
            sessions.runtime.spawn(sessions.serve(connection))
        elif self._visitors.admit(uid):
            sessions.runtime.spawn(self._visit(connection, uid))
        else:
            sessions.runtime.spawn(sessions.refuse(connection))
        return connection

    async def _visit(self, connection: Connection, uid: int) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(FIRST_MESSAGE, connection.expire_unbegun) if self._asked else None
        try:
            await self._sessions.serve(connection)
        finally:
            self._visitors.leave(uid)
            if timer is not None:
                timer.cancel()
