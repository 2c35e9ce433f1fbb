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
    assert one.awaited
    assert one.next_answer() is None
    assert answer(one, wire("c")) is PASS
    assert one.clean


def test_what_is_not_wanted_is_not_sent() -> None:
    """But its macros, before the next event: a Milter may use them until the end."""
    one = opened(steps=Steps.NO_HELO | Steps.NO_REPLY_RCPT | Steps.NO_HEADERS)
    assert one.event(Command.HELO, b"x\0", b"j\0y\0") == b""
    assert not one.awaited
    noted = wire("D", b"Hj\0y\0")
    assert one.event(Command.RCPT, b"<a@b>\0") == noted + wire("R", b"<a@b>\0")
    assert not one.awaited
    assert one.event(Command.HEADER, b"a\0b\0", b"i\0y\0") == one.unsent() == b""


def test_macros_that_wait_are_told_before_another_process_goes_on() -> None:
    one = opened(steps=Steps.NO_MAIL | Steps.NO_DATA)
    for value in (b"i\0a\0", b"i\0b\0"):
        one.event(Command.MAIL, b"<>\0", value)
    one.event(Command.DATA, b"", b"i\0c\0")
    assert one.unsent() == wire("D", b"Mi\0b\0") + wire("D", b"Ti\0c\0")
    assert one.unsent() == b""


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
    assert one.awaited
    assert one.next_answer() is PASS
    assert not one.awaited


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
    assert other.asked[Stage.END_OF_MESSAGE] == "i"
    assert Stage.RCPT not in other.asked
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
            while one.awaited and one.next_answer() is not None:
                pass
        except MilterError:
            return


def test_to_go_on_is_taken_at_once() -> None:
    one = opened()
    go_on = wire("c")
    assert one.continued(go_on) is None  # nothing is awaited
    one.event(Command.MAIL, b"<>\0")
    assert one.continued(wire("a")) is None
    assert one.continued(go_on) == b""
    assert one.clean
    one.event(Command.RCPT, b"<>\0")
    one.receive_data(go_on[:2])
    assert one.continued(go_on) is None


def test_what_is_lined_up_follows_answer_by_answer() -> None:
    one = opened(steps=Steps.NO_REPLY_END_OF_HEADER)
    event = Command.HEADER, b"a\0b\0", b"i\0Q\0"
    one.line_up([event, event, (Command.END_OF_HEADER, b"", None), (Command.BODY, b"b", None)])
    field = wire("D", b"Li\0Q\0") + wire("L", b"a\0b\0")
    assert one.proceed() == field
    assert one.proceed() == b""  # its answer is awaited
    assert one.continued(wire("c")) == field
    assert one.continued(wire("c")) == wire("N") + wire("B", b"b")
    assert one.latest is Command.BODY
    assert one.continued(wire("c")) == b""


def test_what_is_lined_up_without_answers_waits_for_the_next_event() -> None:
    one = opened(steps=Steps.NO_REPLY_BODY)
    one.line_up([(Command.END_OF_HEADER, b"", None), (Command.BODY, b"b", None)])
    assert one.proceed() == wire("N")
    assert one.continued(wire("c")) == b""
    assert one.event(Command.END_OF_BODY) == wire("B", b"b") + wire("E")
    assert one.continued(wire("c")) == b""
    one.line_up([(Command.BODY, b"b" * (1 << 16), None)])
    assert one.proceed() == wire("B", b"b" * (1 << 16))  # too large to wait
    assert one.awaited is None


@pytest.mark.parametrize("code", ["a", "d", "r", "t", "4"])
def test_of_what_is_lined_up_nothing_follows_a_decision(code: str) -> None:
    one = opened(steps=Steps.NO_REPLY_BODY)
    fields = [(Command.HEADER, b"a\0b\0", None)] * 2
    one.line_up([*fields, (Command.END_OF_HEADER, b"", None), (Command.BODY, b"b", None)])
    one.proceed()
    answer(one, wire(code))
    assert one.proceed() == b""
    assert not one.event(Command.END_OF_BODY)


def test_a_message_that_has_ended_is_told_with_what_comes_next() -> None:
    one = opened()
    assert one.abort(at_once=False) == b""
    assert one.event(Command.MAIL, b"<>\0") == wire("A") + wire("M", b"<>\0")
    one.continued(wire("c"))
    assert one.abort(at_once=False) == b""
    assert one.unsent() == wire("A")  # another process goes on
    assert one.abort(at_once=False) == b""
    assert one.abort() == wire("A") * 2
    assert one.abort(at_once=False) == b""
    assert one.quit() == wire("A") + wire("Q")
