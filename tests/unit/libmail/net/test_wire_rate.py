"""smtp_min_data_rate: a server that takes content too slowly, or just fast enough."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from libmail.net.poller import Poller
from libmail.net.wire import Lost, Wire
from libmail.smtp.client import BODY, PHASES

PIECE = 1 << 18


async def send(folder: Path, min_rate: int) -> None:
    """Content for a server that takes a piece now and then; each wait is shorter than the limit."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "server"))
    listener.listen()
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    limits = dict.fromkeys(PHASES, 1.5)
    poller = Poller(loop)
    wire = Wire(poller, socket.AF_UNIX, limits, min_rate=min_rate)
    await wire.connect(str(folder / "server"), silent=True)
    peer, _ = await loop.sock_accept(listener)
    over = asyncio.Event()
    ended = asyncio.create_task(over.wait())

    async def take() -> None:
        while not over.is_set() and await loop.sock_recv(peer, PIECE):
            await asyncio.wait([ended], timeout=0.3)

    taking = asyncio.create_task(take())
    try:
        await wire.send_all(b"x" * (PIECE * 10), BODY)
    finally:
        over.set()
        wire.close()
        await taking
        peer.close()
        loop.remove_reader(poller._epoll.fileno())
        poller._epoll.close()
        listener.close()


def test_too_slow(tmp_path: Path) -> None:
    with pytest.raises(Lost) as lost:
        asyncio.run(send(tmp_path, 1 << 30))
    assert lost.value.timed_out


@pytest.mark.parametrize("min_rate", [0, 1000])
def test_fast_enough(tmp_path: Path, min_rate: int) -> None:
    asyncio.run(send(tmp_path, min_rate))
