"""Clients that guess passwords, a hundred at a time: whether others notice.

Ours looks logins up in a table, whose hashes cost time on purpose; Postfix asks a Dovecot.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from libmail.sasl.passwords import hash_password
from tests.system.dovecot import LOGIN, PASSWORD, Dovecot
from tests.system.harness import MailSystem

CLIENTS: Final = 100
PATIENCE: Final = 30.0  # seconds for an answer
WRONG: Final = base64.b64encode(f"\0{LOGIN}\0guessed".encode())


class Guesses:
    """number: of answers that a password is wrong. rate: of them, per second."""

    def __init__(self) -> None:
        self.number = 0
        self._began = time.monotonic()

    @property
    def rate(self) -> float:
        return self.number / (time.monotonic() - self._began)

    async def guess_for_ever(self, port: int) -> None:
        """One client; it comes again when it is sent away."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await self._session(port)

    async def _session(self, port: int) -> None:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"EHLO guess.test\r\n")
            while True:
                async with asyncio.timeout(PATIENCE):
                    line = await reader.readuntil(b"\n")
                if line.startswith((b"221", b"421")):
                    return
                self.number += line.startswith(b"535")
                if line.startswith((b"250 ", b"535")):
                    writer.write(b"AUTH PLAIN " + WRONG + b"\r\n")
        finally:
            writer.close()


@contextlib.contextmanager
def guessing(system: MailSystem) -> Iterator[Guesses]:
    """They guess until the block is left; it begins when the first answers are there."""
    guesses, over = Guesses(), threading.Event()

    async def guess() -> None:
        tasks = [
            asyncio.create_task(guesses.guess_for_ever(system.smtp_port)) for _ in range(CLIENTS)
        ]
        await asyncio.to_thread(over.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(guess()), daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + PATIENCE
        while guesses.number < CLIENTS and time.monotonic() < deadline:
            time.sleep(0.05)
        yield guesses
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def logins(*, ours: bool) -> Iterator[dict[str, str | None]]:
    """main.cf of a system with one login."""
    usual: dict[str, str | None] = {"smtpd_sasl_auth_enable": "yes", "notify_classes": ""}
    if ours:
        entry = f"{{{{{LOGIN}={hash_password(PASSWORD)}}}}}"
        yield {**usual, "smtpd_sasl_type": "table", "smtpd_sasl_path": f"inline:{entry}"}
        return
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        dovecot = Dovecot(Path(folder))
        try:
            path = str(dovecot.socket)
            yield {**usual, "smtpd_sasl_type": "dovecot", "smtpd_sasl_path": path}
        finally:
            dovecot.stop()
