"""inet_interfaces and inet_protocols as addresses."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from libmail.config import interfaces
from libmail.config.errors import ConfigError
from libmail.config.interfaces import Interface, mynetworks

MACHINE = ("127.0.0.1/8", "192.0.2.2/24", "172.16.9.9/20", "::1/128", "2001:db8::2/64")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = [ip_interface(text) for text in MACHINE]
    found = tuple(Interface(one.ip, one.network.prefixlen) for one in parsed)
    monkeypatch.setattr(interfaces, "machine_interfaces", lambda: found)
    monkeypatch.setattr(interfaces, "_has_ipv6", lambda: True)


@pytest.mark.parametrize(
    ("style", "addresses", "protocols", "expected"),
    [
        ("host", "all", "ipv4", "127.0.0.1/32 192.0.2.2/32 172.16.9.9/32"),
        ("subnet", "all", "ipv4", "127.0.0.0/8 192.0.2.0/24 172.16.0.0/20"),
        ("class", "all", "ipv4", "127.0.0.0/8 192.0.2.0/24 172.16.0.0/16"),
        ("subnet", "all", "ipv6", "[::1]/128 [2001:db8::]/64"),
        ("host", "loopback-only", "all", "127.0.0.1/32 [::1]/128"),
        ("subnet", "192.0.2.2 127.0.0.1", "all", "127.0.0.0/8 192.0.2.0/24"),
    ],
)
def test_default_of_mynetworks(style: str, addresses: str, protocols: str, expected: str) -> None:
    assert mynetworks(style, tuple(addresses.split()), (protocols,)) == expected


@pytest.mark.parametrize(("style", "protocols"), [("x", "all"), ("host", "x"), ("host", "")])
def test_unknown_words(style: str, protocols: str) -> None:
    with pytest.raises(ConfigError):
        mynetworks(style, ("all",), tuple(protocols.split()))
