"""flush: which messages wait for a site, and who may have them sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from daemons.flush import Flusher, FlushParams, Prepared
from libmail.clients.flush import FlushClient, FlushClientParams, flush_domains
from libmail.ipc.messages import FlushAdd, FlushReply, FlushSite, QueueFlush, QueueId
from libmail.log import LOG
from libmail.lookup.authorization import AuthorizedUsers
from libmail.service.pool import ServiceUnavailable
from tests.unit.services import PlayedService

ONE, TWO = QueueId("0123456789"), QueueId("ABCDEF0123")
SYSTEM, BOB = 0, 2002
CLIENT_PARAMS = FlushClientParams(("flushed.test", "[192.0.2.1]"), "flush", 5.0, (), True)
PARAMS = FlushParams("alice", 7 * 86400.0, 12 * 3600.0, 1, (), 5.0, "qmgr")


class FakeQmgr(PlayedService):
    """Remembers what it is asked to deliver; broken: from that message on it is away."""

    def __init__(self) -> None:
        super().__init__(self._flush)
        self.flushed: list[QueueId] = []
        self.broken: QueueId | None = None

    def _flush(self, request: object) -> FlushReply:
        assert isinstance(request, QueueFlush)
        if request.queue_id == self.broken:
            raise ServiceUnavailable("down")
        self.flushed.append(request.queue_id)
        return FlushReply("")


class World:
    def __init__(self) -> None:
        self.qmgr = FakeQmgr()
        users = AuthorizedUsers("authorized_flush_users", "alice", "flush the mail queue")
        prepared = Prepared(PARAMS, users, flush_domains(CLIENT_PARAMS))
        self.flusher = Flusher(prepared, frozenset({SYSTEM}), self.qmgr)
        self.logged: list[str] = []
        LOG.open(lambda severity, head, text: self.logged.append(text), "postfix/flush")

    def send(self, site: str, uid: int = SYSTEM) -> str:
        return asyncio.run(self.flusher.send_site(site, uid))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flush").mkdir()
    return World()


def test_the_mail_of_a_site_is_sent_once(world: World) -> None:
    assert world.flusher.add("flushed.test", ONE) == ""
    assert world.flusher.add("flushed.test", TWO) == ""
    assert world.flusher.add("[192.0.2.1]", ONE) == ""
    assert world.send("Flushed.Test") == ""
    assert world.qmgr.flushed == [ONE, TWO]
    assert world.send("flushed.test") == ""
    assert world.qmgr.flushed == [ONE, TWO]


def test_smtpd_asks_for_its_clients(world: World) -> None:
    """Whoever may have the queue flushed himself: the rest smtpd decides (ETRN)."""
    world.flusher.add("flushed.test", ONE)
    assert "not allowed" in world.send("flushed.test", 12345)
    assert world.qmgr.flushed == []
    world.flusher._network = frozenset({12345})
    assert world.send("flushed.test", 12345) == ""
    assert world.qmgr.flushed == [ONE]


def test_what_qmgr_was_not_told_is_not_forgotten(world: World) -> None:
    for queue_id in (ONE, TWO):
        world.flusher.add("flushed.test", queue_id)
    world.qmgr.broken = TWO
    assert world.send("flushed.test") == "Cannot flush mail queue - mail system is down"
    assert world.logged == ["warning: flush flushed.test: down"]
    world.qmgr.broken = None
    assert world.send("flushed.test") == ""
    assert world.qmgr.flushed == [ONE, TWO]


@pytest.mark.parametrize(
    ("site", "uid", "reason"),
    [
        ("a b", BOB, 'Cannot flush mail queue - invalid destination: "a b"'),
        ("flushed.test", BOB, "User bob(2002) is not allowed to flush the mail queue"),
        ("other.test", SYSTEM, 'Flush service is not configured for destination "other.test"'),
        ("sub.flushed.test", SYSTEM,
         'Flush service is not configured for destination "sub.flushed.test"'),
    ],
)  # fmt: skip
def test_refusals(
    world: World, site: str, uid: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libmail.lookup.authorization.UserNames.find", lambda *_: "bob")
    assert world.send(site, uid) == reason
    assert world.qmgr.flushed == []


def test_bad_records_are_not_kept(world: World) -> None:
    assert world.flusher.add("../../etc", ONE).startswith("bad record")
    assert world.flusher.add("flushed.test", QueueId("../x")).startswith("bad record")
    assert not list(Path("flush").iterdir())


def test_a_record_that_cannot_be_written_is_said(world: World) -> None:
    Path("flush/flushed.test").mkdir()
    assert world.flusher.add("flushed.test", ONE) == "Is a directory"
    assert world.logged == [f"warning: {ONE}: write flush/flushed.test: Is a directory"]


def test_tidy_looks_at_every_record(world: World) -> None:
    for site in ("flushed.test", "[192.0.2.1]"):
        world.flusher.add(site, ONE)
    last = max(path.stat().st_mtime for path in Path("flush").iterdir())
    asyncio.run(world.flusher.tidy(last + 13 * 3600))
    assert [path.stat().st_size for path in Path("flush").iterdir()] == [0, 0]
    asyncio.run(world.flusher.tidy(last + 30 * 86400))
    assert not list(Path("flush").iterdir())


def played_flush() -> PlayedService:
    return PlayedService(lambda _: FlushReply(""))


def client(service: PlayedService) -> FlushClient:
    made = FlushClient(CLIENT_PARAMS, flush_domains(CLIENT_PARAMS))
    made._sites = made._records = service
    return made


def test_only_mail_of_listed_sites_is_recorded() -> None:
    service = played_flush()
    addresses = ["a@flushed.test", "b@FLUSHED.test", "c@other.test", "postmaster", "d@[192.0.2.1]"]
    asyncio.run(client(service).deferred(ONE, addresses))
    assert sorted(service.asked) == [  # type: ignore[type-var]
        FlushAdd("[192.0.2.1]", ONE),
        FlushAdd("flushed.test", ONE),
    ]


def test_a_site_is_asked_for() -> None:
    service = played_flush()
    assert asyncio.run(client(service).send_site("flushed.test")) == ""
    assert service.asked == [FlushSite("flushed.test")]


def test_without_the_service_nothing_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/defer")
    made = FlushClient(CLIENT_PARAMS, flush_domains(CLIENT_PARAMS))
    asyncio.run(made.deferred(ONE, ["a@flushed.test"]))
    assert logged == [
        f"warning: {ONE}: not recorded as deferred for flushed.test: "
        "connect to public/flush: No such file or directory"
    ]
