"""One connection to a Milter: what is sent when, what the answers decide, what is a lie."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.milter.conversation import PASS, Act, Conversation, Decision
from libmail.milter.protocol import (
    AddHeader,
    Command,
    Edits,
    MilterError,
    Progress,
    Stage,
    Steps,
)
from libmail.smtp.reply import Reply
from tests.unit.libmail.milter.test_protocol import wire

NO_EDITS = Edits(0)
NO_STEPS = Steps(0)


def opened(
    *, version: int = 6, edits: Edits = NO_EDITS, steps: Steps = NO_STEPS, macros: bytes = b""
) -> Conversation:
    one = Conversation()
    assert one.start() == wire("O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF))
    assert not one.accept_negotiation()
    one.receive_data(wire("O", struct.pack(">III", version, edits, steps) + macros))
    assert one.accept_negotiation()
    return one


def answer(one: Conversation, data: bytes) -> object:
    one.receive_data(data)
    return one.next_answer()


def test_an_event_goes_with_its_macros() -> None:
    one = opened()
    assert one.event(Command.MAIL, b"<a@b>\0", b"i\0QID\0") == (
        wire("D", b"Mi\0QID\0") + wire("M", b"<a@b>\0")
    )
    assert one.awaiting
    assert one.next_answer() is None
    assert answer(one, wire("c")) is PASS
    assert one.clean


def test_what_is_not_wanted_is_not_sent() -> None:
    """But its macros, before the next event: a Milter may use them until the end."""
    one = opened(steps=Steps.NO_HELO | Steps.NO_REPLY_RCPT | Steps.NO_HEADERS)
    assert one.event(Command.HELO, b"x\0", b"j\0y\0") == b""
    assert not one.awaiting
    noted = wire("D", b"Hj\0y\0")
    assert one.event(Command.RCPT, b"<a@b>\0") == noted + wire("R", b"<a@b>\0")
    assert not one.awaiting
    assert one.event(Command.HEADER, b"a\0b\0", b"i\0y\0") == one.noted() == b""


def test_macros_that_wait_are_told_before_another_process_goes_on() -> None:
    one = opened(steps=Steps.NO_MAIL | Steps.NO_DATA)
    for value in (b"i\0a\0", b"i\0b\0"):
        one.event(Command.MAIL, b"<>\0", value)
    one.event(Command.DATA, b"", b"i\0c\0")
    assert one.noted() == wire("D", b"Mi\0b\0") + wire("D", b"Ti\0c\0")
    assert one.noted() == b""


@pytest.mark.parametrize(
    ("version", "data", "unknown"), [(2, False, False), (3, False, True), (4, True, True)]
)
def test_old_versions_know_less(version: int, data: bool, unknown: bool) -> None:
    one = opened(version=version)
    assert one.wants(Command.DATA) is data
    assert one.wants(Command.UNKNOWN) is unknown


@pytest.mark.parametrize("code", ["a", "r", "t", "4"])
def test_a_decision_at_helo_is_about_the_session(code: str) -> None:
    one = opened()
    one.event(Command.HELO, b"x\0")
    decision = answer(one, wire(code))
    assert isinstance(decision, Decision)
    assert (decision is PASS) == (code == "a")
    assert one.event(Command.MAIL, b"<>\0") == b""
    assert one.standing == (decision if code in "rt" else PASS)


def test_a_decision_at_mail_is_about_the_message() -> None:
    one = opened()
    one.event(Command.MAIL, b"<>\0")
    assert answer(one, wire("a")) is PASS
    assert one.event(Command.RCPT, b"<a@b>\0") == b""
    assert one.event(Command.MAIL, b"<>\0") == wire("M", b"<>\0")


def test_a_refused_recipient_is_alone() -> None:
    one = opened()
    one.event(Command.RCPT, b"<a@b>\0")
    decision = answer(one, wire("y", b"450 4.1.1 grey\0"))
    assert decision == Decision(Act.REFUSE, Reply(450, "4.1.1", "grey"))
    assert one.event(Command.RCPT, b"<c@d>\0")


def test_reply_421_disconnects() -> None:
    one = opened()
    one.event(Command.MAIL, b"<>\0")
    decision = answer(one, wire("y", b"421 4.7.0 go\0"))
    assert isinstance(decision, Decision)
    assert decision.act is Act.DISCONNECT


def test_changes_come_before_the_decision() -> None:
    one = opened(edits=Edits.ADD_HEADERS)
    one.event(Command.END_OF_BODY)
    assert answer(one, wire("p") + wire("h", b"X\0y\0") + wire("c")) == Progress()
    assert one.next_answer() == AddHeader(b"X", b"y")
    assert one.awaiting
    assert one.next_answer() is PASS
    assert not one.awaiting


def test_skip_is_for_one_kind_of_event_and_for_one_message() -> None:
    one = opened()
    one.event(Command.BODY, b"x")
    assert answer(one, wire("s")) is PASS
    assert one.event(Command.BODY, b"y") == b""
    assert one.event(Command.END_OF_BODY) == wire("E")
    assert answer(one, wire("c")) is PASS
    one.event(Command.MAIL, b"<>\0")
    assert answer(one, wire("c")) is PASS
    assert one.event(Command.BODY, b"x")


LIES = [
    ("answer to nothing", None, b"c", Edits(0)),
    ("change at HELO", Command.HELO, b"h", Edits.ADD_HEADERS),
    ("change not negotiated", Command.END_OF_BODY, b"h", Edits.CHANGE_BODY),
    ("failure at HELO", Command.HELO, b"f", Edits(0)),
]


@pytest.mark.parametrize(
    ("event", "code", "edits"), [x[1:] for x in LIES], ids=[x[0] for x in LIES]
)
def test_lies(event: Command | None, code: bytes, edits: Edits) -> None:
    one = opened(edits=edits)
    if event is not None:
        one.event(event)
    with pytest.raises(MilterError):
        answer(one, wire(code.decode(), b"X\0y\0" if code == b"h" else b""))


@pytest.mark.parametrize(
    ("version", "edits", "text"),
    [
        (7, 0, "protocol version 7 conflict with MTA protocol version 6"),
        (0, 0, "protocol version 0 conflict with MTA protocol version 6"),
        (6, 0x200, "request mask 0x200 conflict with MTA request mask 0x1ff"),
    ],
)
def test_more_than_was_offered(version: int, edits: int, text: str) -> None:
    one = Conversation()
    one.receive_data(wire("O", struct.pack(">III", version, edits, 0)))
    with pytest.raises(MilterError) as error:
        one.accept_negotiation()
    assert str(error.value) == text


def test_steps_that_were_not_offered_do_nothing() -> None:
    one = opened(steps=Steps(0x80000000 | int(Steps.NO_HELO)))
    assert one.negotiated.steps == Steps.NO_HELO


def test_another_process_goes_on() -> None:
    macros = struct.pack(">I", Stage.END_OF_MESSAGE) + b"i\0"
    one = opened(edits=Edits.CHANGE_BODY, steps=Steps.NO_HEADERS, macros=macros)
    other = Conversation.resumed(one.snapshot())
    assert other.negotiated == one.negotiated
    assert other.macros(Stage.END_OF_MESSAGE, "x") == "i"
    assert other.macros(Stage.RCPT, "x") == "x"
    one.event(Command.RCPT, b"<a@b>\0")
    answer(one, wire("d"))
    assert not Conversation.resumed(one.snapshot()).wants(Command.END_OF_BODY)


@given(
    st.lists(
        st.tuples(st.sampled_from("acdfprst4yhimb+-2eqO\0"), st.binary(max_size=12)), max_size=6
    )
)
def test_whatever_a_milter_says(said: list[tuple[str, bytes]]) -> None:
    one = opened(edits=Edits(0x1FF))
    for event in (Command.CONNECT, Command.MAIL, Command.RCPT, Command.BODY, Command.END_OF_BODY):
        one.event(event)
        try:
            for name, data in said:
                one.receive_data(wire(name, data))
            while one.awaiting and one.next_answer() is not None:
                pass
        except MilterError:
            return


def test_to_go_on_is_taken_at_once() -> None:
    one = opened()
    go_on = wire("c")
    assert not one.continued(go_on)  # nothing is awaited
    one.event(Command.MAIL, b"<>\0")
    assert not one.continued(wire("a"))
    assert one.continued(go_on)
    assert one.clean
    one.event(Command.RCPT, b"<>\0")
    one.receive_data(go_on[:2])
    assert not one.continued(go_on)
