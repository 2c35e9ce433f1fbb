"""What is decided about a server is decided again from the record of what was asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from daemons.smtp.tls_policy import ServerTlsPolicy
from libmail.lookup.context import Lookups
from libmail.lookup.record import Asked, RecordingLookups, ReplayedLookups
from libmail.tls.levels import Level
from tests.unit.daemons.smtp.bench import Bench

SERVERS = [
    ("a.test", "mx.a.test", Level.SECURE),
    ("[c.test]:587", "c.test", Level.ENCRYPT),
    ("d.test", "d.test", Level.MAY),
]


def bench(folder: Path, lookups: Lookups | None, *, lmtp: bool, **tables: str) -> Bench:
    prefix, hello = ("lmtp", "lhlo") if lmtp else ("smtp", "ehlo")
    values: dict[str, Any] = {
        f"{prefix}_tls_security_level": "may",
        f"{prefix}_tls_policy_maps": tables["policies"],
        f"{prefix}_discard_{hello}_keyword_address_maps": tables["keywords"],
    }
    return Bench(folder, lmtp=lmtp, lookups=lookups, **values)


def decide(one: Bench, text: str, host: str) -> tuple[ServerTlsPolicy, tuple[str, ...]]:
    async def main() -> tuple[ServerTlsPolicy, tuple[str, ...]]:
        decisions = one.client.decisions
        policy = await decisions.tls.of(text, host, host, decisions.lookups)
        return policy, await one.client.discarded("192.0.2.1")

    return asyncio.run(main())


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize(("text", "host", "level"), SERVERS)
def test_the_same_without_tables(
    tmp_path: Path, text: str, host: str, level: Level, *, lmtp: bool
) -> None:
    tables = {
        "policies": "inline:{{a.test=secure match=.b.test} {[c.test]:587=encrypt}}",
        "keywords": "inline:{{192.0.2.1=size, dsn}}",
    }
    record: list[Asked] = []
    live = bench(tmp_path, None, lmtp=lmtp, **tables).client.decisions.lookups
    found = decide(bench(tmp_path, RecordingLookups(live, record), lmtp=lmtp, **tables), text, host)
    assert (found[0].policy.level, found[1]) == (level, ("size", "dsn"))
    broken = dict.fromkeys(tables, "fail:1")
    again = bench(tmp_path, ReplayedLookups(record), lmtp=lmtp, **broken)
    assert decide(again, text, host) == found
