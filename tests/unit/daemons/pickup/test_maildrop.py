"""What pickup does with the files that it finds in maildrop, and whom it believes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from daemons.pickup import maildrop as module
from daemons.pickup.maildrop import Maildrop
from daemons.pickup.params import PickupParams, Prepared
from daemons.pickup.submit import EX_OK, EX_TEMPFAIL, Origin, Submitter
from libmail.clients.cleanup import CleanupClient
from libmail.ipc.messages import (
    CleanupFlag,
    Envelope,
    EnvelopeFlag,
    QueueId,
    Recipient,
    SubmitResult,
)
from libmail.log import LOG
from libmail.lookup.authorization import AuthorizedUsers, LocalSenders
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFileWriter
from libmail.service.pool import ServicePool, ServiceUnavailable
from libmail.tables.maps import Maps

QUEUE = QueueDirectory(frozenset())
FOREIGN = Path(__file__).parents[2] / "libmail/queue/foreign"
PARAMS = PickupParams(
    authorized_submit_users="static:anyone",
    cleanup_service_name="cleanup",
    content_filter="",
    ipc_timeout=60.0,
    mail_name="Postfix",
    mail_owner="postfix",
    message_size_limit=1000,
    myhostname="mail.test",
    receive_override_options=(),
    remote_header_rewrite_domain="invalid.test",
    smtputf8_autodetect_classes=("sendmail", "verify"),
    verp_delimiter_filter="-=+",
)


FROM_USER = Envelope("a@b")


class FakeSubmitter(Submitter):
    """Takes what cleanup would."""

    def __init__(self, prepared: Prepared, status: int = EX_OK) -> None:
        super().__init__(prepared, CleanupClient(ServicePool("public/cleanup")))
        self.status = status
        self.down = False
        self.taken: list[tuple[Origin, Envelope, Sequence[Recipient], bytes]] = []

    async def submit(
        self,
        origin: Origin,
        envelope: Envelope,
        recipients: Sequence[Recipient],
        content: AsyncIterator[bytes],
    ) -> SubmitResult:
        if self.down:
            raise ServiceUnavailable("down")
        data = b"".join([piece async for piece in content])
        self.taken.append((origin, envelope, recipients, data))
        return SubmitResult(self.status, "reason", QueueId("X"))


class World:
    def __init__(self, users: str = "static:anyone", senders: str = "static:*") -> None:
        self.users = AuthorizedUsers("p", users, "submit mail")
        prepared = Prepared(PARAMS, self.users, LocalSenders(Maps("p", senders), "<>", ""))
        self.submitter = FakeSubmitter(prepared)
        self.maildrop = Maildrop(prepared, self.submitter)
        self.logged: list[str] = []
        LOG.open(lambda severity, head, text: self.logged.append(text), "postfix/pickup")

    def take(self, name: str) -> bool:
        return asyncio.run(self.maildrop.take(name))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    for name in ("maildrop", "corrupt"):
        (tmp_path / name).mkdir()
    return World()


def make(
    body: bytes = b"\r\nbody\r\n",
    recipients: Sequence[Recipient] = (Recipient("c@d", "c@d", offset=7),),
    envelope: Envelope = FROM_USER,
) -> QueueId:
    writer = QueueFileWriter(QUEUE, "maildrop", long_ids=False)
    writer.write_header(b"Subject: x\r\n")
    writer.write_body(body)
    writer.complete(envelope, recipients, ContentFlag(0), 0o740)
    writer.close()
    return writer.queue_id


def names(queue: str) -> list[str]:
    return sorted(os.listdir(queue))


def test_a_file_becomes_mail(world: World) -> None:
    envelope = Envelope("a@b", flags=0xFFFF, client_name="forged", content_filter="x:y",
                        cleanup_flags=0xFFFF, redirect="r@s")  # fmt: skip
    assert world.take(make(envelope=envelope))
    ((origin, sent, recipients, content),) = world.submitter.taken
    assert origin == Origin(os.getuid())
    assert (sent.sender, sent.client_name, sent.content_filter, sent.redirect) == (
        "a@b",
        "",
        "",
        "",
    )
    assert sent.flags & EnvelopeFlag.LOCAL
    assert sent.flags & EnvelopeFlag.REQUIRETLS
    assert not sent.flags & (EnvelopeFlag.PROBE | EnvelopeFlag.TLS_OPTIONAL)
    assert sent.cleanup_flags == world.submitter.flags
    assert recipients == [Recipient("c@d", "c@d")]
    assert content == b"Subject: x\r\n\r\nbody\r\n"
    assert names("maildrop") == []


def test_a_requeued_file_keeps_its_envelope(world: World) -> None:
    envelope = Envelope("a@b", message_id="<m@x>", client_name="kept", content_filter="old:filter",
                        cleanup_flags=int(CleanupFlag.HOLD | CleanupFlag.DISCARD))  # fmt: skip
    name = make(envelope=envelope)
    assert world.take(name)
    ((origin, sent, _, _),) = world.submitter.taken
    assert origin == Origin(os.getuid(), name)
    assert (sent.client_name, sent.content_filter, sent.message_id) == ("kept", "", "")
    assert sent.cleanup_flags == world.submitter.flags  # postsuper -r releases it


def test_hard_links_are_put_aside(world: World) -> None:
    name = make()
    os.link(f"maildrop/{name}", "other")
    assert world.take(name)
    assert (names("maildrop"), names("corrupt")) == ([], [name])
    assert world.logged == [
        f"warning: maildrop/{name}: not a regular file with one link: saving to corrupt queue"
    ]


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "short", "noise", "cut"])
def test_what_is_no_mail_is_put_aside(world: World, kind: str) -> None:
    path = Path("maildrop/ABCDEF12")
    if kind == "fifo":
        os.mkfifo(path, 0o700)
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "folder":
        path.mkdir()
    elif kind == "cut":
        os.rename(f"maildrop/{make()}", path)
        os.truncate(path, os.stat(path).st_size - 5)
    else:
        path.write_bytes(b"x" * (10 if kind == "short" else 5000))
    assert world.take("ABCDEF12")
    assert names("corrupt") == ["ABCDEF12"]
    assert world.submitter.taken == []


@pytest.mark.parametrize("kind", ["size", "sparse", "recipients", "frame"])
def test_what_is_too_much_is_put_aside(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "size":
        name = make(b"x" * 2000)
    elif kind == "sparse":
        name = make()
        os.truncate(f"maildrop/{name}", 1 << 40)
    else:
        monkeypatch.setattr(module, "MAX_RECIPIENTS", 2)
        name = make(recipients=[Recipient("c@d")] * 3)
    assert world.take(name)
    assert names("corrupt") == [name]


async def _nobody(uid: int) -> bool:
    return False


def test_a_user_who_may_not_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("nobody-at-all")
    name = make()
    monkeypatch.setattr(world.users, "allows", _nobody)
    assert world.take(name)
    assert names("corrupt") == [name]
    assert "is not allowed to submit mail: saving to corrupt queue" in world.logged[0]


def test_a_sender_of_others_is_refused(world: World) -> None:
    world = World(senders="static:somebody@else.test")
    name = make()
    assert world.take(name)
    assert names("corrupt") == [name]
    assert "not authorized to use sender='" in world.logged[0]


def test_trouble_of_the_system_leaves_the_file(world: World) -> None:
    name = make()
    world.submitter.status = EX_TEMPFAIL
    assert not world.take(name)
    world.submitter.down = True
    with pytest.raises(ServiceUnavailable):
        world.take(name)
    assert names("maildrop") == [name]
    assert world.logged == []


def test_what_cleanup_refuses_is_put_aside(world: World) -> None:
    name = make()
    world.submitter.status = 65
    assert world.take(name)
    assert names("corrupt") == [name]


def test_mail_that_the_original_left(world: World) -> None:
    """Its postdrop(1) may be installed beside us."""
    data = b"".join(
        kind + bytes([len(text)]) + text
        for kind, text in [
            (b"T", b"1700000000 5"), (b"A", b"rewrite_context=remote"), (b"F", b"A. User"),
            (b"S", b"s@x.test"), (b"R", b"r@x.test"), (b"M", b""), (b"N", b"Subject: x"),
            (b"N", b""), (b"N", b"body"), (b"X", b""), (b"R", b"late@x.test"), (b"E", b""),
        ]
    )  # fmt: skip
    path = Path("maildrop/ABCDEF12")
    path.write_bytes(data)
    path.chmod(0o744)
    if os.geteuid() == 0:
        os.chown(path, 2001, 2001)
    assert world.take("ABCDEF12")
    ((_, envelope, recipients, content),) = world.submitter.taken
    assert (envelope.sender, envelope.full_name) == ("s@x.test", "A. User")
    assert [one.address for one in recipients] == ["r@x.test", "late@x.test"]
    assert content == b"Subject: x\r\n\r\nbody\r\n"
    assert names("maildrop") == names("corrupt") == []


def test_a_real_file_of_the_original(world: World) -> None:
    """sendmail -F -N never -R full -V env-id -B8BITMIME -XV+-"""
    path = Path("maildrop/ABCDEF12")
    path.write_bytes((FOREIGN / "maildrop").read_bytes())
    path.chmod(0o744)
    if os.geteuid() == 0:
        os.chown(path, 2001, 2001)
    assert world.take("ABCDEF12")
    ((origin, envelope, recipients, _),) = world.submitter.taken
    assert origin.orig_id == ("" if os.geteuid() == 0 else "ABCDEF12")
    assert (envelope.dsn_envid, envelope.verp_delims) == ("env-id", "+-")
    assert envelope.flags & EnvelopeFlag.DSN_FULL
    assert [one.notify for one in recipients] == [1] * len(recipients)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_damaged_file_of_the_original_is_put_aside(world: World, cut: int) -> None:
    path = Path("maildrop/ABCDEF12")
    path.write_bytes(
        b"T\x0c1700000000 5S\x08s@x.testR\x08r@x.testM\x00N\x01xX\x00E\x00"[: cut - 62]
    )
    path.chmod(0o744)
    assert world.take("ABCDEF12")
    assert names("corrupt") == ["ABCDEF12"]


def test_junk_that_stays_is_told_of_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CORRUPT", 1)
    Path("corrupt/AAAAAA").touch()
    Path("maildrop/ABCDEF12").mkdir()
    assert not world.take("ABCDEF12")
    assert len(world.logged) == 1
    assert "corrupt queue is full: maildrop/ABCDEF12 stays" in world.logged[0]
    assert list(module._names(world.maildrop._noted)[0]) == []
    os.chmod("maildrop/ABCDEF12", 0o755)  # it is another one now
    assert list(module._names(world.maildrop._noted)[0]) == ["ABCDEF12"]


def test_what_cannot_be_moved_is_told_of_once(world: World) -> None:
    os.rmdir("corrupt")
    Path("maildrop/ABCDEF12").mkdir()
    assert not world.take("ABCDEF12")
    assert list(module._names(world.maildrop._noted)[0]) == []
    assert len(world.logged) == 1


def test_vanished(world: World) -> None:
    assert world.take("ABCDEF12")
    assert world.logged == []


def test_unfinished_files_are_left_alone(world: World) -> None:
    QueueFileWriter(QUEUE, "maildrop", long_ids=False).close()
    Path("maildrop/123.456").write_bytes(b"")
    found, more = module._names({})
    assert (list(found), more) == ([], False)


def test_users_take_turns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    monkeypatch.setattr(module, "_FILES", 3)
    for number in range(5):
        Path(f"maildrop/AAAAAA0{number}").touch(0o700)
    Path("maildrop/BBBBBB").touch(0o700)
    os.chown("maildrop/BBBBBB", 2001, 2001)
    found, more = module._names({})
    listed = list(found)
    assert more
    assert len(listed) == 4
    assert "BBBBBB" in listed[:2]
