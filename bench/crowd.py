"""A crowd of bots at the door of postscreen, and real clients among them.

Bots talk early, send HTTP, pipeline, begin TLS and leave it at that, say nothing within TLS, or say
nothing at all, for as long as they may; whoever is turned away comes again at once. Real clients
wait for each reply, and come again after one that asks them to. Both systems see the same crowd,
and a DNS list, where root may put a name server of its own into /etc/resolv.conf.

    python -m bench.crowd --bots 10000 --clients 200 [--system postfix]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import smtplib
import socket
import ssl
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from bench.idle import raise_descriptor_limit
from tests.certificates import Authority
from tests.system.harness import Instance, MailSystem, RealPostfix
from tests.system.mounts import in_place_of
from tests.system.processes import proportional_memory, read_process

__all__ = [
    "GUARDS",
    "Crowd",
    "Visit",
    "crowded",
    "memory_by_program",
    "screened",
    "secured",
    "visit",
]

MEGABYTE: Final = 1 << 20
GUARDS: Final = ("postscreen", "tlsproxy", "dnsblog")
"""The programs that see bots."""
_RUSH: Final = 100  # connections that are being opened at a time
_PAUSE: Final = 1.0  # seconds before a client that was turned away comes again
_BOT_PAUSE: Final = 0.2  # and a bot
_SPARE: Final = 1.02  # bots for each that is to be there, as some are on their way
_PATIENCE: Final = 600.0  # seconds in which a real client has to be heard
_AT_MOST: Final = 180.0  # and in a comparison
_GATHERING: Final = 120.0  # and in which the bots are there
_MESSAGE: Final = b"Subject: among bots\r\n\r\nbody\r\n"
_NAME_SERVER: Final = "127.0.53.55"
_HEAD: Final = 12  # octets before the question

_SPAM: Final = b"EHLO bot\r\nMAIL FROM:<x@bot.test>\r\nRCPT TO:<bob@virtual.test>\r\n"
_HTTP: Final = b"GET / HTTP/1.1\r\nHost: mail\r\n\r\n"


class _Bot(NamedTuple):
    """What a bot says before the greeting, and behind it; and within TLS, None without."""

    early: bytes = b""
    late: bytes = b""
    tls: bytes | None = None


_SECURE: Final = b"STARTTLS\r\n"
_KINDS: Final = (
    _Bot(_SPAM),
    _Bot(_SPAM + b"DATA\r\n"),
    _Bot(_HTTP),
    _Bot(b"", _SPAM),
    _Bot(b"", _SPAM + b"DATA\r\n"),
    _Bot(b"", _HTTP),
    *[_Bot()] * 42,
    _Bot(b"", _SECURE),
    _Bot(b"", _SECURE, b"EHLO bot\r\n"),
)


def _deny_all(sock: socket.socket) -> None:
    """Answer queries: RFC 1035 §4.1, one question each, of a name that is not compressed."""
    while True:
        data, peer = sock.recvfrom(4096)
        end = data.index(b"\0", _HEAD) + 5
        head = data[:2] + b"\x81\x83\0\1" + bytes(6)  # no such name
        sock.sendto(head + data[_HEAD:end], peer)


@contextlib.contextmanager
def empty_list(folder: Path) -> Iterator[dict[str, str]]:
    """Settings with a DNS list that has nobody, and its name server, a process of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((_NAME_SERVER, 53))
        server = multiprocessing.get_context("fork").Process(target=_deny_all, args=(sock,))
        server.start()
        try:
            with in_place_of(Path("/etc/resolv.conf"), f"nameserver {_NAME_SERVER}\n", folder):
                yield {"postscreen_dnsbl_sites": "dnsbl.test", "postscreen_dnsbl_action": "enforce"}
        finally:
            server.terminate()
            server.join()


class Crowd:
    """Bots that come and come again, somewhat more than `size`, so that so many are there.

    present: those that are connected now. seen: connections. tls: there are those with TLS, too.
    """

    def __init__(self, port: int, size: int, *, tls: bool = False) -> None:
        self.present = 0
        self.seen = 0
        self._kinds = [bot for bot in _KINDS if tls or bot.late != _SECURE]
        self._port = port
        self._size = round(size * _SPARE)
        self._door: asyncio.Semaphore
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE

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
        bot = self._kinds[number % len(self._kinds)]
        while True:
            with contextlib.suppress(OSError):
                await self._call(source, bot)
            await asyncio.sleep(_BOT_PAUSE)

    async def _call(self, source: str, bot: _Bot) -> None:
        async with self._door:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._port, local_addr=(source, 0), limit=4096
            )
        self.present += 1
        self.seen += 1
        try:
            writer.write(bot.early)
            while (line := await reader.readline()) and not line.startswith(b"220 "):
                pass
            writer.write(bot.late)
            if bot.tls is not None and await reader.readline():
                await writer.start_tls(self._context)
                writer.write(bot.tls)
            while await reader.read(4096):
                pass
        finally:
            self.present -= 1
            writer.transport.abort()


@contextlib.contextmanager
def crowded(port: int, size: int, *, tls: bool = False) -> Iterator[Crowd]:
    """A crowd of that size, in a thread of its own."""
    crowd = Crowd(port, size, tls=tls)
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


def visit(port: int, number: int, patience: float = _PATIENCE) -> Visit:
    """One real client, until its mail is taken. Raises AssertionError if that is refused, or
    does not come about in so many seconds."""
    source = f"127.0.{3 + number // 250}.{number % 250 + 1}"
    began = time.monotonic()
    attempts = 0
    while time.monotonic() - began < patience:
        attempts += 1
        try:
            with smtplib.SMTP(
                "127.0.0.1", port, f"c{number}.test", patience, source_address=(source, 0)
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


def secured(folder: Path) -> dict[str, str]:
    """Settings for TLS, with a certificate that is made there."""
    chain = Authority(folder / "ca").issue("mail.test").chain
    chain.chmod(0o644)
    return {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": str(chain)}


MASTER: Final = ("smtpd pass - - n - - smtpd", "dnsblog unix - - n - 0 dnsblog",
                 "tlsproxy unix - - n - 0 tlsproxy")  # fmt: skip


def memory_by_program(system: MailSystem) -> Counter[str]:
    """Octets of each program, by its name: PSS."""
    found: Counter[str] = Counter()
    for pid in system.pids():
        process = read_process(pid)
        if process is not None and (words := process.title().split()):
            found[words[0].rpartition("/")[2]] += proportional_memory([pid])
    return found


def main() -> None:
    """Compare by hand: what the crowd costs, and what becomes of real clients."""
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__)
    parser.add_argument("--bots", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--system", choices=("ours", "postfix", "both"), default="both")
    parser.add_argument("settings", nargs="*", help="further name=value of main.cf")
    options = parser.parse_args()
    raise_descriptor_limit()
    more = dict(setting.split("=", 1) for setting in options.settings)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        more = {**secured(folder), **more}
        if os.geteuid() == 0:
            more = {**stack.enter_context(empty_list(folder)), **more}
        for name, kind in (("ours", Instance), ("postfix", RealPostfix)):
            if options.system in (name, "both"):
                _run(name, kind(), options.bots, options.clients, more)


def _run(name: str, system: MailSystem, bots: int, clients: int, more: Mapping[str, str]) -> None:
    front = f"127.0.0.1:{system.smtp_port} inet n - n - 1 postscreen"
    system.configure(screened(bots, more), [front, *MASTER])
    try:
        system.start()
        print(f"-- {name}", flush=True)
        _report(system, bots, clients)
    finally:
        system.stop(check=False)


def _tried(system: MailSystem, number: int) -> Visit | None:
    """One real client; None if its mail was not taken."""
    try:
        return visit(system.smtp_port, number, _AT_MOST)
    except AssertionError:
        return None


def _report(system: MailSystem, bots: int, clients: int) -> None:
    with crowded(system.smtp_port, bots, tls=True) as crowd:
        deadline = time.monotonic() + _GATHERING
        while crowd.present < bots and time.monotonic() < deadline:  # or as many as it takes
            time.sleep(0.2)
        print(f"{crowd.present} bots are there, and shall be {bots}", flush=True)
        with ThreadPoolExecutor(clients) as pool:
            visits = [
                found for found in pool.map(lambda n: _tried(system, n), range(clients)) if found
            ]
        memory = memory_by_program(system)
        print(f"{crowd.present} bots there, {crowd.seen} connections of them so far")
    system.wait_for_queue_empty()
    print(f"{clients - len(visits)} clients were not heard in {_AT_MOST:.0f} s")
    seconds = sorted(visit.seconds for visit in visits)
    print(f"{len(visits)} clients in {sum(visit.attempts for visit in visits)} attempts")
    if seconds:
        print(f"seconds: median {seconds[len(seconds) // 2]:.1f}, most {seconds[-1]:.1f}")
    for line in system.log_lines("postscreen.*fatal|process .*postscreen"):
        print(line)
    print(f"{len(system.maildir('alice'))} messages arrived")
    shown = ", ".join(f"{name} {memory[name] / MEGABYTE:.0f}" for name in GUARDS)
    ours = sum(memory[name] for name in GUARDS) / MEGABYTE
    print(f"MB: {shown}, together {ours:.0f}; {memory.total() / MEGABYTE:.0f} in all", flush=True)


if __name__ == "__main__":
    main()
