"""What a peer has said, in log lines."""

from libmail.text.escapes import escaped, escaped_octets


def test_octets() -> None:
    assert (
        escaped_octets(b"a \\\x07\x1b\r\n\x7f\xc3\xbc\x80~") == r"a \\\a\033\r\n\177\303\274\200~"
    )


def test_text() -> None:
    assert escaped("ü \\\0\t") == r"ü \\\000\t"
