"""The client of anvil(8): a process that makes room for another, and one that talks nonsense."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from libmail.clients.anvil import AnvilClient
from libmail.ipc.messages import CODEC, ClientCounts, ClientEvent, Leaving
from tests.unit.waiting import PATIENCE


def test_a_process_that_leaves_is_left_alone(tmp_path: Path) -> None:
    """What is on its way is answered, what follows goes to the next process."""
    counts = [ClientCounts(1, 1), ClientCounts(2, 2)]
    connections: list[int] = []
    gone: asyncio.Queue[int] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        asked = len(CODEC.encode(ClientEvent("connect", "smtp:192.0.2.1", False)))
        await reader.readexactly(asked)
        writer.write(CODEC.encode(Leaving()))
        writer.write(CODEC.encode(counts[len(connections) - 1]))
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        gone.put_nowait(1)

    async def main() -> None:
        path = str(tmp_path / "anvil")
        server = await asyncio.start_unix_server(serve, path)
        client = AnvilClient(path)
        async with server:
            for number in (1, 2):
                found = await client.count("connect", "smtp:192.0.2.1")
                assert found == ClientCounts(number, number)
            client.close()
            await asyncio.gather(*(gone.get() for _ in connections))

    asyncio.run(main())
    assert len(connections) == 2


def test_a_process_that_hangs_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each client would wait at its connection, its messages, and each of their recipients."""
    monkeypatch.setattr("libmail.clients.anvil._PATIENCE", 0.05)
    connections: list[asyncio.StreamWriter] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    async def main() -> None:
        path = str(tmp_path / "anvil")
        server = await asyncio.start_unix_server(serve, path)
        client = AnvilClient(path)
        async with server:
            for _ in range(5):
                assert await client.count("recipient", "smtp:192.0.2.1") == ClientCounts(0, 0)
            assert len(connections) == 1
            monkeypatch.setattr("libmail.clients.anvil._REST", 0.0)
            client = AnvilClient(path)
            async with asyncio.timeout(PATIENCE):
                while len(connections) < 3:
                    await client.count("recipient", "smtp:192.0.2.1")
            client.close()
            for writer in connections:
                writer.close()

    asyncio.run(main())
