"""smtpd between a client and a before-queue filter that follows a script."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemons.smtpd.before_queue import Direct, Filter, FilterRefusal, filter_settings
from daemons.smtpd.params import SmtpdParams
from libmail.config import ConfigError, open_config
from libmail.smtp.xforward import Source
from tests.unit.daemons.smtp.bench import CLOSE, HANG, Server
from tests.unit.daemons.smtpd.fakes import Mail, running
from tests.unit.waiting import until

MAIL = "MAIL FROM:<a@example.org>"
ALICE = "RCPT TO:<alice@example.test>"
BOB = "RCPT TO:<bob@example.test>"
CONTENT = b"Subject: x\r\n\r\n..dot\r\n...\r\nend\r\n.\r\n"
LATER = "451 4.3.0 Error: queue file write error"
GO_ON = "354 End data with <CR><LF>.<CR><LF>"
TAKEN = "250 2.0.0 Ok: queued as 1"
SPEED = "smtpd_proxy_options = speed_adjust\n"
NOBODY = Source("", "", "", "", "", "", local=True)
BOTH = pytest.mark.parametrize("adjust", ["", SPEED], ids=["direct", "speed_adjust"])


async def answers(
    folder: Path, where: str, steps: Iterable[str | bytes], main_cf: str = ""
) -> tuple[list[str], Mail]:
    """The last line of each answer to HELO and these steps, and what else came of it."""
    setting = f"smtpd_proxy_filter = {where}\nsmtpd_helo_required = no\n{main_cf}"
    os.makedirs(folder / "incoming", exist_ok=True)
    async with running(folder, setting) as instance:
        reader, writer = await instance.connect()
        found: list[str] = []
        await reader.readline()
        for step in steps:
            writer.write(step if isinstance(step, bytes) else f"{step}\r\n".encode())
            while (line := await asyncio.wait_for(reader.readline(), 60))[3:4] == b"-":
                pass
            found.append(line.decode().rstrip("\r\n"))
        writer.close()
        await asyncio.wait_for(instance.runtime.session_over.wait(), 60)
        return found, instance.mail


def talk(
    folder: Path, server: Server, *steps: str | bytes, main_cf: str = ""
) -> tuple[list[str], Mail]:
    async def main() -> tuple[list[str], Mail]:
        async with server:
            found = await answers(folder, f"127.0.0.1:{server.port}", steps, main_cf)
            await server.all_sessions_end()
            return found

    return asyncio.run(main())


@BOTH
def test_passed_on(tmp_path: Path, adjust: str) -> None:
    server = Server()
    found, mail = talk(tmp_path, server, "EHLO c", MAIL, ALICE, "DATA", CONTENT, main_cf=adjust)
    assert found[-1] == TAKEN
    assert server.sessions == [
        ["EHLO mail.example.test", MAIL, ALICE, "DATA", ".", "QUIT"]
    ]  # fmt: skip
    received, _, content = server.contents[0].partition(b"(UTC)\r\n")
    assert received.startswith(b"Received: from c ")
    assert b" id " not in received
    assert content + b".\r\n" == CONTENT
    assert not mail.opened
    assert mail.log[1] == "NOQUEUE: client=unknown[127.0.0.1]"
    assert mail.log[2] == (
        f"proxy-accept: END-OF-MESSAGE: {TAKEN}; from=<a@example.org> to=<alice@example.test> "
        "proto=ESMTP helo=<c>"
    )


CASES = [
    ("mail", {"MAIL": "550 5.7.1 no"}, ["550 5.7.1 no"], "550 5.7.1 no"),
    ("mail, busy", {"MAIL": "421 4.3.2 no"}, ["421 4.3.2 no"], "421 4.3.2 no"),
    ("mail, odd", {"MAIL": "354 go"}, [LATER], LATER),
    ("rcpt", {ALICE: "450 4.7.1 no"}, ["450 4.7.1 no"], "450 4.7.1 no"),
    ("greeting", {"CONNECT": "554 5.7.1 no"}, [LATER], LATER),
    ("ehlo", {"EHLO": "502 5.5.1 no"}, [LATER], LATER),
    ("xforward", {"EHLO": "250-x\r\n250 XFORWARD NAME", "XFORWARD": "550 no"}, [LATER], LATER),
    ("lost", {"MAIL": CLOSE}, [LATER], LATER),
    ("lost at once", {"CONNECT": CLOSE}, [LATER], LATER),
    ("data", {"DATA": "554 5.5.1 no"}, ["250 2.1.5 Ok", "554 5.5.1 no"], "554 5.5.1 no"),
    ("data, odd", {"DATA": "250 2.0.0 Ok"}, ["250 2.1.5 Ok", LATER], LATER),
    ("content", {".": "550 5.7.1 spam"}, ["250 2.1.5 Ok", GO_ON, "550 5.7.1 spam"], None),
    ("content, odd", {".": "354 more"}, ["250 2.1.5 Ok", GO_ON, LATER], None),
    ("content, lost", {".": CLOSE}, ["250 2.1.5 Ok", GO_ON, LATER], None),
    ("lines", {".": "250-2.0.0 a\r\n250 2.0.0 b"}, ["250 2.1.5 Ok", GO_ON, "250 2.0.0 b"], None),
    ("no text", {".": "250"}, ["250 2.1.5 Ok", GO_ON, "250 "], None),
    ("garbage", {".": "hello\r\n550 5.0.0 b"}, ["250 2.1.5 Ok", GO_ON, "550 5.0.0 b"], None),
    ("endless", {".": "250-x\r\n" * 10000 + "250 x"}, ["250 2.1.5 Ok", GO_ON, LATER], None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "direct", "adjusted"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_refusals(
    tmp_path: Path, script: dict[str, str], direct: list[str], adjusted: str | None
) -> None:
    """What the filter says, or 451, at the command; with speed_adjust it is always at the end."""
    steps = (ALICE, "DATA", CONTENT)[: len(direct)]
    found, _ = talk(tmp_path, Server(script), "EHLO c", MAIL, *steps)
    assert found[2:] == direct
    folder = tmp_path / "2"
    folder.mkdir()
    steps = (ALICE, "DATA", CONTENT)
    found, _ = talk(folder, Server(script), "EHLO c", MAIL, *steps, main_cf=SPEED)
    assert found[2:4] == ["250 2.1.5 Ok", GO_ON]
    assert found[4] == (adjusted or direct[-1])


@BOTH
def test_nobody_there(tmp_path: Path, adjust: str) -> None:
    steps: list[str | bytes] = ["EHLO c", MAIL, ALICE, "DATA", *([CONTENT] if adjust else [])]
    found, mail = asyncio.run(answers(tmp_path, "unix:nobody", steps, adjust))
    assert found[-1] == (LATER if adjust else "554 5.5.1 Error: no valid recipients")
    warning = "connect to proxy filter unix:nobody: No such file or directory"
    assert any(warning in line for line in mail.log)


@BOTH
def test_silent_filter(tmp_path: Path, adjust: str) -> None:
    limit = f"smtpd_proxy_timeout = 1\n{adjust}"
    server = Server({".": HANG})
    found, mail = talk(tmp_path, server, "EHLO c", MAIL, ALICE, "DATA", CONTENT, main_cf=limit)
    assert found[-1] == LATER
    assert any("timeout talking to proxy 127.0.0.1:" in line for line in mail.log)


def test_a_refused_recipient_is_none_of_the_message(tmp_path: Path) -> None:
    server = Server({ALICE: "550 5.1.1 who"})
    found, _ = talk(tmp_path, server, "EHLO c", MAIL, ALICE, BOB, "DATA", CONTENT)
    assert found[2:] == ["550 5.1.1 who", "250 2.1.5 Ok", GO_ON, TAKEN]
    assert b"for <bob@example.test>" in server.contents[0]


def test_next_recipient_tries_again(tmp_path: Path) -> None:
    server = Server({MAIL: CLOSE})
    talk(tmp_path, server, "EHLO c", MAIL, ALICE, BOB)
    assert [session[-1] for session in server.sessions] == [MAIL, MAIL]


def test_at_mail(tmp_path: Path) -> None:
    server = Server({"MAIL": "550 5.7.1 no"})
    early = "smtpd_delay_open_until_valid_rcpt = no\n"
    found, _ = talk(tmp_path, server, "EHLO c", MAIL, ALICE, main_cf=early)
    assert found[1:] == ["550 5.7.1 no", "503 5.5.1 Error: need MAIL command"]


@BOTH
def test_nothing_is_left_behind(tmp_path: Path, adjust: str) -> None:
    server = Server()
    steps = ("EHLO c", MAIL, ALICE, "RSET", MAIL, ALICE, "DATA", CONTENT)
    talk(tmp_path, server, *steps, main_cf=adjust)
    assert not os.listdir(tmp_path / "incoming")
    assert [session[-1] for session in server.sessions] == ["QUIT"] * (1 if adjust else 2)


@BOTH
def test_too_large(tmp_path: Path, adjust: str) -> None:
    server = Server()
    limit = f"message_size_limit = 2000\n{adjust}"
    big = b"Subject: x\r\n\r\n" + b"x\r\n" * 1000 + b".\r\n"
    found, mail = talk(tmp_path, server, "EHLO c", MAIL, ALICE, "DATA", big, main_cf=limit)
    assert found[-1] == "552 5.3.4 Error: message file too big"
    assert not server.contents
    assert any("NOQUEUE: queue file size limit exceeded" in line for line in mail.log)


@BOTH
def test_chunks(tmp_path: Path, adjust: str) -> None:
    server = Server()
    steps = ("EHLO c", MAIL, ALICE, b"BDAT 15\r\nSubject: x\r\n\r\n.", b"BDAT 4 LAST\r\n\r\n.x")
    found, _ = talk(tmp_path, server, *steps, main_cf=adjust)
    assert found[-1] == TAKEN
    assert server.contents[0].endswith(b"Subject: x\r\n\r\n..\r\n..x\r\n")


def test_actions_for_the_queue(tmp_path: Path) -> None:
    server = Server()
    access = "smtpd_sender_restrictions = check_sender_access inline:{a@example.org=HOLD}\n"
    found, mail = talk(tmp_path, server, "EHLO c", MAIL, ALICE, "DATA", CONTENT, main_cf=access)
    assert found[-1] == TAKEN
    assert any("action HOLD is unavailable" in line for line in mail.log)
    assert not any("hold:" in line for line in mail.log)


def test_a_command_stays_one(tmp_path: Path) -> None:
    server = Server()
    talk(tmp_path, server, "EHLO c", "MAIL FROM:<a@example.org>\rRSET", ALICE)
    said = [line for session in server.sessions for line in session]
    assert not any("\r" in line or line == "RSET" for line in said)


@pytest.mark.parametrize("where", ["nonsense:here", "127.0.0.1:nonsense", "inet:", "unix:"])
def test_mistakes(tmp_path: Path, where: str) -> None:
    (tmp_path / "main.cf").write_text(f"smtpd_proxy_filter = {where}\n")
    with pytest.raises(ConfigError):
        filter_settings(open_config(str(tmp_path)).load(SmtpdParams))


def test_unknown_option(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text("smtpd_proxy_filter = :25\nsmtpd_proxy_options = fast\n")
    with pytest.raises(ConfigError, match="fast"):
        filter_settings(open_config(str(tmp_path)).load(SmtpdParams))


async def message(folder: Path, server: Server) -> Direct:
    """One that the filter is about to get the content of."""
    (folder / "main.cf").write_text(f"smtpd_proxy_filter = :{server.port}\n")
    wanted = filter_settings(open_config(str(folder)).load(SmtpdParams))
    assert wanted is not None
    direct = await Filter(wanted).direct(NOBODY, MAIL)
    await direct.rcpt(ALICE)
    await direct.data()
    return direct


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([b".", b"\r\n", b".\r\n", b"x", b"\n.", b"", b"\r\n.\r\n"])))
def test_dots(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    """However the content is cut, the filter gets it as it is, and one message."""

    async def main() -> None:
        async with Server() as server:
            direct = await message(tmp_path_factory.mktemp("queue"), server)
            for piece in pieces:
                await direct.write(piece)
            answer = await direct.finish()
            assert answer.reply.code == 250
            await server.all_sessions_end()
            assert len(server.contents) == 1
            lines = server.contents[0].split(b"\n")
            content = b"\n".join([line.removeprefix(b".") for line in lines])
            sent = b"".join(pieces)
            assert content in (sent, sent + b"\r\n")

    asyncio.run(main())


def test_answer_before_the_end(tmp_path: Path) -> None:
    """A filter that refuses within the content, and reads no more of it, costs no time limit."""

    class Hasty(Server):
        async def _content(self, reader: asyncio.StreamReader, lines: list[str]) -> None:
            await reader.readline()

    async def main() -> None:
        async with Hasty({".": "554 5.7.1 enough", "x": HANG}) as server:
            direct = await message(tmp_path, server)
            await direct.write(b"x\r\n")
            await until(lambda: direct._link.wire.pending)
            for _ in range(1000):
                await direct.write(b"y" * 65536)
            answer = await direct.finish()
            assert answer.reply.line == "554 5.7.1 enough"

    asyncio.run(main())


def test_answer_before_the_end_is_no_acceptance(tmp_path: Path) -> None:
    class Hasty(Server):
        async def _content(self, reader: asyncio.StreamReader, lines: list[str]) -> None:
            await reader.readline()

    async def main() -> None:
        async with Hasty({"x": HANG}) as server:
            direct = await message(tmp_path, server)
            await direct.write(b"x\r\n")
            await until(lambda: direct._link.wire.pending)
            assert (await direct.finish()).reply.line == LATER

    asyncio.run(main())


def test_what_follows_a_lost_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with Server({BOB: CLOSE}) as server:
            (tmp_path / "main.cf").write_text(f"smtpd_proxy_filter = :{server.port}\n")
            wanted = filter_settings(open_config(str(tmp_path)).load(SmtpdParams))
            assert wanted is not None
            direct = await Filter(wanted).direct(NOBODY, MAIL)
            await direct.rcpt(ALICE)
            for step in (direct.rcpt(BOB), direct.rcpt(ALICE), direct.data()):
                with pytest.raises(FilterRefusal):
                    await step
            direct.abort()

    asyncio.run(main())
