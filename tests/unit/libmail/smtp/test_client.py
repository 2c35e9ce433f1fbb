"""The client's core: replies, extensions, transactions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.ipc.messages import DsnNotify, Recipient
from libmail.smtp.client import (
    DATA,
    END_OF_DATA,
    MAIL,
    RCPT,
    RSET,
    XFORWARD_HELO,
    XFORWARD_NAME,
    Extensions,
    Next,
    Phase,
    ReplyReader,
    ReplyTooLong,
    ServerReply,
    Transaction,
    parse_extensions,
)
from libmail.smtp.client_commands import (
    Sender,
    UnsafeAddress,
    mail_command,
    notify_text,
    rcpt_command,
)

# -- replies


def read(chunks: Iterable[bytes]) -> list[object]:
    reader = ReplyReader()
    out: list[object] = []
    with contextlib.suppress(ReplyTooLong):
        for chunk in chunks:
            reader.receive_data(chunk)
            while (reply := reader.next_reply()) is not None:
                out.append(reply)
    return out


REPLIES = [
    ("plain", b"250 ok\r\n", [ServerReply(250, "2.0.0", ("250 ok",))]),
    ("bare", b"250\r\n", [ServerReply(250, "2.0.0", ("250",))]),
    (
        "no space",
        b"250ok\r\n354 b\r\n",
        [ServerReply(354, "5.5.0", ("250ok", "354 b"), "250ok")],
    ),
    ("bare LF", b"250 ok\n", [ServerReply(250, "2.0.0", ("250 ok",))]),
    ("dsn", b"550 5.1.1 no\r\n", [ServerReply(550, "5.1.1", ("550 5.1.1 no",))]),
    ("dsn alone", b"550 5.1.1\r\n", [ServerReply(550, "5.1.1", ("550 5.1.1",))]),
    ("other class", b"450 5.1.1 x\r\n", [ServerReply(450, "4.0.0", ("450 5.1.1 x",))]),
    ("no class", b"354 2.0.0 x\r\n", [ServerReply(354, "5.5.0", ("354 2.0.0 x",))]),
    ("not a dsn", b"250 2.0.0x\r\n", [ServerReply(250, "2.0.0", ("250 2.0.0x",))]),
    (
        "lines",
        b"550-5.1.8 a\r\n550 5.1.8 b\r\n",
        [ServerReply(550, "5.1.8", ("550-5.1.8 a", "550 5.1.8 b"))],
    ),
    (
        "two",
        b"250 a\r\n354 b\r\n",
        [ServerReply(250, "2.0.0", ("250 a",)), ServerReply(354, "5.5.0", ("354 b",))],
    ),
    (
        "garbage first",
        b"hello\r\n250 a\r\n",
        [ServerReply(250, "2.0.0", ("hello", "250 a"), "hello")],
    ),
    ("incomplete", b"250-a\r\n250 b", []),
    (
        "cut",
        b"250 " + b"x" * 5000 + b"\r\n",
        [
            ServerReply(
                250,
                "2.0.0",
                ("250 " + "x" * 2044,),
                "",
                ("response longer than 2048: 250 " + "x" * 26 + "...",),
            )
        ],
    ),
    (
        "many lines",
        b"550-5.1.1 line\r\n" * 500 + b"550 5.1.1 end\r\n",
        [
            ServerReply(
                550,
                "5.1.1",
                ("550-5.1.1 line",) * 137,
                "",
                ("multi-line response longer than 2048 550-5.1.1 line\n550-5.1.1 line\n...",),
            )
        ],
    ),
    ("octets", b"250 \xff\r\n", [ServerReply(250, "2.0.0", ("250 ?",))]),
]


@pytest.mark.parametrize(
    ("data", "want"), [case[1:] for case in REPLIES], ids=[case[0] for case in REPLIES]
)
def test_replies(data: bytes, want: list[ServerReply]) -> None:
    assert read([data]) == want
    assert read(data[i : i + 1] for i in range(len(data))) == want


def test_reply_text() -> None:
    (reply,) = read([b"550-a\r\n550 b\r\n"])
    assert isinstance(reply, ServerReply)
    assert reply.text == "550-a 550 b"


@pytest.mark.parametrize("data", [b"250-x\r\n" * 50_000, b"x" * 200_000, b"x\r\n" * 50_000])
def test_reply_without_end(data: bytes) -> None:
    reader = ReplyReader()
    reader.receive_data(data)
    with pytest.raises(ReplyTooLong):
        reader.next_reply()


GROUPS = [
    ("all", b"250 a\r\n250-b\r\n250 c\r\n354 d\r\n", ["250 a", "250-b 250 c", "354 d"]),
    ("too few", b"250 a\r\n250 b\r\n", []),
    ("too many", b"250 a\r\n250 b\r\n354 c\r\n250 d\r\n", []),
    ("the beginning of more", b"250 a\r\n250 b\r\n354 c\r\n2", []),
    ("others", b"250 a\r\n450 b\r\n354 c\r\n", []),
    ("not a reply", b"250 a\r\nb\r\n250 b\r\n354 c\r\n", []),
    ("too long", b"250 a\r\n250 b\r\n354 " + b"c" * 2048 + b"\r\n", []),
    ("nothing", b"", []),
]


@pytest.mark.parametrize(
    ("data", "want"), [case[1:] for case in GROUPS], ids=[case[0] for case in GROUPS]
)
def test_a_group_of_replies(data: bytes, want: list[str]) -> None:
    reader = ReplyReader()
    reader.receive_data(data)
    assert [reply.text for reply in reader.group((250, 250, 354))] == want
    assert reader.pending is (bool(data) and not want)
    if not want:  # all is still there
        rest = [reader.next_reply() for _ in range(6)]
        assert [reply for reply in rest if reply is not None] == read([data])


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (b"250 a\r\n", ["250 a"]),
        (b"250-a\r\n250 b\r\n", ["250-a 250 b"]),
        (b"451 a\r\n", []),
        (b"250 a\r\n221 b\r\n", ["250 a"]),
        (b"250 a\r\n2", ["250 a"]),
        (b"250-a\r\n", []),
        (b"a\r\n250 b\r\n", []),
    ],
)
def test_a_group_of_one(data: bytes, want: list[str]) -> None:
    reader, other = ReplyReader(), ReplyReader()
    reader.receive_data(data)
    other.receive_data(data)
    assert [reply.text for reply in reader.group((250,))] == want
    if want:
        other.next_reply()
    assert reader.next_reply() == other.next_reply()
    assert reader.pending is other.pending


def test_a_group_is_not_cut_out_of_what_came() -> None:
    reader = ReplyReader()
    reader.receive_data(b"250 a\r\n250 b\r\n354 c\r\n")
    assert reader.next_reply() is not None
    assert not reader.group((250, 354))
    assert [reader.next_reply(), reader.next_reply()] == read([b"250 b\r\n354 c\r\n"])


WIRE = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"250 ok\r\n", b"250-a\r\n", b"\r\n", b"550 5.1.1 x\n", b"2", b"99"]),
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(WIRE, st.lists(st.integers(1, 9), min_size=1))
def test_any_bytes_and_any_chunking(data: bytes, sizes: list[int]) -> None:
    chunks: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[at : at + size])
        at += size
    whole = read([data])
    assert read(chunks) == whole
    for reply in whole:
        assert isinstance(reply, ServerReply)
        assert 0 <= reply.code <= 999


# -- extensions

KEYWORDS = [
    ("none", ("250 host",), Extensions(esmtp=True)),
    (
        "usual",
        ("250-host", "250-PIPELINING", "250-size 100", "250-8bitmime", "250 DSN"),
        Extensions(
            esmtp=True, pipelining=True, size_offered=True, size=100, eightbit=True, dsn=True
        ),
    ),
    ("size without limit", ("250-h", "250 SIZE"), Extensions(esmtp=True, size_offered=True)),
    ("bad size", ("250-h", "250 SIZE -5"),
     Extensions(esmtp=True, size_offered=True, bad_size="-5")),
    (
        "more",
        ("250-h", "250-STARTTLS", "250-AUTH PLAIN LOGIN", "250-AUTH=X", "250-CHUNKING",
         "250-XFORWARD NAME addr", "250 SMTPUTF8"),
        Extensions(esmtp=True, starttls=True, auth=("PLAIN", "LOGIN", "X"), chunking=True,
                   xforward=frozenset({"NAME", "ADDR"}), smtputf8=True),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "want"), [case[1:] for case in KEYWORDS], ids=[case[0] for case in KEYWORDS]
)
def test_extensions(lines: tuple[str, ...], want: Extensions) -> None:
    assert parse_extensions(ServerReply(250, "2.0.0", lines)) == want


def test_discarded_keywords() -> None:
    reply = ServerReply(250, "2.0.0", ("250-h", "250-PIPELINING", "250 DSN"))
    assert parse_extensions(reply, ["pipelining"]) == Extensions(esmtp=True, dsn=True)


# -- commands

EVERYTHING = Extensions(
    esmtp=True, eightbit=True, dsn=True, smtputf8=True, size_offered=True, size=1000
)


def test_commands() -> None:
    sender = Sender("a b@x.test", 10, "8BITMIME", True, "id=1", "FULL")
    assert mail_command(sender, Extensions()) == b'MAIL FROM:<"a b"@x.test>\r\n'
    assert mail_command(sender, EVERYTHING) == (
        b'MAIL FROM:<"a b"@x.test> SIZE=10 BODY=8BITMIME ENVID=id+3D1 RET=FULL SMTPUTF8\r\n'
    )
    assert mail_command(Sender(""), Extensions()) == b"MAIL FROM:<>\r\n"
    told = Recipient("c@x.test", "o@x.test", "", 0, 0)
    assert rcpt_command("c@x.test", told, Extensions()) == b"RCPT TO:<c@x.test>\r\n"
    told = Recipient("c@x.test", "ö@x.test", "", 0, 0)
    assert rcpt_command("c@x.test", told, EVERYTHING, smtputf8=True) == (
        b"RCPT TO:<c@x.test> ORCPT=utf-8;+C3+B6@x.test\r\n"
    )
    assert notify_text(DsnNotify.SUCCESS | DsnNotify.FAILURE) == "SUCCESS,FAILURE"
    assert notify_text(DsnNotify.NEVER) == "NEVER"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_a_command_is_one_line(address: str, orcpt: str) -> None:
    def check(command: bytes) -> None:
        assert command.endswith(b"\r\n")
        assert b"\n" not in command[:-2]
        assert b"\r" not in command[:-2]

    with contextlib.suppress(UnsafeAddress, UnicodeEncodeError):
        check(mail_command(Sender(address, envid=orcpt), EVERYTHING))
        check(rcpt_command(address, Recipient(address, "", orcpt, 0, 0), EVERYTHING))
        check(rcpt_command(address, Recipient(address, orcpt, "", 0, 0), EVERYTHING))


# -- transactions

OK = ServerReply(250, "2.0.0", ("250 ok",))
GO = ServerReply(354, "5.5.0", ("354 go",))
NO = ServerReply(550, "5.0.0", ("550 no",))


def run(transaction: Transaction, replies: Iterable[ServerReply]) -> list[str]:
    """What was sent, and what was awaited."""
    log = []
    waiting = iter(replies)
    while transaction.next in (Next.REPLY, Next.CONTENT):
        if commands := transaction.output():
            log.append(commands.decode().replace("\r\n", "|"))
        if transaction.next is Next.CONTENT:
            log.append("content" if transaction.wanted else "dot")
            transaction.content_sent()
            continue
        transaction.receive(next(waiting))
    log.append(transaction.next.name)
    return log


R = (b"R1\r\n", b"R2\r\n")
BEFORE = ((XFORWARD_NAME, b"X1\r\n"), (XFORWARD_HELO, b"X2\r\n"))
COURSES = [
    ("pipelined", {"pipelining": True}, [OK, OK, OK, GO, OK],
     ["M|R1|R2|DATA|", "content", "NOTHING"]),
    ("plain", {"pipelining": False}, [OK, OK, OK, GO, OK],
     ["M|", "R1|", "R2|", "DATA|", "content", "NOTHING"]),
    ("reset", {"pipelining": True, "reset": True}, [OK, OK, OK, OK, GO, OK],
     ["RSET|M|R1|R2|DATA|", "content", "NOTHING"]),
    ("mail refused, pipelined", {"pipelining": True}, [NO, NO, NO, NO],
     ["M|R1|R2|DATA|", "RESET"]),
    ("mail refused, server goes on", {"pipelining": True}, [NO, OK, OK, GO, OK],
     ["M|R1|R2|DATA|", "dot", "NOTHING"]),
    ("mail refused, plain", {"pipelining": False}, [NO], ["M|", "RESET"]),
    ("all refused, plain", {"pipelining": False}, [OK, NO, NO], ["M|", "R1|", "R2|", "RESET"]),
    ("one refused", {"pipelining": False}, [OK, NO, OK, GO, OK],
     ["M|", "R1|", "R2|", "DATA|", "content", "NOTHING"]),
    ("data refused", {"pipelining": True}, [OK, OK, OK, NO], ["M|R1|R2|DATA|", "RESET"]),
    ("lmtp", {"pipelining": True, "lmtp": True}, [OK, OK, OK, GO, OK, NO],
     ["M|R1|R2|DATA|", "content", "NOTHING"]),
    ("lmtp, nobody", {"pipelining": True, "lmtp": True}, [OK, NO, NO, GO],
     ["M|R1|R2|DATA|", "dot", "RESET"]),
    ("before", {"pipelining": False, "before": BEFORE}, [NO, OK, OK, OK, OK, GO, OK],
     ["X1|", "X2|", "M|", "R1|", "R2|", "DATA|", "content", "NOTHING"]),
    ("before, pipelined", {"pipelining": True, "before": BEFORE, "reset": True},
     [OK, NO, NO, OK, NO, OK, GO, OK], ["RSET|X1|X2|M|R1|R2|DATA|", "content", "NOTHING"]),
    ("probe", {"pipelining": True, "data": False}, [OK, OK, NO], ["M|R1|R2|", "RESET"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "replies", "want"), [case[1:] for case in COURSES], ids=[c[0] for c in COURSES]
)
def test_transaction(options: dict[str, Any], replies: list[ServerReply], want: list[str]) -> None:
    assert run(Transaction(b"M\r\n", R, **options), replies) == want


def test_results() -> None:
    transaction = Transaction(b"M\r\n", R, pipelining=True, lmtp=True)
    run(transaction, [OK, NO, OK, GO, NO])
    assert transaction.mail is None
    assert transaction.rcpt == [NO, OK]
    assert transaction.final == [NO]


def test_phases() -> None:
    transaction = Transaction(b"M\r\n", R, pipelining=True, reset=True)
    phases = []
    for reply in (OK, OK, OK, OK, GO):
        phases.append(transaction.phase)
        transaction.receive(reply)
    assert [*phases, transaction.phase] == [RSET, MAIL, RCPT, RCPT, DATA, END_OF_DATA]


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("before", [(), BEFORE])
@pytest.mark.parametrize("reset", [False, True])
def test_hoped_replies_at_once_are_as_each_by_itself(
    lmtp: bool, before: tuple[tuple[Phase, bytes], ...], reset: bool
) -> None:
    def make() -> Transaction:
        return Transaction(b"M\r\n", R, pipelining=True, lmtp=lmtp, before=before, reset=reset)

    def hoped(transaction: Transaction) -> list[ServerReply]:
        codes = enumerate(transaction.hoped)
        return [ServerReply(code, "2.0.0", (f"{code} {number}",)) for number, code in codes]

    one, other = make(), make()
    assert one.output() == other.output()
    for last in (Next.CONTENT, Next.NOTHING):
        replies = hoped(one)
        one.receive_hoped(replies)
        for reply in replies:
            other.receive(reply)
        assert {**vars(one), "hoped": ()} == vars(other)
        assert one.next is last
        if last is Next.CONTENT:
            assert one.rcpt == replies[-3:-1]
            one.content_sent()
            other.content_sent()
    assert len(one.final) == (2 if lmtp else 1)


def test_what_was_not_hoped_for() -> None:
    transaction = Transaction(b"M\r\n", R, pipelining=True)
    transaction.output()
    for reply in (OK, NO, OK):
        transaction.receive(reply)
        assert transaction.hoped == ()
    transaction.receive(GO)
    transaction.content_sent()
    assert transaction.hoped == (250,)


def test_nobody_is_accepted() -> None:
    transaction = Transaction(b"M\r\n", R, pipelining=True)
    transaction.output()
    for reply in (OK, NO, NO, GO):
        transaction.receive(reply)
    transaction.content_sent()
    assert transaction.hoped == ()


@pytest.mark.parametrize("options", [{"pipelining": False}, {"pipelining": True, "data": False}])
def test_nothing_is_hoped_for_at_once(options: dict[str, Any]) -> None:
    assert Transaction(b"M\r\n", R, **options).hoped == ()


@settings(max_examples=200, deadline=None)
@given(
    st.booleans(),
    st.booleans(),
    st.lists(st.sampled_from([OK, GO, NO, ServerReply(421, "4.3.2", ("421 x",))]), max_size=12),
)
def test_any_course_ends(pipelining: bool, lmtp: bool, replies: list[ServerReply]) -> None:
    """Never more replies are awaited than commands were sent, and content is never for nobody."""
    transaction = Transaction(b"M\r\n", R, pipelining=pipelining, lmtp=lmtp)
    log = run(transaction, [*replies, *[NO] * 12])
    sent = sum(part.count("|") for part in log)
    got = [reply for reply in transaction.rcpt if reply is not None]
    assert sent <= 4
    assert len(got) <= 2
    if "content" in log:
        assert any(reply.positive for reply in got)
        assert transaction.mail is None
    assert transaction.next in (Next.NOTHING, Next.RESET)
