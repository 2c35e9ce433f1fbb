"""proxymap(8), proxywrite: look up in tables, and change them, for other processes.

Called by: whoever has a table `proxy:type:name` (libmail/tables/servers/proxy.py), over
`private/proxymap` and `private/proxywrite`. Asks: the tables that proxy_read_maps
(proxy_write_maps) lists with a "proxy:" in front. Writes: tables, as proxywrite. Tells: nobody.
Needs: the tables, hence no chroot.

One process serves many clients, so a slow table does not keep others waiting, and there is one
connection to its server (or some) instead of one for each daemon.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from libmail.ipc.codec import WireError
from libmail.ipc.messages import (
    TableDelete,
    TableEntries,
    TableEntry,
    TableList,
    TableLookup,
    TableReply,
    TableStatus,
    TableUpdate,
)
from libmail.log import LOG, Fatal, printable
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.tables.registry import PROXY, open_with, open_writable, without_proxy
from libmail.tables.table import (
    SequenceTable,
    Table,
    TableError,
    TableFailed,
    TableOptions,
    TableUnsupported,
    WritableTable,
)

__all__ = ["SERVICE", "Tables", "approved", "serve"]

_BATCH: Final = 1 << 16  # characters of entries in a message, at least
_LONGEST: Final = 1 << 17  # characters of a value


@dataclass(frozen=True, slots=True)
class ProxymapParams:
    """Parameters of proxymap(8)."""

    proxy_read_maps: tuple[str, ...]
    proxy_write_maps: tuple[str, ...]
    proxymap_service_name: str
    proxywrite_service_name: str


@dataclass(frozen=True, slots=True)
class Tables:
    """The approved tables, by "type:name". writable: those of proxywrite, the same ones.

    parameter: that lists them.
    """

    parameter: str
    tables: Mapping[str, Table]
    writable: Mapping[str, WritableTable] | None = None


class Refused(Exception):
    """A request that is not allowed."""


def approved(specs: Sequence[str]) -> tuple[str, ...]:
    """The tables that a list approves: those with "proxy:" in front, which is taken away."""
    names: dict[str, None] = {}
    for spec in specs:
        name = without_proxy(spec)
        if name != spec and ":" in name:
            names[name] = None
    return tuple(names)


def _prepare(startup: Startup) -> Tables:
    config = startup.config
    params = config.load(ProxymapParams)
    options = TableOptions.of(config)
    if startup.service == params.proxymap_service_name:
        names = approved(params.proxy_read_maps)
        return Tables("proxy_read_maps", {name: open_with(name, options) for name in names})
    if startup.service == params.proxywrite_service_name:
        names = approved(params.proxy_write_maps)
        writable = {name: open_writable(name, options) for name in names}
        return Tables("proxy_write_maps", writable, writable)
    known = f"{params.proxymap_service_name} or {params.proxywrite_service_name}"
    raise Fatal(f"service name must be one of {known}")


def _table(tables: Tables, name: str) -> Table:
    """The table, if it is approved. Raises Refused."""
    table = tables.tables.get(name)
    if table is None:
        shown = printable(name[:200])
        access = "read-only" if tables.writable is None else "read-write"
        LOG.warning(f'request for unapproved table: "{shown}"')
        LOG.warning(
            f"to approve this table for {access} access, list {PROXY}{shown}"
            f" in main.cf:{tables.parameter}"
        )
        raise Refused("the table is not approved")
    return table


def _writable(tables: Tables, name: str, action: str) -> WritableTable:
    """The table, if it may be changed. Raises Refused."""
    _table(tables, name)
    if tables.writable is None:
        shown = printable(name[:200])
        LOG.warning(f"refusing {shown} {action} request on non-proxywrite service")
        raise Refused("this service is for lookups only")
    return tables.writable[name]


async def _reply(tables: Tables, request: TableLookup | TableUpdate | TableDelete) -> TableReply:
    try:
        return await _done(tables, request)
    except Refused as error:
        return TableReply(TableStatus.DENY, str(error))
    except TableError as error:
        return TableReply(TableStatus.RETRY, _reason(error))


async def _done(tables: Tables, request: TableLookup | TableUpdate | TableDelete) -> TableReply:
    match request:
        case TableLookup(name, key):
            value = await _table(tables, name).lookup(key)
            if value is not None:
                return TableReply(TableStatus.OK, value)
            return TableReply(TableStatus.NOKEY, "")
        case TableUpdate(name, key, value):
            await _writable(tables, name, "update").update(key, value)
            return TableReply(TableStatus.OK, "")
        case TableDelete(name, key):
            there = await _writable(tables, name, "delete").delete(key)
            return TableReply(TableStatus.OK if there else TableStatus.NOKEY, "")


def _reason(error: TableError) -> str:
    """Without the name of the table, which the client knows."""
    return error.reason if isinstance(error, TableFailed) else str(error)


async def _entries(table: Table) -> AsyncIterator[tuple[str, str]]:
    """All entries of any table that can list them. Raises TableError."""
    if isinstance(table, SequenceTable):
        for entry in table.entries():
            yield entry
        return
    raise TableUnsupported("sequence operation is not supported")


async def _list(tables: Tables, name: str, connection: Connection) -> None:
    batch: list[TableEntry] = []
    size = 0
    try:
        table = _table(tables, name)
        writable = None if tables.writable is None else tables.writable[name]
        async for key, value in writable.listing() if writable else _entries(table):
            if not _fits(key) or not _fits(value):
                raise TableError("an entry is too long or has a null byte")
            batch.append(TableEntry(key, value))
            size += len(key) + len(value)
            if size >= _BATCH:
                connection.send(TableEntries(TableStatus.OK, "", False, tuple(batch)))
                await connection.drain()
                batch.clear()
                size = 0
    except Refused as error:
        connection.send(TableEntries(TableStatus.DENY, str(error), True, ()))
    except TableUnsupported as error:
        connection.send(TableEntries(TableStatus.UNSUPPORTED, str(error), True, ()))
    except TableError as error:
        connection.send(TableEntries(TableStatus.RETRY, _reason(error), True, ()))
    else:
        connection.send(TableEntries(TableStatus.OK, "", True, tuple(batch)))


def _fits(text: str) -> bool:
    """Whether a message can carry it."""
    return len(text) <= _LONGEST and "\0" not in text


async def serve(tables: Tables, connection: Connection) -> None:
    """One client, until it goes."""
    while True:
        request = await connection.receive()
        if isinstance(request, TableList):
            await _list(tables, request.table, connection)
        elif isinstance(request, TableLookup | TableUpdate | TableDelete):
            reply = await _reply(tables, request)
            if not _fits(reply.value):
                reply = TableReply(TableStatus.RETRY, "the value is too long or has a null byte")
            connection.send(reply)
        else:
            raise WireError(f"unexpected {type(request).__name__}")


async def _start(tables: Tables, runtime: Runtime) -> Handlers:
    async def session(connection: Connection) -> None:
        await serve(tables, connection)

    return Handlers(stream=exchanges(runtime, session, network=True))


SERVICE: Final = Service("proxymap", _prepare, _start, shared=True)
