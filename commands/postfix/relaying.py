"""postfix check: strangers cannot send mail through this system to anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from libmail.config import Config, ServiceEntry
from libmail.log import Fatal
from libmail.lookup.lists import compile_lists
from libmail.lookup.params import RestrictionParams

__all__ = ["relay_problems"]

_EVERYBODY: Final = {4: 8, 6: 16}  # networks with prefixes shorter than this are no neighbours


def relay_problems(config: Config, entries: Sequence[ServiceEntry]) -> Iterator[str]:
    """A line for each way by which everybody could relay, or by which smtpd refuses to start."""
    for item in config.list("mynetworks"):
        network = _network(item)
        if network is not None and network.prefixlen < _EVERYBODY[network.version]:
            yield f"mynetworks: {item} lets a large part of the Internet relay through this system"
    for entry in entries:
        if entry.command != "smtpd" or entry.type not in ("inet", "pass"):
            continue
        own = config.override(entry.overrides, service_name=entry.name)
        try:
            classes = {name: own.list(name) for name in own.list("smtpd_restriction_classes")}
            compile_lists(own.load(RestrictionParams), classes)
        except Fatal as err:
            yield f"{entry.file}, line {entry.line}: service {entry.name}: {err}"


def _network(item: str) -> IPv4Network | IPv6Network | None:
    """None for names, tables and what smtpd complains about."""
    try:
        return ip_network(item.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None
