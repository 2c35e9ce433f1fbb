"""smtpd_command_filter, smtpd_noop_commands, smtpd_forbidden_commands: the same from a record."""

from __future__ import annotations

import asyncio

import pytest

from daemons.smtpd.command_rules import CommandRules
from libmail.lookup.context import LiveLookups, LookupFailure, Lookups
from libmail.lookup.record import Asked, RecordingLookups, ReplayedLookups
from libmail.tables.maps import Maps
from libmail.tables.match import StringList


def live(commands: str, words: str) -> LiveLookups:
    titles = ("smtpd_noop_commands", "smtpd_forbidden_commands")
    return LiveLookups(
        {},
        maps={"smtpd_command_filter": Maps("smtpd_command_filter", commands)},
        lists={title: StringList(title, words) for title in titles},
    )


async def decide(lookups: Lookups) -> list[object]:
    rules = CommandRules(lookups)
    return [
        rules.filters,
        rules.ignores_some,
        await rules.replaced("EHLO x"),
        await rules.replaced("NOOP"),
        await rules.ignores("GET"),
        await rules.forbids("GET"),
        await rules.forbids("POST"),
        await rules.forbids("Host:"),
    ]


def test_the_same_without_tables() -> None:
    record: list[Asked] = []
    lookups = RecordingLookups(live("inline:{{EHLO x=HELO x}}", "GET"), record)
    found = asyncio.run(decide(lookups))
    assert found == [True, True, "HELO x", None, True, True, False, True]
    assert asyncio.run(decide(ReplayedLookups(record))) == found


def test_tables_that_fail() -> None:
    """No command is refused or ignored for that; without its filter none is let through."""
    rules = CommandRules(live("fail:1", "fail:1"))
    assert not asyncio.run(rules.ignores("GET"))
    assert not asyncio.run(rules.forbids("GET"))
    with pytest.raises(LookupFailure):
        asyncio.run(rules.replaced("GET"))


def test_nothing_configured() -> None:
    rules = CommandRules(live("", ""))
    assert not rules.filters
    assert not rules.ignores_some
