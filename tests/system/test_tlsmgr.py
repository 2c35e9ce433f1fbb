"""tlsmgr(8) in a running system: keys of tickets that all its clients share."""

from __future__ import annotations

import asyncio

from libmail.ipc.messages import (
    SessionLookup,
    SessionReply,
    SessionStore,
    TicketKeyRecord,
    TicketKeysReply,
    TicketKeysRequest,
)
from libmail.service.pool import ServicePool
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.processes import wait_until


def keys_of(system: MailSystem) -> tuple[TicketKeyRecord, ...]:
    async def ask() -> tuple[TicketKeyRecord, ...]:
        pool = ServicePool(str(system.queue_directory / "private/tlsmgr"))
        try:
            return (await pool.call(TicketKeysRequest(), TicketKeysReply)).keys
        finally:
            pool.close()

    return asyncio.run(ask())


def session_of(system: MailSystem, key: str, keep: str = "") -> str:
    async def ask() -> str:
        pool = ServicePool(str(system.queue_directory / "private/tlsmgr"))
        try:
            if keep:
                await pool.notify(SessionStore("smtp", key, keep))
            return (await pool.call(SessionLookup("smtp", key), SessionReply)).session
        finally:
            pool.close()

    return asyncio.run(ask())


def test_keys_are_shared_and_change_with_a_reload(make_system: MakeSystem) -> None:
    system = make_system(main={"smtp_tls_session_cache_database": "btree:${data_directory}/sc"})
    system.start()
    first = keys_of(system)
    assert len(first) == 2
    assert keys_of(system) == first
    assert session_of(system, "key", "AAAA") == "AAAA"
    system.run("postfix", "reload")
    wait_until(lambda: keys_of(system)[0].name != first[0].name)
    assert session_of(system, "key") == "AAAA"  # kept on disk
    (table,) = (system.top / "data").glob("sc.*")
    assert table.stat().st_mode & 0o777 == 0o600
    assert table.stat().st_uid == (system.top / "data").stat().st_uid
