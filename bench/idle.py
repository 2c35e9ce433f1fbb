"""Idle sessions: how many the default configuration holds, what they cost, whether mail flows."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from typing import Final

from tests.system.harness import MailSystem

STEP: Final = 50  # connections opened together
FULL: Final = 10.0  # seconds without an answer until the server is taken to be full


def raise_descriptor_limit() -> int:
    """Allows as many descriptors as possible; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def greet(port: int, count: int, patience: float) -> list[socket.socket]:
    """Opens `count` connections side by side; returns those that were greeted and answered."""
    ready: list[socket.socket] = []
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port), patience)
            selector.register(client, selectors.EVENT_READ, b"EHLO idle.test\r\n")
        deadline = time.monotonic() + patience
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                client = key.fileobj
                if not client.recv(4096).startswith((b"220 ", b"250")):
                    selector.unregister(client)
                    client.close()
                elif key.data:
                    client.sendall(key.data)
                    selector.modify(client, selectors.EVENT_READ, b"")
                else:
                    selector.unregister(client)
                    ready.append(client)
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
    return ready


@contextlib.contextmanager
def idle_sessions(system: MailSystem, wanted: int, patience: float = FULL) -> Iterator[int]:
    """Holds up to `wanted` sessions; yields how many the server took."""
    held: list[socket.socket] = []
    try:
        while len(held) < wanted:
            step = min(STEP, wanted - len(held))
            new = greet(system.smtp_port, step, patience)
            held += new
            if len(new) < step:
                break
        yield len(held)
    finally:
        for client in held:
            client.close()
