"""Protocols, ciphers, groups and options as main.cf writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.tls.errors import TlsConfigError
from libmail.tls.levels import Level, level_named
from libmail.tls.settings import (
    OPTIONS,
    WORKAROUNDS,
    CipherLists,
    Protocols,
    cipher_list,
    grade_groups,
    option_bits,
    parse_protocols,
)

NO_SSL3, NO_TLS1, NO_TLS11, NO_TLS12, NO_TLS13 = (1 << n for n in (25, 26, 28, 27, 29))
LISTS = CipherLists("H", "M", "", "", "N")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", Protocols()),
        (">=TLSv1", Protocols(0x0301)),
        (">=TLSv1.2, <=TLSv1.3", Protocols(0x0303, 0x0304)),
        (">=tlsv1.2:<=0x0304", Protocols(0x0303, 0x0304)),
        (">=303", Protocols(0x0303)),
        (">=SSLv2", Protocols(0x0300)),
        ("!SSLv2, !SSLv3", Protocols(0, 0, NO_SSL3)),
        ("!SSLv2 !SSLv3 !TLSv1 !TLSv1.1", Protocols(0, 0, NO_SSL3 | NO_TLS1 | NO_TLS11)),
        ("!SSLv2,!SSLv3,!TLSv1,!TLSv1.1", Protocols(0, 0, NO_SSL3 | NO_TLS1 | NO_TLS11)),
        ("TLSv1.2:TLSv1.3", Protocols(0, 0, NO_SSL3 | NO_TLS1 | NO_TLS11)),
        ("TLSv1.2", Protocols(0, 0, NO_SSL3 | NO_TLS1 | NO_TLS11 | NO_TLS13)),
        (">=TLSv1 !TLSv1.1", Protocols(0x0301, 0, NO_TLS11)),
    ],
)
def test_protocols(text: str, wanted: Protocols) -> None:
    assert parse_protocols(text) == wanted


@pytest.mark.parametrize("text", ["TLSv1.4", ">=", ">= TLSv1", "!0303", "<=x", "!", ">=00000"])
def test_protocols_that_are_none(text: str) -> None:
    with pytest.raises(TlsConfigError) as caught:
        parse_protocols(text)
    assert caught.value.reason == f'Invalid TLS protocol list "{text}"'


@given(st.text(alphabet="><=!TLSvtlsv0123x., :"))
def test_protocols_of_any_text(text: str) -> None:
    try:
        parse_protocols(text)
    except TlsConfigError:
        pass


@pytest.mark.parametrize(
    ("grade", "exclusions", "wanted"),
    [
        ("medium", [], "M"),
        ("HIGH", ["aNULL, DES+MD5", "RC4"], "H:!aNULL:!DES+MD5:!RC4"),
        ("low", [""], "M"),
        ("export", ["eNULL:DES"], "M:!eNULL:!DES"),
        ("null", [], "N"),
    ],
)
def test_ciphers(grade: str, exclusions: list[str], wanted: str) -> None:
    assert cipher_list(grade, exclusions, LISTS) == wanted


def test_ciphers_that_cannot_be() -> None:
    with pytest.raises(TlsConfigError, match='invalid cipher grade: "best"'):
        cipher_list("best", [], LISTS)
    with pytest.raises(TlsConfigError, match="in cipher exclusion: !aNULL"):
        cipher_list("high", ["!aNULL"], LISTS)


def test_option_bits() -> None:
    assert option_bits("tls_ssl_options", "no_compression, NO_TICKET", OPTIONS) == 0x24000
    assert option_bits("tls_ssl_options", "0x4000", OPTIONS) == 0x4000
    assert option_bits("tls_ssl_options", "", OPTIONS) == 0
    assert option_bits("tls_disable_workarounds", "CVE-2010-4180", WORKAROUNDS) == 0
    with pytest.raises(TlsConfigError, match='unknown tls_ssl_options value "X" in "X"'):
        option_bits("tls_ssl_options", "X", OPTIONS)


def test_grades_of_curves() -> None:
    assert grade_groups("auto", "X25519 P-256", "s", "u") == ["X25519", "P-256"]
    assert grade_groups("Strong", "a", "s", "u") == ["s"]
    assert grade_groups("ultra", "a", "s", "u") == ["u"]
    with pytest.raises(TlsConfigError):
        grade_groups("x", "a", "s", "u")


def test_levels_are_in_order() -> None:
    names = [
        "none",
        "may",
        "encrypt",
        "fingerprint",
        "half-dane",
        "dane",
        "dane-only",
        "verify",
        "secure",
    ]
    assert [level.label for level in Level] == names
    assert [level_named(name.upper()) for name in names] == sorted(Level)
    assert level_named("must") is None
    assert [level.label for level in Level if level.by_dane] == names[4:7]
