"""A message on its way through a command: content, obstacles, outcomes."""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from pathlib import Path
from typing import cast

import pytest

from daemons.pipe import PipeDelivery, Settings
from daemons.pipe.attributes import Attributes, Flags
from daemons.pipe.content import content
from daemons.pipe.macros import BadMacro, CommandLine, Style
from libmail.agents.delivery import Bounced, Deferred, Delivery, Outcome, Sent
from libmail.execution.runner import Surroundings
from libmail.ipc.messages import Envelope, Recipient
from libmail.privileges import Identity
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import QueueFile, QueueFileWriter
from tests.unit.daemons.pipe.test_macros import REQUEST

ME = Identity(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid(), (os.getegid(),))
HEADER = b"Subject: x\r\nDelivered-To: Earlier@x.test\r\n"
BODY = b"\r\nFrom here\r\n.dot\r\nend\r\n"
NO_FLAGS = Flags()
LINES = b"Subject: x\nDelivered-To: Earlier@x.test\n\n"


class FakeDelivery:
    """As much of a Delivery as the agent asks for."""

    def __init__(self, file: QueueFile, sender: str, *addresses: str, verify: bool = False) -> None:
        recipients = tuple(Recipient(one, f"orig-{one}") for one in addresses)
        self.request = REQUEST._replace(sender=sender, recipients=recipients, size=100)
        self.file = file
        self.envelope = file.envelope()
        self.verify_only = verify
        self.outcomes: list[Outcome] = []

    async def finish_all(self, recipients: tuple[Recipient, ...], outcome: Outcome) -> None:
        self.outcomes += [outcome] * len(recipients)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QueueFile:
    monkeypatch.chdir(tmp_path)
    os.mkdir("active")
    writer = QueueFileWriter(QueueDirectory(frozenset(), 1), "active", long_ids=False)
    writer.write_header(HEADER)
    writer.write_body(BODY)
    writer.complete(Envelope("a@b.test", arrival=time.time()), [Recipient("x@y.test")], 0)
    writer.close()
    return QueueFile(writer.path)


def text(file: QueueFile, flags: Flags, sender: str = "me@x.test", eol: bytes = b"\n") -> bytes:
    attributes = Attributes(ME, ("x",), flags, eol=eol)
    recipient = Recipient("odd one@y.test", "orig@y.test")
    return b"".join(content(attributes, file, sender, recipient))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (Flags(), LINES + b"From here\n.dot\nend\n"),
        (Flags(blank_end=True), LINES + b"From here\n.dot\nend\n\n"),
        (Flags(stuff_dots=True), LINES + b"From here\n..dot\nend\n"),
        (Flags(quote_from=True), LINES + b">From here\n.dot\nend\n"),
        (
            Flags(return_path=True),
            b"Return-Path: <me@x.test>\n" + LINES + b"From here\n.dot\nend\n",
        ),
        (
            Flags(delivered_to=True, original_to=True),
            b'X-Original-To: orig@y.test\nDelivered-To: "odd one"@y.test\n'
            + LINES
            + b"From here\n.dot\nend\n",
        ),
    ],
)
def test_content(file: QueueFile, flags: Flags, expected: bytes) -> None:
    with file:
        assert text(file, flags) == expected


def test_from_line_and_null_sender(file: QueueFile) -> None:
    with file:
        lines = text(file, Flags(from_line=True, return_path=True), "").split(b"\n")
    assert lines[0].startswith(b"From MAILER-DAEMON  ")
    assert lines[1] == b"Return-Path: <MAILER-DAEMON>"


def test_line_ends(file: QueueFile) -> None:
    with file:
        found = text(file, Flags(from_line=True, blank_end=True), eol=b"\r\n")
    assert found.count(b"\r\n") == found.count(b"\n") == 8


def deliver(
    file: QueueFile,
    command: str,
    *addresses: str,
    flags: Flags = NO_FLAGS,
    size_limit: int = 0,
    bad: BadMacro | None = None,
    verify: bool = False,
) -> list[Outcome]:
    argv = ("/bin/sh", "-c", command.replace("$", "$$"), "sh", "$recipient")
    attributes = Attributes(ME, argv, flags, size_limit=size_limit)
    line = CommandLine(argv, Style(flags, "", ""), "")
    settings = Settings(
        attributes, bad or line, {"PATH": "/usr/bin:/bin"}, Surroundings(time_limit=60.0)
    )
    with file:
        delivery = FakeDelivery(file, "from@x.test", *(addresses or ("a@y.test",)), verify=verify)
        asyncio.run(PipeDelivery(settings, "show").deliver(cast(Delivery, delivery)))
    return delivery.outcomes


def test_sent(file: QueueFile) -> None:
    (sent, other) = deliver(file, 'cat >got; echo "$@" >>got', "a@y.test", "b@y.test")
    assert sent == other == Sent("2.0.0", "delivered via show service", "show", "relayed")
    assert Path("got").read_bytes() == LINES + b"From here\n.dot\nend\na@y.test b@y.test\n"


def test_output_of_success_is_shown_in_part(file: QueueFile) -> None:
    (sent,) = deliver(file, "cat >/dev/null; printf '%0500d\\n' 7", flags=Flags(final=True))
    assert isinstance(sent, Sent)
    assert sent.action == "delivered"
    assert sent.reason == f"delivered via show service ({'0' * 100})"


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        ("exit 67", Bounced("5.1.1", "user unknown", "show", "", "x-unix", "user unknown")),
        ("exit 71", Deferred("4.3.0", "system resource problem", "show", "", "x-unix",
                             "system resource problem")),
        ("echo 4.2.1 wait; exit 1", Deferred("4.2.1", "wait ", "show", "", "x-unix", "wait")),
        (
            "exit 1",
            Bounced(
                "5.3.0", 'Command died with status 1: "/bin/sh"', "show", "", "x-unix",
                "unknown mail system error 1",
            ),
        ),
        (
            "kill -9 $$",
            Deferred(
                "4.3.0", 'Command died with signal 9: "/bin/sh"', "show", "", "x-unix",
                "internal software error",
            ),
        ),
    ],
)  # fmt: skip
def test_failures(file: QueueFile, command: str, outcome: Outcome) -> None:
    assert deliver(file, command) == [outcome]


def test_too_large(file: QueueFile) -> None:
    outcomes = deliver(file, "touch ran", "a@y.test", "b@y.test", size_limit=99)
    assert outcomes == [Bounced("5.2.3", "message too large", "show")] * 2
    assert not Path("ran").exists()


def test_just_small_enough(file: QueueFile) -> None:
    assert isinstance(deliver(file, "true", size_limit=100)[0], Sent)


def test_loop(file: QueueFile) -> None:
    (outcome,) = deliver(file, "touch ran", "earlier@X.test", flags=Flags(delivered_to=True))
    assert outcome == Bounced("5.4.6", "mail forwarding loop for earlier@X.test", "show")
    assert not Path("ran").exists()


def test_verify(file: QueueFile) -> None:
    (outcome,) = deliver(file, "touch ran", verify=True)
    assert outcome == Sent("2.0.0", "delivers to command: /bin/sh", "show", "deliverable")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("flags", "bad"),
    [
        (Flags(delivered_to=True), None),
        (Flags(original_to=True), None),
        (Flags(), BadMacro("unknown macro")),
    ],
)
def test_misconfigured(file: QueueFile, flags: Flags, bad: BadMacro | None) -> None:
    outcomes = deliver(file, "touch ran", "a@y.test", "b@y.test", flags=flags, bad=bad)
    assert outcomes == [Deferred("4.3.5", "mail system configuration error", "show")] * 2
    assert not Path("ran").exists()
