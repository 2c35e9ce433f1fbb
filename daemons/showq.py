"""showq(8): list the queue for postqueue(1), mailq(1) and monitoring programs.

called by: postqueue, exporters. asks: authorized_mailq_users. writes: nothing. tells: nobody.
needs: mail_owner, the queue.

The stream is that of Postfix 3.6 and later: NUL-terminated names and values, an empty name after
each message and at the end. A caller who may not see the queue gets `error` and the reason.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from libmail.lookup.authorization import AuthorizedUsers
from libmail.queue.directory import QueueDirectory
from libmail.queue.listing import list_queue
from libmail.queue.queued import QueuedMessage
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.tables.table import TableOptions

__all__ = ["SERVICE"]

_GREETING: Final = b"protocol\0mail_queue_list_protocol\0\0"
_PATIENCE: Final = 100.0  # seconds for a client to read on
_BREATHE: Final = 100  # messages between looks at other clients


@dataclass(frozen=True, slots=True)
class ShowqParams:
    """Parameters of showq(8)."""

    authorized_mailq_users: str
    hash_queue_depth: int
    hash_queue_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Parameters and the list of users who may look."""

    params: ShowqParams
    users: AuthorizedUsers


def _prepare(startup: Startup) -> Prepared:
    params = startup.config.load(ShowqParams)
    users = AuthorizedUsers(
        "authorized_mailq_users",
        params.authorized_mailq_users,
        "view the mail queue",
        TableOptions.of(startup.config),
    )
    return Prepared(params, users)


def _attributes(*pairs: tuple[str, str]) -> bytes:
    text = "".join(f"{name}\0{value}\0" for name, value in pairs)
    return text.encode("utf-8", "surrogateescape") + b"\0"


def _record(message: QueuedMessage) -> bytes:
    pairs = [
        ("queue_name", message.queue_name),
        ("queue_id", message.queue_id),
        ("time", str(message.time)),
        ("size", str(message.size)),
        ("forced_expire", str(int(message.forced_expire))),
        ("sender", message.sender or "MAILER-DAEMON"),
    ]
    for recipient in message.recipients:
        if recipient.original:
            pairs.append(("original_recipient", recipient.original))
        pairs += [("recipient", recipient.address), ("reason", recipient.reason)]
    return _attributes(*pairs)


class Lister:
    """Writes the listing to whoever may see it."""

    def __init__(self, prepared: Prepared) -> None:
        params = prepared.params
        self._users = prepared.users
        self._queue = QueueDirectory(frozenset(params.hash_queue_names), params.hash_queue_depth)

    async def serve(self, connection: Connection) -> None:
        """One client; the end of the listing ends the connection."""
        await connection.opened()
        connection.write(_GREETING)
        refusal = await self._users.refusal(connection.credentials.uid)
        if refusal:
            connection.write(_attributes(("error", refusal)) + b"\0")
            return
        try:
            await self._list(connection)
        except TimeoutError:
            connection.abort()

    async def _list(self, connection: Connection) -> None:
        """Raises TimeoutError for a client that does not read."""
        for number, message in enumerate(list_queue(self._queue), 1):
            connection.write(_record(message))
            async with asyncio.timeout(_PATIENCE):
                await connection.drain()
            if number % _BREATHE == 0:
                await asyncio.sleep(0)
        connection.write(b"\0")


async def _start(prepared: Prepared, runtime: Runtime) -> Handlers:
    return Handlers(stream=exchanges(runtime, Lister(prepared).serve, anyone=True, asked=False))


SERVICE: Final = Service("showq", _prepare, _start)
