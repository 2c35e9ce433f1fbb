"""What one row of the table of verbs decides: EHLO, HELP, the gates; and what follows an answer."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from daemons.smtpd.answer import Answer, answer
from daemons.smtpd.dialogue import Dialogue
from daemons.smtpd.ehlo import ALMOST_ALL, logged
from daemons.smtpd.session import Session
from daemons.smtpd.verb import Verb
from daemons.smtpd.verbs import VERBS
from libmail.lookup.facts import Client
from libmail.net.channel import ClientGone
from libmail.smtp.reply import Reply
from tests.unit.daemons.smtpd.fakes import running

OK = answer(Reply(250, "", "well"))


class Caller:
    """Sends these pieces, one for each wait. replies: what it got."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.replies = b""

    def write(self, data: bytes) -> None:
        self.replies += data

    async def read(self, *, idle: bool) -> bytes:
        if not self.pieces:
            raise ClientGone
        return self.pieces.pop(0)

    async def give_way(self) -> None:
        pass

    def has_sent(self) -> bool:
        return False

    def discard_input(self) -> None:
        raise AssertionError("nobody wants TLS")

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def talk(folder: Path, verbs: Mapping[str, Verb], *pieces: bytes, settings: str = "") -> str:
    """The replies to a client that sends these pieces, and what was logged."""
    client = Caller(*pieces)

    async def run() -> None:
        async with running(folder, settings) as instance:
            await Session(instance.server, client, verbs, Client("127.0.0.1")).run()

    asyncio.run(run())
    return client.replies.decode()


async def frobnicate(_: Session, __: str) -> Answer:
    return OK


def off(session: Session) -> Answer | None:
    return answer(Reply(502, "5.5.1", "no")) if session.transaction is not None else None


FROB = Verb("FROB", frobnicate, off=off, keyword="AUTH", details=lambda _: "A B")


def test_a_verb_is_announced_while_it_may_be_given(tmp_path: Path) -> None:
    verbs = {**VERBS, "AUTH": Verb("AUTH", frobnicate), "FROB": FROB}
    replies = talk(tmp_path, verbs, b"EHLO x\r\nHELP\r\nFROB\r\nMAIL FROM:<>\r\nFROB\r\n",
                   settings="smtpd_forbid_unauth_pipelining = no\n")  # fmt: skip
    assert "250-ETRN\r\n250-AUTH A B\r\n250-ENHANCEDSTATUSCODES\r\n" in replies
    assert " FROB HELO " in replies
    assert replies.endswith("250 well\r\n250 2.1.0 Ok\r\n502 5.5.1 no\r\n")


def test_a_verb_that_is_off_is_not_announced(tmp_path: Path) -> None:
    replies = talk(tmp_path, VERBS, b"EHLO x\r\n", b"VRFY x\r\n", b"AUTH x\r\n", b"STARTTLS\r\n",
                   settings="disable_vrfy_command = yes\n")  # fmt: skip
    assert "VRFY\r\n" not in replies
    assert "AUTH" not in replies
    assert replies.endswith(
        "502 5.5.1 VRFY command is disabled\r\n"
        "503 5.5.1 Error: authentication not enabled\r\n"
        "502 5.5.1 Error: command not implemented\r\n"
    )


def test_every_keyword_has_its_place_in_the_reply_and_in_the_log() -> None:
    """One without a place in the order would not be announced, and nobody would notice."""
    of_verbs = {verb.keyword for verb in VERBS.values() if verb.keyword}
    assert of_verbs <= ALMOST_ALL
    assert set(logged(ALMOST_ALL).split(", ")) == ALMOST_ALL


def test_in_the_clear(tmp_path: Path) -> None:
    given = [verb.name for verb in VERBS.values() if verb.before_tls]
    assert given == ["HELO", "EHLO", "XCLIENT", "STARTTLS", "NOOP", "QUIT"]
    replies = talk(tmp_path, VERBS, b"NOOP\r\n", b"MAIL FROM:<>\r\n",
                   settings="smtpd_tls_security_level = encrypt\n")  # fmt: skip
    assert replies.endswith("250 2.0.0 Ok\r\n530 5.7.0 Must issue a STARTTLS command first\r\n")


@pytest.mark.parametrize("early", [b"", b"EHLO x\r\n"])
def test_what_came_with_the_line_of_a_proxy_is_too_early(early: bytes) -> None:
    dialogue = Dialogue(Caller(), 512)
    dialogue.core.receive_data(early)
    assert asyncio.run(dialogue.talks_first()) == bool(early)


def test_what_follows_an_answer(tmp_path: Path) -> None:
    """The reply is out, and what the client sent behind its command counts for nothing."""
    seen: list[str] = []

    async def switch(session: Session, _: str) -> Answer:
        async def then() -> None:
            seen.append(client.replies.decode())
            session.start_over()

        return Answer(Reply(220, "2.0.0", "Ready"), error=False, then=then)

    client = Caller(b"EHLO x\r\nMAIL FROM:<>\r\nSWITCH\r\nMAIL FROM:<>\r\n", b"HELO y\r\nRSET\r\n")
    verbs = {**VERBS, "SWITCH": Verb("SWITCH", switch)}

    async def run() -> None:
        async with running(tmp_path, "smtpd_forbid_unauth_pipelining = no\n") as instance:
            session = Session(instance.server, client, verbs, Client("127.0.0.1"))
            await session.run()
            assert session.facts.protocol == "SMTP"
            assert instance.mail.aborted == 0

    asyncio.run(run())
    (before,) = seen
    assert before.endswith("250 2.1.0 Ok\r\n220 2.0.0 Ready\r\n")
    after = client.replies.decode().removeprefix(before)
    assert after == "250 mail.example.test\r\n250 2.0.0 Ok\r\n"
