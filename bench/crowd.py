"""A crowd of bots at the door of postscreen, and real clients among them.

Bots talk early, send HTTP, pipeline, or say nothing for as long as they may; those that are turned
away come again. Real clients wait for each reply, and come again after one that asks them to.

    python -m bench.crowd --bots 10000 --clients 200 [--system postfix]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import smtplib
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from bench.idle import raise_descriptor_limit
from tests.system.harness import Instance, MailSystem, RealPostfix
from tests.system.processes import proportional_memory

__all__ = ["Crowd", "Visit", "crowded", "screened", "visit"]

MEGABYTE: Final = 1 << 20
_RUSH: Final = 50  # connections that are being opened at a time
_PAUSE: Final = 1.0  # seconds before a client that was turned away comes again
_BOT_PAUSE: Final = 10.0  # and a bot
_PATIENCE: Final = 600.0  # seconds in which a real client has to be heard
_MESSAGE: Final = b"Subject: among bots\r\n\r\nbody\r\n"

_SPAM: Final = b"EHLO bot\r\nMAIL FROM:<x@bot.test>\r\nRCPT TO:<bob@virtual.test>\r\n"
_HTTP: Final = b"GET / HTTP/1.1\r\nHost: mail\r\n\r\n"
# (said before the greeting, said behind it)
_KINDS: Final = (
    (_SPAM, b""),
    (_SPAM + b"DATA\r\n", b""),
    (_HTTP, b""),
    (b"", _SPAM),
    (b"", _SPAM + b"DATA\r\n"),
    (b"", _HTTP),
    *[(b"", b"")] * 4,
)


class Crowd:
    """Bots that come and come again. present: those that are connected now. seen: connections."""

    def __init__(self, port: int, size: int) -> None:
        self.present = 0
        self.seen = 0
        self._port = port
        self._size = size
        self._door: asyncio.Semaphore

    async def stay(self, leave: asyncio.Event) -> None:
        """Until it is told to leave."""
        self._door = asyncio.Semaphore(_RUSH)
        bots = [asyncio.create_task(self._bot(number)) for number in range(self._size)]
        await leave.wait()
        for bot in bots:
            bot.cancel()
        await asyncio.gather(*bots, return_exceptions=True)

    async def _bot(self, number: int) -> None:
        source = f"127.{number % 100 + 100}.{number // 250 % 250}.{number % 250 + 1}"
        early, late = _KINDS[number % len(_KINDS)]
        while True:
            with contextlib.suppress(OSError):
                await self._call(source, early, late)
            await asyncio.sleep(_BOT_PAUSE)

    async def _call(self, source: str, early: bytes, late: bytes) -> None:
        async with self._door:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._port, local_addr=(source, 0), limit=4096
            )
        self.present += 1
        self.seen += 1
        try:
            writer.write(early)
            while line := await reader.read(4096):
                if late and b"220 " in line:
                    writer.write(late)
        finally:
            self.present -= 1
            writer.close()


@contextlib.contextmanager
def crowded(port: int, size: int) -> Iterator[Crowd]:
    """A crowd of that size, in a thread of its own."""
    crowd = Crowd(port, size)
    loop = asyncio.new_event_loop()
    leave = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(crowd.stay(leave),))
    thread.start()
    try:
        yield crowd
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()
        loop.close()


class Visit(NamedTuple):
    """A real client's way in: how often it had to come, and seconds until its mail was taken."""

    attempts: int
    seconds: float


def visit(port: int, number: int) -> Visit:
    """One real client, until its mail is taken. Raises AssertionError if that is refused."""
    source = f"127.0.{3 + number // 250}.{number % 250 + 1}"
    began = time.monotonic()
    attempts = 0
    while time.monotonic() - began < _PATIENCE:
        attempts += 1
        try:
            with smtplib.SMTP(
                "127.0.0.1", port, f"c{number}.test", _PATIENCE, source_address=(source, 0)
            ) as client:
                client.sendmail(f"c{number}@client.test", ["alice@virtual.test"], _MESSAGE)
            return Visit(attempts, time.monotonic() - began)
        except smtplib.SMTPRecipientsRefused as error:
            ((code, text),) = error.recipients.values()
            if code >= 500:
                raise AssertionError(text) from None
        except smtplib.SMTPResponseException as error:
            if error.smtp_code >= 500:
                raise
        except OSError:  # the connection was lost, also as smtplib says it
            pass
        time.sleep(_PAUSE)
    raise AssertionError(f"client {number} was not heard in {attempts} attempts")


def screened(size: int, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Settings of main.cf for a door at which such a crowd has room."""
    return {
        "postscreen_access_list": "",
        "postscreen_greet_action": "enforce",
        "postscreen_pipelining_enable": "yes",
        "postscreen_non_smtp_command_enable": "yes",
        "postscreen_bare_newline_enable": "yes",
        "postscreen_pre_queue_limit": str(2 * size),
        "postscreen_post_queue_limit": "1000",
        "postscreen_client_connection_count_limit": "0",
        "postscreen_cache_map": "lmdb:$data_directory/screen",
        "smtpd_peername_lookup": "no",
        "smtpd_client_connection_count_limit": "0",
        **(more or {}),
    }


MASTER: Final = ("smtpd pass - - n - - smtpd", "dnsblog unix - - n - 0 dnsblog",
                 "tlsproxy unix - - n - 0 tlsproxy")  # fmt: skip


def main() -> None:
    """Compare by hand: what the crowd costs, and what becomes of real clients."""
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__)
    parser.add_argument("--bots", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--system", choices=("ours", "postfix"), default="ours")
    parser.add_argument("settings", nargs="*", help="further name=value of main.cf")
    options = parser.parse_args()
    raise_descriptor_limit()
    more = dict(setting.split("=", 1) for setting in options.settings)
    system: MailSystem = Instance() if options.system == "ours" else RealPostfix()
    front = f"127.0.0.1:{system.smtp_port} inet n - n - 1 postscreen"
    system.configure(screened(options.bots, more), [front, *MASTER])
    try:
        system.start()
        _report(system, options.bots, options.clients)
    finally:
        system.stop()


def _report(system: MailSystem, bots: int, clients: int) -> None:
    with crowded(system.smtp_port, bots) as crowd:
        deadline = time.monotonic() + _PATIENCE
        while crowd.seen < bots and time.monotonic() < deadline:
            time.sleep(0.2)
        print(f"{crowd.present} of {bots} bots are there", flush=True)
        with ThreadPoolExecutor(clients) as pool:
            visits = list(pool.map(lambda n: visit(system.smtp_port, n), range(clients)))
        memory = [proportional_memory([pid]) / MEGABYTE for pid in system.pids()]
        print(f"{crowd.present} bots there, {crowd.seen} connections of them so far")
    system.wait_for_queue_empty()
    seconds = sorted(visit.seconds for visit in visits)
    print(f"{len(visits)} clients in {sum(visit.attempts for visit in visits)} attempts")
    print(f"seconds: median {seconds[len(seconds) // 2]:.1f}, most {seconds[-1]:.1f}")
    print(f"{len(system.maildir('alice'))} messages arrived")
    print(f"memory: {sum(memory):.0f} MB in all, {max(memory):.0f} MB in the largest process")


if __name__ == "__main__":
    main()
