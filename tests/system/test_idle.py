"""Many sessions that say nothing: the default configuration holds them while mail flows."""

from __future__ import annotations

from bench.idle import idle_sessions, raise_descriptor_limit
from tests.system.conftest import MakeSystem
from tests.system.processes import PATIENCE, proportional_memory

SESSIONS = 1000
PER_SESSION = 16 << 10  # bytes of PSS that an idle session may cost
MEGABYTE = 1 << 20


def test_idle_sessions(make_system: MakeSystem) -> None:
    """smtpd_client_connection_count_limit does not count clients in $mynetworks."""
    raise_descriptor_limit()
    system = make_system()
    system.start()
    system.allow("lost connection|timeout")
    system.send("a@client.test", ["alice@virtual.test"], b"Subject: x\r\n\r\nx\r\n")
    system.wait_for_queue_empty()
    before = proportional_memory(system.pids())
    with idle_sessions(system, SESSIONS, PATIENCE) as held:
        assert held == SESSIONS
        for _ in range(10):
            system.send("a@client.test", ["alice@virtual.test"], b"Subject: x\r\n\r\nx\r\n")
        system.wait_for_queue_empty()
        grown = proportional_memory(system.pids()) - before
    print("GROWN", grown / MEGABYTE)
    assert len(system.maildir("alice")) == 11
    # Further smtpd processes, each with its own pages, and the sessions themselves.
    assert grown < SESSIONS * PER_SESSION + 40 * MEGABYTE, grown / MEGABYTE
