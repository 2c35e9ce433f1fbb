"""A service for the tests of master: tells its process id, and does what it is told.

Copied as daemons/probe.py into the installation under test. Lines that it understands: "sleep"
keeps the session, "bug", "exit", "import", "stand still"; everything else is sent back. The
argument "broken" makes it fail at the start.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import time
from typing import Final, cast

from libmail.log import LOG, Fatal
from libmail.service.skeleton import Handlers, Runtime, Service, Startup


class Session(asyncio.Protocol):
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if transport.get_extra_info("socket").family != socket.AF_UNIX:
            self._transport.write(b"%d\n" % os.getpid())

    def data_received(self, data: bytes) -> None:
        match data:
            case b"W":
                LOG.info(f"{self._runtime.service}: woken up")
            case b"bug":
                raise ValueError("bug")
            case b"exit":
                os._exit(9)
            case b"stand still":
                while True:
                    time.sleep(1)
            case b"import":
                importlib.import_module("antigravity")
            case _:
                self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._runtime.session_ended()


def prepare(startup: Startup) -> str:
    if "broken" in startup.arguments:
        raise Fatal("broken on purpose")
    return startup.config.text("greeting")


async def start(greeting: str, runtime: Runtime) -> Handlers:
    if greeting:
        LOG.info(f"greeting: {greeting}")
    return Handlers(stream=lambda _: Session(runtime))


SERVICE: Final = Service("probe", prepare, start, watchdog="postlogd_watchdog_timeout")
