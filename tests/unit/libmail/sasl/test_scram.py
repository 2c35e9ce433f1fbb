"""SCRAM: the examples of the RFCs, both ends against each other, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.sasl.prepare import prepare
from libmail.sasl.scram import (
    ScramClient,
    ScramError,
    ScramServer,
    derive,
    parse_secret,
)

# RFC 5802 §5 and RFC 7677 §3
EXAMPLES = [
    (
        "SCRAM-SHA-1",
        "fyko+d2lbbFgONRv9qkxdawL",
        "3rfcNHYJY1ZVvWVs7j",
        b"QSXCR+Q6sek8bf92",
        b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    (
        "SCRAM-SHA-256",
        "rOprNGfwEbeRWgbNEkqO",
        "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        b"W22ZaJ0SNY7soEsUEjb6gQ==",
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
]


@pytest.mark.parametrize(("mechanism", "ours", "theirs", "salt", "final", "last"), EXAMPLES)
def test_examples(
    mechanism: str, ours: str, theirs: str, salt: bytes, final: bytes, last: bytes
) -> None:
    import base64

    secret = derive("pencil", mechanism, salt=base64.b64decode(salt), iterations=4096)
    client = ScramClient(mechanism, "user", "pencil", nonce=ours)
    server = ScramServer(mechanism, theirs)
    assert server.client_first(client.first()) == ("user", "")
    challenge = server.challenge(secret)
    assert challenge == f"r={ours}{theirs},s={salt.decode()},i=4096".encode()
    assert client.final(challenge) == final
    assert server.final(final) == last
    client.verify(last)


def test_secrets_are_text() -> None:
    secret = derive("geheim", iterations=4096)
    assert parse_secret(secret.text()) == secret
    assert secret.matches("geheim")
    assert not secret.matches("Geheim")
    for text in ("", "{SCRAM-SHA-256}1,a,b,c", "{SCRAM-SHA-256}4096,!,b,c", "$6$x"):
        assert parse_secret(text) is None


@pytest.mark.parametrize("exists", [True, False])
def test_wrong_password_and_unknown_user_look_alike(exists: bool) -> None:
    client = ScramClient("SCRAM-SHA-256", "a", "wrong")
    server = ScramServer("SCRAM-SHA-256")
    server.client_first(client.first())
    challenge = server.challenge(derive("right") if exists else None)
    assert challenge.endswith(b",i=10000")
    assert server.final(client.final(challenge)) is None


def test_the_salt_of_nobody_stays_the_same() -> None:
    def salt() -> bytes:
        server = ScramServer("SCRAM-SHA-256")
        server.client_first(b"n,,n=nobody,r=x")
        return server.challenge(None).partition(b",s=")[2]

    assert salt() == salt()


def test_channel_binding() -> None:
    server = ScramServer("SCRAM-SHA-256", bindings={"tls-exporter": b"data"})
    with pytest.raises(ScramError):
        server.client_first(b"n,,n=user,r=x")
    with pytest.raises(ScramError):
        server.client_first(b"p=tls-unique,,n=user,r=x")
    assert server.client_first(b"p=tls-exporter,,n=user,r=x") == ("user", "")
    server.challenge(derive("x"))
    with pytest.raises(ScramError, match="binding"):
        server.final(b"c=biws,r=x,p=AA==")


@pytest.mark.parametrize(
    "message",
    [b"", b"n,,n=user", b"x,,n=user,r=x", b"n,,n=us=er,r=x", b"n,,m=1,n=user,r=x", b"\xff",
     b"n,,n=u\0,r=x",
     b"n,,n=user,r=" + b"x" * 5000],
)  # fmt: skip
def test_malformed_first_messages(message: bytes) -> None:
    with pytest.raises(ScramError):
        ScramServer("SCRAM-SHA-1").client_first(message)


@pytest.mark.parametrize(
    "challenge",
    [b"", b"r=other,s=QQ==,i=4096", b"r=cn,s=QQ==,i=4096", b"r=cnx,s=QQ==,i=1",
     b"r=cnx,s=QQ==,i=999999999", b"r=cnx,s=!,i=4096", b"m=x,r=cnx,s=QQ==,i=4096"],
)  # fmt: skip
def test_malformed_challenges(challenge: bytes) -> None:
    with pytest.raises(ScramError):
        ScramClient("SCRAM-SHA-1", "u", "p", nonce="cn").final(challenge)


def test_a_server_that_does_not_know_the_password() -> None:
    client = ScramClient("SCRAM-SHA-1", "u", "p", nonce="cn")
    client.final(b"r=cnx,s=QQ==,i=4096")
    for message in (b"e=no", b"v=QQ==", b"v=!"):
        with pytest.raises(ScramError):
            client.verify(message)


@given(st.text("abc=,\u00e9", min_size=1, max_size=8), st.text(min_size=1, max_size=8))
def test_both_ends_understand_each_other(user: str, password: str) -> None:
    try:
        secret = derive(password, iterations=4096)
    except ValueError:
        return
    client = ScramClient("SCRAM-SHA-256", user, password)
    server = ScramServer("SCRAM-SHA-256")
    assert server.client_first(client.first())[0] == prepare(user)
    last = server.final(client.final(server.challenge(secret)))
    assert last is not None
    client.verify(last)


@pytest.mark.parametrize(
    ("text", "want"),
    [("I\u00adX", "IX"), ("user", "user"), ("\u00aa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")],
)
def test_prepare(text: str, want: str) -> None:
    """RFC 4013 §3."""
    assert prepare(text) == want


@pytest.mark.parametrize("text", ["\u0007", "\u06271", "\ue000"])
def test_prepare_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="name or password"):
        prepare(text)


BINDINGS = {"tls-exporter": b"x" * 32, "tls-server-end-point": b"y" * 32}


def bound(
    binding: tuple[str, bytes] | None,
    *,
    hidden: bool = False,
    plus: bool = True,
    chosen: bool = True,
) -> bool:
    """Whether a login succeeds. plus: announced; chosen: by the client. Raises ScramError."""
    client = ScramClient("SCRAM-SHA-256", "user", "geheim", binding=binding, hidden=hidden)
    server = ScramServer("SCRAM-SHA-256", bindings=BINDINGS if chosen else None, plus=plus)
    server.client_first(client.first())
    last = server.final(client.final(server.challenge(derive("geheim", iterations=4096))))
    assert last is not None
    client.verify(last)
    return True


@pytest.mark.parametrize("name", BINDINGS)
def test_each_channel_binding(name: str) -> None:
    assert bound((name, BINDINGS[name]))
    with pytest.raises(ScramError, match="channel binding does not match"):
        bound((name, b"z" * 32))


def test_channel_binding_is_not_given_up() -> None:
    """A client that can bind is told by somebody in between that the server cannot."""
    assert bound(None, hidden=True, plus=False, chosen=False)
    assert bound(None, plus=True, chosen=False)
    with pytest.raises(ScramError, match="channel binding was announced"):
        bound(None, hidden=True, chosen=False)
    for binding in (None, ("tls-unique", b"x")):
        with pytest.raises(ScramError, match="unsupported channel binding"):
            bound(binding)
    with pytest.raises(ScramError, match="unsupported channel binding"):
        bound(("tls-exporter", b"x" * 32), chosen=False)
