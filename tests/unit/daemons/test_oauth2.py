"""oauth2(8): when a token server is asked, when not, and what deliveries are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from daemons.oauth2 import Keeper
from libmail.ipc.messages import TokenReply
from libmail.log import LOG
from libmail.oauth.answers import Tokens, Trouble, Why
from libmail.oauth.store import TokenStore

Answer = Tokens | Trouble


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/oauth2")
    return lines


@dataclass
class Server:
    """answers: in order; the last one stays. asked: the refresh tokens that came. gate: before an
    answer."""

    answers: Sequence[Answer]
    asked: list[str] = field(default_factory=list)
    gate: Callable[[], Awaitable[None]] | None = None

    async def ask(self, token: str) -> Tokens:
        answer = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(token)
        await (asyncio.sleep(0) if self.gate is None else self.gate())
        if isinstance(answer, Trouble):
            raise answer
        return answer


class Bench:
    """A keeper with a refresh token on disk, and a clock that is set."""

    def __init__(self, folder: Path, *answers: Answer, token: str = "refresh-1") -> None:
        self.now = 1000.0
        self.server = Server(answers)
        self.store = TokenStore(str(folder))
        if token:
            self.store.write("anna", token)
        self.keeper = Keeper("anna", self.server.ask, self.store, lambda: self.now)

    async def token(self, rejected: str = "") -> TokenReply:
        return await self.keeper.token(rejected)

    async def settle(self) -> None:
        """Let what goes on in the background end."""
        for _ in range(10):
            await asyncio.sleep(0)


def test_one_request_for_all(tmp_path: Path, logged: list[str]) -> None:
    async def run() -> None:
        bench = Bench(tmp_path, Tokens("access-1", 3600.0))
        found = await asyncio.gather(*(bench.token() for _ in range(100)))
        assert set(found) == {TokenReply("access-1", "")}
        assert await bench.token() == TokenReply("access-1", "")
        assert bench.server.asked == ["refresh-1"]

    asyncio.run(run())
    assert logged == ["anna: new access token for 3600 seconds"]


def test_renewed_in_time(tmp_path: Path) -> None:
    """Nobody waits for a token while the one before is good."""

    async def run() -> None:
        bench = Bench(tmp_path, Tokens("access-1", 3600.0), Tokens("access-2", 3600.0))
        await bench.token()
        bench.now += 3299.0
        assert (await bench.token()).token == "access-1"
        assert len(bench.server.asked) == 1
        bench.now += 2.0
        assert (await bench.token()).token == "access-1"
        await bench.settle()
        assert (await bench.token()).token == "access-2"
        assert len(bench.server.asked) == 2

    asyncio.run(run())


def test_over(tmp_path: Path) -> None:
    """One that is over is not used, whatever the server says now."""

    async def run() -> None:
        bench = Bench(tmp_path, Tokens("access-1", 3600.0), Trouble(Why.BROKEN, "down"))
        await bench.token()
        bench.now += 3500.0
        assert (await bench.token()).token == "access-1"
        await bench.settle()
        assert (await bench.token()).token == "access-1"
        bench.now += 75.0
        assert await bench.token() == TokenReply("", "down")

    asyncio.run(run())


def test_clock_runs_while_the_answer_is_on_its_way(tmp_path: Path) -> None:
    """A token lives from when it was asked for, at the earliest."""

    async def run() -> None:
        bench = Bench(tmp_path, Tokens("access-1", 60.0))

        async def slow() -> None:
            bench.now += 100.0

        bench.server.gate = slow
        assert (await bench.token()).token == ""

    asyncio.run(run())


def test_back_off(tmp_path: Path, logged: list[str]) -> None:
    async def run() -> None:
        bench = Bench(tmp_path, Trouble(Why.BROKEN, "no answer"))
        began, times = bench.now, list[float]()
        while bench.now < began + 3000.0:
            before = len(bench.server.asked)
            assert await bench.token() == TokenReply("", "no answer")
            if len(bench.server.asked) > before:
                times.append(bench.now - began)
            bench.now += 1.0
        assert times == [0, 5, 15, 35, 75, 155, 315, 635, 1235, 1835, 2435]

    asyncio.run(run())
    assert logged == ["warning: anna: no access token: no answer"] * 11


def test_retry_after(tmp_path: Path) -> None:
    async def run() -> None:
        limit = Trouble(Why.THROTTLED, "too many requests: HTTP status 429", 1800.0)
        bench = Bench(tmp_path, limit, Tokens("access-1", 3600.0))
        assert (await bench.token()).reason == str(limit)
        bench.now += 1799.0
        assert (await bench.token()).reason == str(limit)
        assert len(bench.server.asked) == 1
        bench.now += 1.0
        assert (await bench.token()).token == "access-1"

    asyncio.run(run())


@pytest.mark.parametrize("token", ["refresh-1", ""])
def test_consent_has_gone(tmp_path: Path, logged: list[str], token: str) -> None:
    """Nobody is asked again before long, except where somebody has agreed again."""

    async def run() -> None:
        gone = Trouble(Why.CONSENT, "invalid_grant: revoked")
        bench = Bench(tmp_path, *([gone] if token else []), Tokens("access-2", 60.0), token=token)
        first = await bench.token()
        assert first.token == ""
        assert first.reason.startswith("the owner has to agree again, by postfix oauth2 anna (")
        bench.now += 599.0
        assert await bench.token() == first
        assert bench.server.asked == [token] * bool(token)
        bench.store.write("anna", "refresh-2")
        assert (await bench.token()).token == "access-2"
        assert bench.server.asked[-1] == "refresh-2"

    asyncio.run(run())
    why = "invalid_grant: revoked" if token else "there is no refresh token"
    assert logged[0] == (
        "warning: anna: no access token: the owner has to agree again, by postfix oauth2 anna "
        f"({why})"
    )


def test_another_refresh_token(tmp_path: Path) -> None:
    """It is on disk before the access token that came with it is used."""

    async def run() -> None:
        bench = Bench(tmp_path, Tokens("access-1", 60.0, "refresh-2"), Tokens("access-2", 60.0))
        assert (await bench.token()).token == "access-1"
        assert bench.store.read("anna") == "refresh-2"
        bench.now += 100.0
        assert (await bench.token()).token == "access-2"
        assert bench.server.asked == ["refresh-1", "refresh-2"]
        assert bench.store.read("anna") == "refresh-2"

    asyncio.run(run())


def test_disk_full(tmp_path: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh token that cannot be written is used, and written as soon as that works."""

    def fails(self: TokenStore, account: str, token: str) -> None:
        raise OSError(28, "No space left on device")

    async def run() -> None:
        bench = Bench(tmp_path, Tokens("access-1", 60.0, "refresh-2"), Tokens("access-2", 60.0))
        with monkeypatch.context() as patch:
            patch.setattr(TokenStore, "write", fails)
            assert (await bench.token()).token == "access-1"
        assert bench.store.read("anna") == "refresh-1"
        bench.now += 100.0
        assert (await bench.token()).token == "access-2"
        assert bench.server.asked == ["refresh-1", "refresh-2"]
        assert bench.store.read("anna") == "refresh-2"

    asyncio.run(run())
    line = "warning: anna: cannot keep the new refresh token: No space left on device"
    assert line in logged


def test_refused_tokens(tmp_path: Path) -> None:
    """A server whose clock differs from ours, or that was told of a revocation, refuses a token
    that is good to our knowledge: there is another one, but not as often as it likes."""

    async def run() -> None:
        bench = Bench(tmp_path, *(Tokens(f"access-{n}", 3600.0) for n in range(1, 9)))
        assert (await bench.token()).token == "access-1"
        bench.now += 30.0
        assert (await bench.token("access-1")).reason == (
            "the server refuses an access token that is new"
        )
        assert (await bench.token()).token == "access-1"
        bench.now += 60.0
        assert (await bench.token("access-1")).token == "access-2"
        assert (await bench.token("access-1")).token == "access-2"
        assert (await bench.token("access-0")).token == "access-2"
        assert len(bench.server.asked) == 2

    asyncio.run(run())


def test_short_lives(tmp_path: Path) -> None:
    """A server that gives tokens for a second is not asked each second."""

    async def run() -> None:
        bench = Bench(tmp_path, Tokens("access", 1.0))
        for _ in range(100):
            await bench.token()
            bench.now += 1.0
        assert len(bench.server.asked) == 10

    asyncio.run(run())


def test_unused(tmp_path: Path) -> None:
    """Refresh tokens that nobody uses end; a wake-up uses them once a day."""

    async def run() -> None:
        bench = Bench(tmp_path, Tokens("access-1", 3600.0))
        for _ in range(72):
            bench.keeper.wake()
            await bench.settle()
            bench.now += 3600.0
        assert len(bench.server.asked) == 2

    asyncio.run(run())


def test_another_process_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an account one process renews at a time: the next one finds the new refresh token."""

    async def run() -> None:
        bench = Bench(tmp_path, Tokens("access-1", 3600.0))
        monkeypatch.setattr("daemons.oauth2._BUSY_PAUSE", 0.0)
        with bench.store.locked("anna"):
            waiting = asyncio.ensure_future(bench.token())
            await bench.settle()
            assert bench.server.asked == []
            bench.store.write("anna", "refresh-2")
        assert (await waiting).token == "access-1"
        assert bench.server.asked == ["refresh-2"]

    asyncio.run(run())
