"""Files of messages that are over: unlinked, whether or not there is a thread for it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

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
