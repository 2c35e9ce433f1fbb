"""Rows of verified senders: thousands that nobody has seen, and the same ones again.

Each sender is new, so that each costs a probe to the sink. The client does not wait for probes
(address_verify_poll_count = 1, as under stress): it is told to come again. What is measured is the
time from the first question to the last outcome in the log, and then the time of the same
questions, which the cache answers.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from bench.measure import Result
from tests.system.harness import MailSystem
from tests.system.processes import cpu_time, proportional_memory

__all__ = ["MAIN", "NAME", "run_contacts"]

NAME: Final = "contacts"
MAIN: Final[dict[str, str | None]] = {
    "smtpd_sender_restrictions": "check_sender_access inline:{ {sender@bench.test=OK} }, "
    "reject_unverified_sender",
    "smtpd_error_sleep_time": "0",
    "smtpd_hard_error_limit": "100000",
    "smtpd_junk_command_limit": "100000",
    "address_verify_poll_count": "1",
    "address_verify_map": "lmdb:$data_directory/verified",
    "default_destination_concurrency_limit": "100",
    "in_flow_delay": "0",
}
_SESSIONS: Final = 20
_PATIENCE: Final = 180.0  # seconds without an outcome
_OUTCOME: Final = b"status=deliverable"


async def _ask(port: int, senders: list[str]) -> None:
    """One client, which names each of the senders and then goes on to the next."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readuntil(b"\n")
    writer.write(b"EHLO bench.test\r\n")
    await reader.readuntil(b"\n250 ")
    await reader.readuntil(b"\n")
    for sender in senders:
        writer.write(f"MAIL FROM:<{sender}>\r\nRCPT TO:<x@discard.test>\r\nRSET\r\n".encode())
        for _ in range(3):
            await reader.readuntil(b"\n")
    writer.close()


async def _ask_all(port: int, senders: list[str]) -> None:
    parts = [senders[at::_SESSIONS] for at in range(_SESSIONS)]
    await asyncio.gather(*(_ask(port, part) for part in parts))


def _outcomes(system: MailSystem) -> int:
    return system.log.read_bytes().count(_OUTCOME)


def _wait_for_outcomes(system: MailSystem, wanted: int) -> None:
    """Raises TimeoutError when there are no more of them."""
    last, since = -1, time.monotonic()
    while (count := _outcomes(system)) < wanted:
        if count != last:
            last, since = count, time.monotonic()
        if time.monotonic() - since > _PATIENCE:
            raise TimeoutError(f"only {count} of {wanted} senders were verified")
        time.sleep(0.02)


def run_contacts(system: MailSystem, number: int) -> tuple[Result, Result]:
    """At first contact, and from the cache: senders a second."""
    senders = [f"user{n}@relay.test" for n in range(number)]
    before = _outcomes(system)
    return (
        _measured(system, senders, before + number),
        _measured(system, senders, before + number),
    )


def _measured(system: MailSystem, senders: list[str], outcomes: int) -> Result:
    before, start, number = cpu_time(system.session), time.monotonic(), len(senders)
    asyncio.run(_ask_all(system.smtp_port, senders))
    _wait_for_outcomes(system, outcomes)
    seconds = time.monotonic() - start
    used = cpu_time(system.session) - before
    memory = proportional_memory(system.pids())
    system.wait_for_queue_empty()
    user, of_kernel = (1000 * spent / number for spent in (used.user, used.system))
    return Result(number / seconds, user, of_kernel, memory)
