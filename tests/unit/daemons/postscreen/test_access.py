"""postscreen_access_list."""

from __future__ import annotations

import asyncio

import pytest

from daemons.postscreen.access import Access, AccessList
from libmail.tables.maps import Maps
from libmail.tables.match import AddressList


def opened(text: str) -> AccessList:
    items = [Maps("t", [word]) if ":" in word else word for word in text.split(" ; ")]
    return AccessList(items, AddressList("mynetworks", ["10.0.0.0/8", "[2001:db8::]/32"]))


TABLE = (
    "cidr:{{10.0.0.1 reject}, {192.0.2.0/24 PERMIT}, {198.51.100.1 dunno}, "
    "{1.1.1.1 oops dunno, reject}}"
)


@pytest.mark.parametrize(
    ("text", "address", "wanted"),
    [
        ("permit_mynetworks", "10.1.1.1", Access.PERMIT),
        ("Permit_MyNetworks", "2001:db8::1", Access.PERMIT),
        ("permit_mynetworks", "192.0.2.1", Access.DUNNO),
        (f"permit_mynetworks ; {TABLE}", "10.0.0.1", Access.PERMIT),
        (f"{TABLE} ; permit_mynetworks", "10.0.0.1", Access.REJECT),
        (f"{TABLE} ; reject", "192.0.2.9", Access.PERMIT),
        (f"{TABLE} ; reject", "198.51.100.1", Access.REJECT),
        (f"{TABLE} ; reject", "1.1.1.1", Access.REJECT),
        ("dunno ; reject", "1.1.1.1", Access.DUNNO),
        ("fail:x ; permit", "1.1.1.1", Access.PERMIT),
        ("", "1.1.1.1", Access.DUNNO),
        ("nosuch ; permit", "1.1.1.1", Access.PERMIT),
        ("static:permit_mynetworks ; reject", "10.1.1.1", Access.PERMIT),
    ],
)
def test_access_list(text: str, address: str, wanted: Access) -> None:
    assert asyncio.run(opened(text).decide(address)) is wanted
