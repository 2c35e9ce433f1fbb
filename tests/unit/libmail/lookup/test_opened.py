"""What restrictions look into, as the configuration names it."""

import asyncio
from pathlib import Path

from libmail.config import open_config
from libmail.lookup.opened import own_addresses
from libmail.tables.match import AddressList


def test_own_addresses_are_items_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text("inet_interfaces = 127.0.0.1, [::1]\ninet_protocols = all\n")
    items = own_addresses(open_config(str(tmp_path)))
    assert items == ("127.0.0.1", "[::1]")
    assert asyncio.run(AddressList("inet_interfaces", items).match("", "::1"))
