"""Dovecot's authentication protocol: requests, answers, what is no answer, at any chunking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.sasl.dovecot import Answer, DovecotCore, DovecotError, Ready
from libmail.sasl.mechanism import Mechanism, Property
from libmail.sasl.server import AuthContext, Challenge, Failure, Success

GREETING = (
    b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tCRAM-MD5\tdictionary\tactive\n"
    b"SPID\t7\nCUID\t1\nCOOKIE\t00ff\nDONE\n"
)
CONTEXT = AuthContext("smtp", "192.0.2.1", "1025", "192.0.2.2", "587", encrypted=True)


def events(core: DovecotCore, data: bytes) -> list[object]:
    core.receive_data(data)
    out: list[object] = []
    while (event := core.next_event()) is not None:
        out.append(event)
    return out


def ready() -> DovecotCore:
    core = DovecotCore()
    events(core, GREETING)
    return core


def test_greeting_at_any_chunking() -> None:
    want = [
        Ready(
            (
                Mechanism("PLAIN", Property.PLAINTEXT),
                Mechanism("CRAM-MD5", Property.DICTIONARY | Property.ACTIVE),
            )
        )
    ]
    for at in range(len(GREETING)):
        core = DovecotCore()
        assert events(core, GREETING[:at]) + events(core, GREETING[at:]) == want


def test_requests() -> None:
    core = ready()
    assert core.greeting(12) == b"VERSION\t1\t1\nCPID\t12\n"
    assert core.auth("PLAIN", b"\0a\0b", CONTEXT) == (
        1,
        b"AUTH\t1\tPLAIN\tservice=smtp\tnologin\tlip=192.0.2.2\trip=192.0.2.1\tlport=587\t"
        b"rport=1025\tsecured\tresp=AGEAYg==\n",
    )
    number, data = core.auth("LOGIN", None, AuthContext("s\tm", "", "", "", ""))
    assert (number, data) == (2, b"AUTH\t2\tLOGIN\tservice=s\1tm\tnologin\n")
    _, data = core.auth("PLAIN", b"", AuthContext("smtp", "", "", "", ""))
    assert data.endswith(b"\tresp==\n")  # an empty response is not none
    assert core.cont(2, b"x") == b"CONT\t2\teA==\n"
    assert core.cancel(2) == b"CANCEL\t2\n"


@pytest.mark.parametrize(
    ("line", "step"),
    [
        (b"CONT\t1\teA==", Challenge(b"x")),
        (b"CONT\t1\t", Challenge(b"")),
        (b"OK\t1\tuser=a@b\tresp=", Success("a@b")),
        (b"OK\t1\tuser=a\1tb", Success("a\tb")),
        (b"FAIL\t1\tuser=a\treason=no such", Failure("no such", username="a")),
        (b"FAIL\t1\ttemp", Failure("", temporary=True)),
    ],
)
def test_answers(line: bytes, step: object) -> None:
    assert events(ready(), line + b"\n") == [Answer(1, step)]  # type: ignore[arg-type]


def test_what_a_newer_version_says_is_passed_over() -> None:
    assert events(ready(), b"NEWS\t1\nOK\t2\tuser=a\n") == [Answer(2, Success("a"))]


@pytest.mark.parametrize(
    "data",
    [b"CONT\n", b"CONT\tx\tz\n", b"CONT\t1\t!\n", b"OK\t1\n", b"FAIL\t99999999999\n", b"x" * 70000],
)
def test_broken(data: bytes) -> None:
    core = ready()
    with pytest.raises(DovecotError):
        events(core, data)


@pytest.mark.parametrize(
    "data", [b"VERSION\t2\t0\n", b"VERSION\n", b"DONE\n", b"MECH\n", b"MECH\tplain\n"]
)
def test_broken_greeting(data: bytes) -> None:
    with pytest.raises(DovecotError):
        events(DovecotCore(), data)


@given(st.binary(max_size=200))
def test_anything_gives_events_or_the_error(data: bytes) -> None:
    core = ready()
    try:
        events(core, data + b"\n")
    except DovecotError as error:
        text = str(error)
        if not text.isprintable():
            raise AssertionError(text) from None
