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
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFileWriter
from libmail.service.authorization import AuthorizedUsers
from libmail.service.pool import ServicePool, ServiceUnavailable

QUEUE = QueueDirectory(frozenset())
PARAMS = PickupParams(
    authorized_submit_users="static:anyone",
    cleanup_service_name="cleanup",
    content_filter="",
    ipc_timeout=60.0,
    mail_name="Postfix",
    mail_owner="postfix",
    message_size_limit=1000,
    milter_default_action="tempfail",
    myhostname="mail.test",
    non_smtpd_milters=(),
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
    def __init__(self, users: str = "static:anyone") -> None:
        prepared = Prepared(PARAMS, AuthorizedUsers("p", users, "submit mail"))
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
    assert not sent.flags & EnvelopeFlag.REQUIRETLS
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


def test_a_user_who_may_not_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("nobody-at-all")
    monkeypatch.setattr("libmail.service.authorization.os.getuid", lambda: -1)
    monkeypatch.setattr("daemons.pickup.maildrop.os.getuid", lambda: -1)
    name = make()
    os.chown(f"maildrop/{name}", 2**20, -1) if os.geteuid() == 0 else None
    assert world.take(name)
    assert names("corrupt") == [name]
    assert "is not allowed to submit mail: saving to corrupt queue" in world.logged[0]


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


def test_vanished(world: World) -> None:
    assert world.take("ABCDEF12")
    assert world.logged == []


def test_unfinished_files_are_left_alone(world: World) -> None:
    QueueFileWriter(QUEUE, "maildrop", long_ids=False).close()
    Path("maildrop/123.456").write_bytes(b"")
    found, more = module._names()
    assert (list(found), more) == ([], False)


def test_users_take_turns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    monkeypatch.setattr(module, "_FILES", 3)
    for number in range(5):
        Path(f"maildrop/AAAAAA0{number}").touch(0o700)
    Path("maildrop/BBBBBB").touch(0o700)
    os.chown("maildrop/BBBBBB", 2001, 2001)
    found, more = module._names()
    listed = list(found)
    assert more
    assert len(listed) == 4
    assert "BBBBBB" in listed[:2]
