"""Delivered-To fields, as they are written and as they are found again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.mailbox.content import delivery_headers
from libmail.message.delivered_to import earlier_recipients, had_before
from libmail.text.quoting import header_address


def written(address: str) -> bytes:
    """As the agents write it, on the wire."""
    headers = delivery_headers(sender=None, delivered_to=header_address(address))
    return headers.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("address", ["a@x", '"a b"@x', "ä@x", "a\x1b[31m@x", "a\x00b@x", "A@X"])
def test_loop_is_found(address: str) -> None:
    header = written(address)
    assert had_before(address, earlier_recipients(header))
    assert not had_before("other@x", earlier_recipients(header))


@given(st.text(max_size=40), st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True))
def test_any_address_is_found_in_its_own_line(local: str, domain: str) -> None:
    address = f"{local}@{domain}"
    header = written(address)
    assert not any(octet < 0x20 or octet == 0x7F for octet in header[:-2])
    if address == address.strip():
        assert had_before(address, earlier_recipients(header))
