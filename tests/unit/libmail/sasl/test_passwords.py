"""Entries of a credential table against passwords."""

from __future__ import annotations

import subprocess

import pytest

from libmail.sasl.passwords import PasswordChecker, hash_password


@pytest.fixture(scope="module")
def checker() -> PasswordChecker:
    return PasswordChecker()


def test_our_own(checker: PasswordChecker) -> None:
    stored = hash_password("geheim")
    assert stored.startswith("{SCRAM-SHA-256}")
    assert checker.matches(stored, "geheim")
    assert not checker.matches(stored, "geheim ")
    assert not checker.matches(stored, "\u0007")


@pytest.mark.parametrize("method", ["-6", "-5"])
def test_crypt(checker: PasswordChecker, method: str) -> None:
    made = subprocess.run(
        ["openssl", "passwd", method, "-salt", "saltsalt", "geheim"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert checker.matches(made, "geheim")
    assert checker.matches("{CRYPT}" + made, "geheim")
    assert not checker.matches(made, "geheim2")
    assert not checker.matches(made, "geheim\0")


@pytest.mark.parametrize(
    "stored", ["", "plain", "{PLAIN}x", "$nonsense$x", "$6\0$x", "$" + "x" * 5000]
)
def test_what_nobody_understands(checker: PasswordChecker, stored: str) -> None:
    with pytest.raises(ValueError, match="hash"):
        checker.matches(stored, "x")


@pytest.mark.parametrize("password", ["", "x" * 513])
def test_no_passwords(password: str) -> None:
    with pytest.raises(ValueError, match="octets"):
        hash_password(password)
