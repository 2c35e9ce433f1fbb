"""Attributes of XCLIENT and XFORWARD."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.lookup import xclient
from libmail.lookup.xclient import XCLIENT, BadAttribute, attributes


def test_values_are_xtext_or_taken_as_they_are() -> None:
    assert attributes("XCLIENT", "name=a.test HELO=a+20b  PROTO=x+zz", XCLIENT) == [
        ("NAME", "a.test"),
        ("HELO", "a b"),
        ("PROTO", "x+zz"),
    ]


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("NAME", "Error: attribute=value expected"),
        ("NAME=", "Error: attribute=value expected"),
        ("NAME=a.test b", "Error: attribute=value expected"),
        ("=x", "Bad XCLIENT attribute name: "),
        ("FOO=bar", "Bad XCLIENT attribute name: FOO"),
    ],
)
def test_mistakes(argument: str, text: str) -> None:
    with pytest.raises(BadAttribute) as caught:
        attributes("XCLIENT", argument, XCLIENT)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("value", "ipv6", "want"),
    [
        ("192.0.2.1", False, "192.0.2.1"),
        ("IPV6:2001:db8::1", True, "2001:db8::1"),
        ("ipv6:2001:db8::1", True, "2001:db8::1"),
        ("IPV6:2001:db8::1", False, None),
        ("IPV6:192.0.2.1", True, None),
        ("192.0.2", True, None),
        ("192.0.2.300", True, None),
    ],
)
def test_addresses(value: str, ipv6: bool, want: str | None) -> None:
    if want is not None:
        assert xclient.address("ADDR", value, ipv6=ipv6) == want
        return
    with pytest.raises(BadAttribute, match=f"^Bad ADDR syntax: {value}$"):
        xclient.address("ADDR", value, ipv6=ipv6)


@pytest.mark.parametrize("value", ["-bad-.test", "two words.test", "192.0.2.1", ""])
def test_bad_names(value: str) -> None:
    with pytest.raises(BadAttribute):
        xclient.host_name("NAME", value)


@pytest.mark.parametrize("value", ["abc", "", "-1", "1.5", "9" * 20, "\u0661"])
def test_bad_ports(value: str) -> None:
    with pytest.raises(BadAttribute):
        xclient.port("PORT", value)


@given(st.text(max_size=30))
def test_neutral_values_show_as_they_are(value: str) -> None:
    shown = xclient.neutral(value)
    assert len(shown) == len(value)
    assert shown.isprintable()
    assert not set(shown) & set(' <>()\\";@')
