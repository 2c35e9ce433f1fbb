"""The client's end: which mechanism, what it says, and against our own server's end."""

from __future__ import annotations

import asyncio

import pytest

from libmail.sasl.client import Credentials, SaslClientError, choose, make_client
from libmail.sasl.mechanism import parse_security_options
from libmail.sasl.passwords import PasswordChecker
from libmail.sasl.scram import derive
from libmail.sasl.server import AuthContext, Challenge, Step, Success
from libmail.sasl.table import TableServer

US = Credentials("anna", "geheim")
TOKEN = Credentials("a@b", "tok", token=True, host="h", port=587)


@pytest.mark.parametrize(
    ("offered", "options", "token", "want"),
    [
        ("PLAIN LOGIN", "noanonymous", False, "PLAIN"),
        ("login", "noanonymous", False, "LOGIN"),
        ("PLAIN CRAM-MD5 SCRAM-SHA-1", "", False, "SCRAM-SHA-1"),
        ("PLAIN LOGIN", "noplaintext", False, ""),
        ("PLAIN XOAUTH2", "", True, "XOAUTH2"),
        ("PLAIN XOAUTH2 GSSAPI", "", False, "PLAIN"),
        ("GSSAPI", "", False, ""),
    ],
)
def test_choice(offered: str, options: str, token: bool, want: str) -> None:
    parsed = parse_security_options(options.split())
    assert choose(offered.split(), lambda name: True, parsed, token=token) == want


def test_the_filter_counts() -> None:
    anything = parse_security_options(())
    assert (
        choose(["PLAIN", "LOGIN"], lambda name: name == "LOGIN", anything, token=False) == "LOGIN"
    )


def test_plain() -> None:
    client = make_client("PLAIN", US)
    assert client.initial() == client.respond(b"") == b"\0anna\0geheim"
    with pytest.raises(SaslClientError):
        client.respond(b"what?")


def test_login() -> None:
    client = make_client("LOGIN", US)
    assert client.initial() is None
    assert [client.respond(b"User Name\0"), client.respond(b"x")] == [b"anna", b"geheim"]
    with pytest.raises(SaslClientError):
        client.respond(b"again")


def test_cram_md5() -> None:
    """RFC 2195 §2."""
    client = make_client("CRAM-MD5", Credentials("tim", "tanstaaftanstaaf"))
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert client.respond(challenge) == b"tim b913a602c7eda7a495b4e6e7334d3890"
    with pytest.raises(SaslClientError):
        client.respond(b"")


def test_tokens() -> None:
    client = make_client("XOAUTH2", TOKEN)
    assert client.initial() == b"user=a@b\1auth=Bearer tok\1\1"
    assert client.respond(b'{"status":"400"}') == b""
    client = make_client("OAUTHBEARER", TOKEN)
    assert client.initial() == b"n,a=a@b,\1host=h\1port=587\1auth=Bearer tok\1\1"
    assert client.respond(b'{"status":"invalid_token"}') == b"\1"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("initial", [True, False])
def test_against_our_server(mechanism: str, initial: bool) -> None:
    entry = derive("geheim", iterations=4096).text()

    async def find(login: str) -> str | None:
        return entry if login == "anna" else None

    async def run() -> Step:
        server = TableServer(find, PasswordChecker(), lambda text: None)
        client = make_client(mechanism, US)
        first = client.initial()
        context = AuthContext("smtp", "", "", "", "")
        exchange, step = await server.begin(mechanism, first if initial else None, context)
        while isinstance(step, Challenge):
            step = await exchange.step(client.respond(step.data))
        client.finish()
        return step

    assert asyncio.run(run()) == Success("anna")


def test_a_server_that_skips_its_proof() -> None:
    client = make_client("SCRAM-SHA-256", US)
    client.initial()
    with pytest.raises(SaslClientError, match="prove"):
        client.finish()


def test_nul_in_a_password() -> None:
    with pytest.raises(SaslClientError):
        make_client("PLAIN", Credentials("a", "b\0c"))
