"""Which mechanisms are acceptable."""

from __future__ import annotations

import pytest

from libmail.sasl.mechanism import Mechanism, Property, parse_security_options


@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        ("", {"PLAIN", "CRAM-MD5", "ANONYMOUS", "SCRAM-SHA-256"}),
        ("noanonymous", {"PLAIN", "CRAM-MD5", "SCRAM-SHA-256"}),
        ("noanonymous NOPLAINTEXT", {"CRAM-MD5", "SCRAM-SHA-256"}),
        ("mutual_auth", {"SCRAM-SHA-256"}),
        ("noplaintext noactive nodictionary noanonymous", set()),
    ],
)
def test_options(options: str, accepted: set[str]) -> None:
    names = ("PLAIN", "CRAM-MD5", "ANONYMOUS", "SCRAM-SHA-256")
    parsed = parse_security_options(options.split())
    assert {name for name in names if parsed.accept(Mechanism.known(name))} == accepted


def test_private_mechanisms_are_not_offered() -> None:
    assert not parse_security_options(()).accept(Mechanism("X", Property.PRIVATE))


def test_unknown_option() -> None:
    with pytest.raises(ValueError, match="noplain"):
        parse_security_options(["noplain"])
