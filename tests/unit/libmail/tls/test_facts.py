"""The wording of log lines and of the Received header."""

from __future__ import annotations

import pytest

from libmail.tls.facts import Agreed, Algorithm, Refusal, Trust

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
