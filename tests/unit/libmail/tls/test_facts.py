"""The wording of log lines and of the Received header."""

from __future__ import annotations

import pytest

from libmail.tls.errors import TlsConfigError
from libmail.tls.facts import Agreed, Algorithm, Refusal, Trust, client_comment
from libmail.tls.loglevel import LogLevel, parse_loglevel

RSA = Algorithm("RSA-PSS", "2048 bits", "SHA256")
EC = Algorithm("ECDSA", "prime256v1", "SHA256")
CIPHER = "TLS_AES_256_GCM_SHA384"


@pytest.mark.parametrize(
    ("agreed", "line"),
    [
        (
            Agreed("TLSv1.3", CIPHER, 256, 256, False, Algorithm("X25519"), RSA),
            "Anonymous TLS connection established from h[1]: TLSv1.3 with cipher"
            " TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519"
            " server-signature RSA-PSS (2048 bits) server-digest SHA256",
        ),
        (
            Agreed("TLSv1.3", CIPHER, 256, 256, True, Algorithm("ECDHE", "prime256v1")),
            "Anonymous TLS connection reused from h[1]: TLSv1.3 with cipher"
            " TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange ECDHE (prime256v1)",
        ),
        (
            Agreed("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", 256, 256, False),
            "Anonymous TLS connection established from h[1]: TLSv1.2 with cipher"
            " ECDHE-RSA-AES256-GCM-SHA384 (256/256 bits)",
        ),
        (
            Agreed("TLSv1.3", CIPHER, 256, 256, False, Algorithm("DHE", "2048 bits"), EC,
                   Algorithm("Ed25519")),
            "Anonymous TLS connection established from h[1]: TLSv1.3 with cipher"
            " TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange DHE (2048 bits)"
            " server-signature ECDSA (prime256v1) server-digest SHA256 client-signature Ed25519",
        ),
    ],
)  # fmt: skip
def test_line(agreed: Agreed, line: str) -> None:
    assert agreed.established(Trust.ANONYMOUS, "from", "h[1]") == line


def test_name_that_was_asked_for() -> None:
    agreed = Agreed("TLSv1.2", "X", 128, 256, False)
    assert agreed.established(Trust.VERIFIED, "from", "h[1]", "mx.example.com") == (
        "Verified TLS connection established from h[1] to mx.example.com:"
        " TLSv1.2 with cipher X (128/256 bits)"
    )


def test_received() -> None:
    exchange = Algorithm("X25519")
    assert Agreed("TLSv1.2", "X", 128, 256, False).received() == (
        "(using TLSv1.2 with cipher X (128/256 bits))"
    )
    assert Agreed("TLSv1.3", CIPHER, 256, 256, False, exchange, RSA, EC).received() == (
        "(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\n"
        "\t key-exchange X25519 server-signature RSA-PSS (2048 bits) server-digest SHA256\n"
        "\t client-signature ECDSA (prime256v1) client-digest SHA256)"
    )


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (18, "certificate verification failed for p: self-signed certificate"),
        (19, "certificate verification failed for p: self-signed certificate"),
        (20, "certificate verification failed for p: untrusted issuer /CN=x"),
        (10, "server certificate verification failed for p: certificate has expired"),
        (9, "server certificate verification failed for p: certificate not yet valid"),
        (26, "certificate verification failed for p:"
             " not designated for use as a server certificate"),
        (22, "certificate verification failed for p: certificate chain longer than limit(9)"),
        (27, "certificate verification failed for p: not trusted by local or TLSA policy"),
        (62, "server certificate verification failed for p: num=62:words"),
    ],
)  # fmt: skip
def test_refusal(code: int, line: str) -> None:
    assert Refusal(code, 0, "words", "/CN=x", 9).text("server", "p") == line


@pytest.mark.parametrize(
    ("trust", "asked", "comment"),
    [
        (Trust.ANONYMOUS, False, "(No client certificate requested)"),
        (Trust.ANONYMOUS, True, "(Client did not present a certificate)"),
        (Trust.TRUSTED, True, '(Client CN "a??.b", Issuer "c?d" (verified OK))'),
        (Trust.UNTRUSTED, True, '(Client CN "a??.b", Issuer "c?d" (not verified))'),
    ],
)
def test_client_comment(trust: Trust, asked: bool, comment: str) -> None:
    assert client_comment(trust, 'a")\x2eb', "c\nd", asked=asked) == comment


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("0", LogLevel(0)),
        ("1", LogLevel(1)),
        ("2,trace", LogLevel(2, True)),
        ("1 TRACE", LogLevel(1, True)),
        ("9", LogLevel(4)),
    ],
)
def test_loglevel(text: str, level: LogLevel) -> None:
    assert parse_loglevel(text, "smtpd_tls_loglevel") == level
    assert (level.summary, level.states) == (level.level > 0, level.level > 1)


@pytest.mark.parametrize("text", ["", "x", "1,x", "1 2", "-1", "9999"])
def test_loglevel_that_is_none(text: str) -> None:
    with pytest.raises(TlsConfigError, match="smtpd_tls_loglevel: bad TLS log level"):
        parse_loglevel(text, "smtpd_tls_loglevel")
