"""What restrictions look into, as the configuration names it."""

import asyncio
from pathlib import Path

import pytest

from libmail.config import open_config
from libmail.lookup.opened import open_routing, own_addresses
from libmail.lookup.routing_params import ResolveParams
from libmail.tables.match import AddressList


def test_own_addresses_are_items_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text("inet_interfaces = 127.0.0.1, [::1]\ninet_protocols = all\n")
    items = own_addresses(open_config(str(tmp_path)))
    assert items == ("127.0.0.1", "[::1]")
    assert asyncio.run(AddressList("inet_interfaces", items).match("", "::1"))


@pytest.mark.parametrize(
    ("name", "kind", "literal"),
    [
        ("transport_maps", "regexp", True),
        ("transport_maps", "proxy:pcre", True),
        ("sender_dependent_relayhost_maps", "pcre", True),
        ("sender_dependent_default_transport_maps", "pcre", True),
        ("relocated_maps", "pcre", False),
    ],
)
def test_addresses_choose_no_host(tmp_path: Path, name: str, kind: str, literal: bool) -> None:
    """What a pattern takes from an address must not become the name of a transport or host."""
    (tmp_path / "rules").write_text("/^(.*)@a$/ smtp:$1\n/^b@/ smtp:$$1\n")
    (tmp_path / "main.cf").write_text(f"{name} = {kind}:{tmp_path}/rules\n")
    (tmp_path / "master.cf").write_text("proxymap unix - - n - - proxymap\n")
    config = open_config(str(tmp_path))
    lookups = open_routing(config, config.load(ResolveParams))
    found = asyncio.run(lookups.find(name, "evil.example@a"))
    assert found == (None if literal else "smtp:evil.example")
    assert asyncio.run(lookups.find(name, "b@c")) == "smtp:$1"
