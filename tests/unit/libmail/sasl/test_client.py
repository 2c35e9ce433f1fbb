"""The client's end: which mechanism, what it says, and against our own server's end."""

from __future__ import annotations

import asyncio
import base64

import pytest

from libmail.sasl.client import Credentials, Dialogue, SaslClientError, choose, make_client
from libmail.sasl.mechanism import parse_security_options
from libmail.sasl.passwords import PasswordChecker
from libmail.sasl.scram import derive
from libmail.sasl.server import AuthContext, Challenge, Step, Success
from libmail.sasl.table import TableServer

US = Credentials("anna", "geheim")
TOKEN = Credentials("a@b", "tok", host="h", port=587)


@pytest.mark.parametrize(
    ("offered", "options", "token", "want"),
    [
        ("PLAIN LOGIN", "noanonymous", False, "PLAIN"),
        ("login", "noanonymous", False, "LOGIN"),
        ("PLAIN CRAM-MD5 SCRAM-SHA-1", "", False, "SCRAM-SHA-1"),
        ("PLAIN LOGIN", "noplaintext", False, ""),
        ("PLAIN XOAUTH2", "", True, "XOAUTH2"),
        ("PLAIN LOGIN", "", True, "PLAIN"),
        ("PLAIN XOAUTH2 GSSAPI", "", False, "PLAIN"),
        ("GSSAPI", "", False, ""),
    ],
)
def test_choice(offered: str, options: str, token: bool, want: str) -> None:
    parsed = parse_security_options(options.split())
    assert choose(offered.split(), parsed, token=token) == want


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


def text(line: bytes) -> str:
    return line.decode()


def challenge(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_lines() -> None:
    dialogue = Dialogue("PLAIN", US)
    assert dialogue.command() == b"AUTH PLAIN AGFubmEAZ2VoZWlt\r\n"
    dialogue.finish()
    dialogue = Dialogue("LOGIN", US)
    assert dialogue.command() == b"AUTH LOGIN\r\n"
    assert [dialogue.answer("VXNlcm5hbWU6 "), dialogue.answer("")] == [
        b"YW5uYQ==\r\n",
        b"Z2VoZWlt\r\n",
    ]
    dialogue = Dialogue("XOAUTH2", TOKEN)
    dialogue.command()
    assert dialogue.answer(challenge(b"{}")) == b"\r\n"


def test_a_long_response_follows_the_command() -> None:
    """RFC 4954 §4."""
    dialogue = Dialogue("XOAUTH2", Credentials("a@b", "t" * 400))
    assert dialogue.command() == b"AUTH XOAUTH2\r\n"
    assert len(dialogue.answer("")) > 512


@pytest.mark.parametrize("line", ["***", "YQ", "Y Q==", "é", "YQ==\0"])
def test_malformed_challenge(line: str) -> None:
    dialogue = Dialogue("LOGIN", US)
    dialogue.command()
    with pytest.raises(SaslClientError, match="malformed challenge"):
        dialogue.answer(line)


def test_a_server_cannot_ask_for_ever() -> None:
    dialogue = Dialogue("XOAUTH2", TOKEN)
    dialogue.command()
    for _ in range(10):
        dialogue.answer(challenge(b"{}"))
    with pytest.raises(SaslClientError, match="too many"):
        dialogue.answer(challenge(b"{}"))


@pytest.mark.parametrize("user", ["", " "])
def test_nobody(user: str) -> None:
    with pytest.raises(SaslClientError, match="All-whitespace username"):
        Dialogue("PLAIN", Credentials(user, "x"))


def test_what_is_hidden() -> None:
    dialogue = Dialogue("PLAIN", US)
    said = f"535 who is {text(dialogue.command())[11:-2]} with geheim?"
    assert dialogue.masked(said) == "535 who is <masked> with <masked>?"
    short = Dialogue("LOGIN", Credentials("x", "5"))
    assert short.masked("535 5.7.8") == "535 5.7.8"


def test_channel_binding_is_preferred() -> None:
    offered = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]
    options = parse_security_options(())
    assert choose(offered, options, token=False) == "SCRAM-SHA-256"
    assert choose(offered, options, token=False, bound=True) == "SCRAM-SHA-256-PLUS"


@pytest.mark.parametrize(
    ("mechanism", "bindings", "plus", "flag"),
    [
        ("SCRAM-SHA-256", {}, False, b"n,,"),
        ("SCRAM-SHA-256", {}, True, b"n,,"),
        ("SCRAM-SHA-256", {"tls-exporter": b"x"}, True, b"n,,"),
        ("SCRAM-SHA-256", {"tls-exporter": b"x"}, False, b"y,,"),
        ("SCRAM-SHA-256-PLUS", {"tls-server-end-point": b"x"}, True, b"p=tls-server-end-point,,"),
        (
            "SCRAM-SHA-256-PLUS",
            {"tls-server-end-point": b"x", "tls-exporter": b"y"},
            True,
            b"p=tls-exporter,,",
        ),
    ],
)
def test_what_is_said_of_channel_binding(
    mechanism: str, bindings: dict[str, bytes], plus: bool, flag: bytes
) -> None:
    credentials = Credentials("anna", "geheim", bindings=bindings, plus=plus)
    first = make_client(mechanism, credentials).initial()
    assert first is not None
    assert first.startswith(flag + b"n=anna,r=")


def test_external() -> None:
    options = parse_security_options(("noanonymous",))
    offered = ["PLAIN", "EXTERNAL"]
    assert choose(offered, options, token=False) == "PLAIN"
    assert choose(offered, options, token=False, external=True) == "EXTERNAL"
    dialogue = Dialogue("EXTERNAL", Credentials("anna", ""))
    assert dialogue.command() == b"AUTH EXTERNAL =\r\n"
    assert dialogue.answer("") == b"\r\n"
    assert Dialogue("EXTERNAL", Credentials("anna", "", authzid="a")).command() == (
        b"AUTH EXTERNAL YQ==\r\n"
    )
