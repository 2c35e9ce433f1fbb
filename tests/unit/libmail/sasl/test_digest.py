"""DIGEST-MD5: the example of the RFC, and what is refused."""

from __future__ import annotations

import pytest

from libmail.sasl.client import Credentials, Dialogue, SaslClientError
from libmail.sasl.digest import DigestClient, DigestError

# RFC 2831 §4
CHALLENGE = (
    b'realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",qop="auth",'
    b"algorithm=md5-sess,charset=utf-8"
)
RESPONSE = (
    b'charset=utf-8,username="chris",realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",'
    b'nc=00000001,cnonce="OA6MHXh6VqTrRk",digest-uri="imap/elwood.innosoft.com",'
    b"response=d388dad90d4bbd760a152321f2143af7,qop=auth"
)
PROOF = b"rspauth=ea40f60335c427b5527b84dbabcdfffd"


def client(user: str = "chris", password: str = "secret") -> DigestClient:
    return DigestClient(user, password, "imap/elwood.innosoft.com", cnonce="OA6MHXh6VqTrRk")


def test_example() -> None:
    one = client()
    assert one.respond(CHALLENGE) == RESPONSE
    one.verify(PROOF)


@pytest.mark.parametrize("last", [b"", b"rspauth=", b"rspauth=\xff", PROOF[:-1] + b"e"])
def test_a_server_that_does_not_know_the_password(last: bytes) -> None:
    one = client()
    with pytest.raises(DigestError, match="did not prove"):
        one.verify(PROOF)
    one.respond(CHALLENGE)
    with pytest.raises(DigestError, match="did not prove"):
        one.verify(last)


@pytest.mark.parametrize(
    ("challenge", "text"),
    [
        (b"", "unusable"),
        (b",,", "unusable"),
        (CHALLENGE.replace(b"nonce", b"n"), "unusable"),
        (CHALLENGE.replace(b"md5-sess", b"md5"), "unusable"),
        (CHALLENGE.replace(b'"auth"', b'"auth-conf"'), "unusable"),
        (b"x" * 3000, "too long"),
        (b"nonce", "malformed"),
        (b'nonce="a', "malformed"),
        (b'nonce="a" qop="auth"', "malformed"),
        (b"\0", "malformed"),
    ],
)
def test_challenges(challenge: bytes, text: str) -> None:
    with pytest.raises(DigestError, match=text):
        client().respond(challenge)


def test_words() -> None:
    """Quotes, several qualities, no realm; what does not fit into the server's characters."""
    said = client('a"b\\').respond(b'nonce="x\\"y" , qop="auth-int, auth",algorithm=md5-sess')
    assert said.startswith(b'username="a\\"b\\\\",nonce="x\\"y",nc=00000001,')
    assert b"realm" not in said
    with pytest.raises(DigestError, match="cannot understand"):
        client("\u0416").respond(b'nonce="x",algorithm=md5-sess')
    assert "\u0416".encode() in client("\u0416").respond(CHALLENGE)


def test_no_login_without_proof() -> None:
    import base64

    dialogue = Dialogue("DIGEST-MD5", Credentials("chris", "secret", "mx.test"))
    assert dialogue.command() == b"AUTH DIGEST-MD5\r\n"
    said = base64.b64decode(dialogue.answer(base64.b64encode(CHALLENGE).decode()))
    assert b'digest-uri="smtp/mx.test"' in said
    with pytest.raises(SaslClientError, match="did not prove"):
        dialogue.finish()
    with pytest.raises(SaslClientError, match="did not prove"):
        dialogue.answer(base64.b64encode(PROOF).decode())
