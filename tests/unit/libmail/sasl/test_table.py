"""The credential table as an authentication server: each mechanism, and what fails how."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from libmail.sasl.passwords import PasswordChecker
from libmail.sasl.scram import ScramClient, derive
from libmail.sasl.server import AuthContext, Challenge, Failure, Step, Success
from libmail.sasl.table import TableServer, may_scram

TABLE = {"anna@x": derive("geheim", iterations=4096).text(), "old": "nonsense"}
CONTEXT = AuthContext("smtp", "192.0.2.1", "", "", "")


def wrong(login: str) -> Failure:
    return Failure("authentication failure", username=login)


async def find(login: str) -> str | None:
    if login == "down":
        raise OSError(0, "table is down")
    return TABLE.get(login)


def steps(mechanism: str, responses: Sequence[bytes], *, initial: bool = True) -> list[Step]:
    async def run() -> list[Step]:
        server = TableServer(find, PasswordChecker(), lambda text: None)
        todo = list(responses)
        exchange, step = await server.begin(mechanism, todo.pop(0) if initial else None, CONTEXT)
        out = [step]
        for response in todo:
            out.append(await exchange.step(response))
        return out

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("response", "want"),
    [
        (b"\0anna@x\0geheim", Success("anna@x")),
        (b"anna@x\0anna@x\0geheim", Success("anna@x")),
        (b"\0anna@x\0falsch", wrong("anna@x")),
        (b"\0nobody\0geheim", wrong("nobody")),
        (b"\0\xff\0geheim", Failure("malformed response")),
        (b"other\0anna@x\0geheim", Failure("acting for another user is not supported")),
        (b"anna@x", Failure("malformed response")),
        (b"\0\0", Failure("malformed response")),
        (b"\0down\0geheim", Failure("credential table error", temporary=True)),
        (b"\0old\0geheim", Failure("credential table error", temporary=True)),
    ],
)
def test_plain(response: bytes, want: Step) -> None:
    assert steps("PLAIN", [response]) == [want]
    assert steps("PLAIN", [response], initial=False) == [Challenge(b""), want]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize(
    ("user", "want"),
    [("anna", Success("anna@x")), ("anna@x", Success("anna@x")), ("anna@y", wrong("anna@y")),
     ("bert", wrong("bert"))],
)  # fmt: skip
def test_realm(mechanism: str, user: str, want: Step) -> None:
    async def run() -> Step:
        server = TableServer(find, PasswordChecker(), lambda text: None, "x")
        if mechanism == "PLAIN":
            return (await server.begin("PLAIN", f"\0{user}\0geheim".encode(), CONTEXT))[1]
        client = ScramClient(mechanism, user, "geheim")
        exchange, step = await server.begin(mechanism, client.first(), CONTEXT)
        assert isinstance(step, Challenge)
        step = await exchange.step(client.final(step.data))
        return await exchange.step(b"") if isinstance(step, Challenge) else step

    assert asyncio.run(run()) == want


def test_login() -> None:
    assert steps("LOGIN", [b"anna@x", b"geheim"], initial=False) == [
        Challenge(b"Username:"),
        Challenge(b"Password:"),
        Success("anna@x"),
    ]
    assert steps("LOGIN", [b"anna@x", b""]) == [
        Challenge(b"Password:"),
        wrong("anna@x"),
    ]
    assert steps("LOGIN", [b""]) == [Failure("malformed response")]


@pytest.mark.parametrize(
    ("user", "password", "want"),
    [
        ("anna@x", "geheim", Success("anna@x")),
        ("anna@x", "falsch", wrong("anna@x")),
        ("nobody", "geheim", wrong("nobody")),
        ("old", "geheim", wrong("old")),
    ],
)
def test_scram(user: str, password: str, want: Step) -> None:
    async def run() -> Step:
        server = TableServer(find, PasswordChecker(), lambda text: None)
        client = ScramClient("SCRAM-SHA-256", user, password)
        exchange, step = await server.begin("SCRAM-SHA-256", client.first(), CONTEXT)
        assert isinstance(step, Challenge)
        step = await exchange.step(client.final(step.data))
        if isinstance(step, Challenge):
            client.verify(step.data)
            step = await exchange.step(b"")
        return step

    assert asyncio.run(run()) == want


def test_scram_nonsense() -> None:
    (step,) = steps("SCRAM-SHA-256", [b"x"])
    assert step == Failure("malformed first message")
    (step,) = steps("CRAM-MD5", [b"x"])
    assert step == Failure("mechanism not available")


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([], True),
        (["$6$salt$hash"], False),
        (["$6$salt$hash", TABLE["anna@x"]], True),
        (["{SCRAM-SHA-256}nonsense"], False),
    ],
)
def test_scram_is_offered_where_somebody_can_use_it(values: list[str], want: bool) -> None:
    assert may_scram(values) == want
    server = TableServer(find, PasswordChecker(), lambda text: None, scram=may_scram(values))
    names = [one.name for one in asyncio.run(server.mechanisms())]
    assert names == ["PLAIN", "LOGIN"] + ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"] * want
