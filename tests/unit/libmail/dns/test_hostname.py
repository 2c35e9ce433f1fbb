"""Host names, addresses and address literals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.dns.hostname import (
    IDNA,
    ascii_domain,
    hostaddr_problem,
    hostname_problem,
    literal_address,
    valid_hostaddr,
    valid_hostliteral,
    valid_hostname,
    valid_ipv4,
    valid_ipv6,
)

NAMES = [
    ("example.org", ""),
    ("a_b.example.org", ""),
    ("_25._tcp.example.org", ""),
    ("1a", ""),
    ("a" * 63 + ".org", ""),
    ("", "empty hostname"),
    ("a..b", "misplaced delimiter: a..b"),
    (".a", "misplaced delimiter: .a"),
    ("a.", "misplaced delimiter: a."),
    ("-a.b", "misplaced hyphen: -a.b"),
    ("a-.b", "misplaced hyphen: a-.b"),
    ("a" * 64, "hostname label too long: " + "a" * 64),
    ("192.0.2.1", "numeric hostname: 192.0.2.1"),
    ("a b", "invalid character 32(decimal): a b"),
    ("bücher", "invalid character 252(decimal): bücher"),
]


@pytest.mark.parametrize(("name", "problem"), NAMES)
def test_hostname(name: str, problem: str) -> None:
    assert hostname_problem(name) == problem
    assert valid_hostname(name) is not bool(problem)


def test_long_name() -> None:
    assert "bad length" in hostname_problem(".".join(["abcdefg"] * 40))


@given(st.text("a1-_. é", max_size=80))
def test_there_is_a_reason_for_every_refusal(name: str) -> None:
    assert valid_hostname(name) is not bool(hostname_problem(name))


def test_wildcard() -> None:
    assert valid_hostname("*.example.org", wildcard=True)
    for name in ("*", "*.", "a.*.example.org", "*a.example.org", "*.1.2"):
        assert not valid_hostname(name, wildcard=True)
    assert not valid_hostname("*.example.org")


ADDRESSES = [
    ("192.0.2.1", True),
    ("0.0.0.0", True),
    ("0.1.2.3", False),
    ("192.0.2.256", False),
    ("192.0.2", False),
    ("192.0.2.1.5", False),
    ("::1", True),
    ("2001:db8::1", True),
    ("1::2::3", False),
    ("fe80::1%eth0", False),
    ("", False),
]


@pytest.mark.parametrize(("text", "want"), ADDRESSES)
def test_address(text: str, want: bool) -> None:
    assert valid_hostaddr(text) is want


PROBLEMS = [
    ("192.0.2.1", False, ""),
    ("foo", False, "valid_ipv4_hostaddr: invalid character 102(decimal): foo"),
    ("1..2.3", False, "valid_ipv4_hostaddr: misplaced dot: 1..2.3"),
    (".1.2.3", False, "valid_ipv4_hostaddr: misplaced dot: .1.2.3"),
    ("999.1.1.1", False, "valid_ipv4_hostaddr: invalid octet value: 999.1.1.1"),
    ("0.1.2.3", False, "valid_ipv4_hostaddr: bad initial octet value: 0.1.2.3"),
    ("1.2.3", False, "valid_ipv4_hostaddr: invalid octet count: 1.2.3"),
    ("", False, "valid_ipv4_hostaddr: invalid octet count: "),
    ("2001:db8::1", True, ""),
    ("no", True, "valid_ipv6_hostaddr: invalid character 110(decimal) in IPv6 address: no"),
    ("1::2::3", True, "valid_ipv6_hostaddr: too many `::' in IPv6 address: 1::2::3"),
    ("1:::2", True, "valid_ipv6_hostaddr: too many `::' in IPv6 address: 1:::2"),
    ("", True, "valid_ipv6_hostaddr: too few `:' in IPv6 address: "),
    (":", True, "valid_ipv6_hostaddr: too few `:' in IPv6 address: :"),
    (":1:2", True, "valid_ipv6_hostaddr: bad null first field in IPv6 address: :1:2"),
    ("1:2:", True, "valid_ipv6_hostaddr: bad null last field in IPv6 address: 1:2:"),
    ("::1.2.3", True, "valid_ipv4_hostaddr: invalid octet count: 1.2.3"),
    ("1:2:3:4:5:6:7:8:9", True,
     "valid_ipv6_hostaddr: too many `:' in IPv6 address: 1:2:3:4:5:6:7:8:9"),
    ("12345::1", True, "valid_ipv6_hostaddr: malformed IPv6 address: 12345::1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "ipv6", "want"), PROBLEMS)
def test_address_problem(text: str, ipv6: bool, want: str) -> None:
    assert hostaddr_problem(text, ipv6=ipv6) == want


@given(st.text("0123456789abcdef:.[]%", max_size=20), st.booleans())
def test_address_problem_takes_any_text(text: str, ipv6: bool) -> None:
    assert bool(hostaddr_problem(text, ipv6=ipv6)) is not (
        valid_ipv6(text) if ipv6 else valid_ipv4(text)
    )


LITERALS = [
    ("[192.0.2.1]", "192.0.2.1"),
    ("[IPv6:2001:db8::1]", "2001:db8::1"),
    ("[ipv6:::1]", "::1"),
    ("[::1]", None),
    ("[IPv6:192.0.2.1]", None),
    ("[example.org]", None),
    ("192.0.2.1", None),
    ("[192.0.2.300]", None),
]


@pytest.mark.parametrize(("text", "want"), LITERALS)
def test_literal(text: str, want: str | None) -> None:
    assert literal_address(text) == want
    assert valid_hostliteral(text) is (want is not None)


# By UTS #46, with transitional processing and without.
IDNS = [
    ("b\u00fccher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("fa\u00df.example", "fass.example", "xn--fa-hia.example"),
    ("B\u00fc\u00df.Example", "xn--bss-hoa.Example", "xn--b-qfa0g.example"),
    ("\u03b2\u03cc\u03bb\u03bf\u03c2.example", "xn--nxasmq6b.example", "xn--nxasmm1c.example"),
    ("fa\u00df\u3002example.", "fass.example", "xn--fa-hia.example"),
    ("plain.example.", "plain.example", "plain.example"),
    (f"{'a' * 62}\u00df.example", "", ""),
    ("a\u00df..example", "", ""),
]


@pytest.mark.parametrize(("name", "older", "current"), IDNS)
def test_ascii_form(name: str, older: str, current: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """enable_idna2003_compatibility."""
    assert ascii_domain(name) == current
    monkeypatch.setattr(IDNA, "transitional", True)
    assert ascii_domain(name) == older
