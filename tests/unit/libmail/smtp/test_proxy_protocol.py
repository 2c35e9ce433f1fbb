"""The PROXY protocol: both versions, health checks, what is no header, any chunking."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.smtp.proxy_protocol import Proxied, ProxyError, parse_proxy_header

V4 = Proxied("192.0.2.1", "1025", "192.0.2.2", "25")
V6 = Proxied("2001:db8::1", "1025", "2001:db8::2", "25")
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version_2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(addresses)) + addresses


PACKED_4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack(">HH", 1025, 25)
PACKED_6 = (
    bytes.fromhex("20010db8" + "0" * 23 + "1" + "20010db8" + "0" * 23 + "2")
    + struct.pack(">HH", 1025, 25)
)  # fmt: skip
MAPPED = (bytes(10) + b"\xff\xff" + PACKED_4[:4]) + (bytes(10) + b"\xff\xff" + PACKED_4[4:8])

CASES = [
    ("1, IPv4", b"PROXY TCP4 192.0.2.1 192.0.2.2 1025 25\r\n", V4),
    ("1, IPv6", b"PROXY TCP6 2001:DB8::1 2001:db8:0:0::2 1025 25\r\n", V6),
    ("2, IPv4", version_2(0x21, 0x11, PACKED_4), V4),
    ("2, IPv4 and extensions", version_2(0x21, 0x11, PACKED_4 + b"\4\0\1x"), V4),
    ("2, IPv6", version_2(0x21, 0x21, PACKED_6), V6),
    ("2, mapped", version_2(0x21, 0x21, MAPPED + PACKED_4[8:]), V4),
    ("2, own", version_2(0x20, 0, b""), None),
]


@pytest.mark.parametrize(("header", "want"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_headers(header: bytes, want: Proxied | None) -> None:
    assert parse_proxy_header(header + b"EHLO x\r\n") == (want, len(header))
    for at in range(len(header)):
        assert parse_proxy_header(header[:at]) is None


BAD = [
    b"EHLO x\r\n",
    b"PROXX\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY\n",
    b"PROXY TCP5 a b c d\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1025\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 25\r\n",
    b"PROXY TCP4 " + b"x" * 200,
    version_2(0x11, 0x11, PACKED_4),
    version_2(0x21, 0x31, PACKED_4),
    version_2(0x21, 0x21, PACKED_4),
    SIGNATURE + struct.pack(">BBH", 0x21, 0x11, 65535),
]


@pytest.mark.parametrize("header", BAD)
def test_no_headers(header: bytes) -> None:
    with pytest.raises(ProxyError):
        parse_proxy_header(header)


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=60).map(lambda b: SIGNATURE + b)))
def test_anything_is_decided_or_an_error(data: bytes) -> None:
    try:
        parse_proxy_header(data)
    except ProxyError as error:
        text = str(error)
        if not text.isprintable():
            raise AssertionError(text) from None
