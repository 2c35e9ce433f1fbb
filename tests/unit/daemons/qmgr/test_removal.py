"""Files of messages that are over leave the active queue, with or without a thread for it."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from daemons.qmgr import removal
from tests.unit.daemons.qmgr.fakes import Bed, RecordingAgent, files, make_directories, put


@pytest.mark.parametrize("threads", [True, False])
def test_messages_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, threads: bool) -> None:
    make_directories(tmp_path)
    monkeypatch.chdir(tmp_path)

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        for _ in range(3):
            put("incoming", ["a@smtp.test"])
        bed = Bed()
        await bed.serve(smtp=RecordingAgent())
        if not threads:
            monkeypatch.setattr(threading.Thread, "start", none_left)
        try:
            bed.manager.begin()
            await bed.idle()
        finally:
            await bed.close()
        assert not files("active")

    asyncio.run(main())


def test_files_are_put_aside_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_directories(tmp_path)
    monkeypatch.chdir(tmp_path)
    spare = tmp_path / "spare"
    (spare / "00").write_bytes(b"of an earlier queue manager")

    async def main() -> None:
        bed = Bed()
        await bed.serve(smtp=RecordingAgent())
        try:
            bed.manager.begin()
            assert not os.listdir(spare)
            put("incoming", ["a@smtp.test"])
            bed.manager.trigger("I")
            await bed.idle()
            assert len(os.listdir(spare)) == 1
        finally:
            await bed.close()
        assert not os.listdir(spare)

    asyncio.run(main())


def test_files_that_nobody_uses_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_directories(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(removal, "_SPARE_TIME", 0.05)

    async def main() -> None:
        bed = Bed()
        await bed.serve(smtp=RecordingAgent())
        try:
            bed.manager.begin()
            put("incoming", ["a@smtp.test"])
            bed.manager.trigger("I")
            await bed.idle()
            while os.listdir("spare"):  # noqa: ASYNC110  what a thread removes makes no event
                await asyncio.sleep(0.01)
        finally:
            await bed.close()

    asyncio.run(asyncio.wait_for(main(), 30))
