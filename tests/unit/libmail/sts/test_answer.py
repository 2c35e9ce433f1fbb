"""What the client is told of a policy: an entry that it understands."""

from __future__ import annotations

from libmail.sts.answer import entry_of, entry_without
from libmail.sts.policy import Mode, Policy
from libmail.tls.levels import Level
from libmail.tls.policy_entry import PolicyEntry, StsPolicy, parse_entry

POLICY = Policy(Mode.ENFORCE, ("mx.a.test", "*.b.test"), 86400)
LINES = ("version: STSv1", "mode: enforce", "mx: mx.a.test", "mx: *.b.test", "max_age: 86400")


def test_enforced() -> None:
    assert parse_entry(entry_of("a.test", POLICY) or "", "w") == PolicyEntry(
        Level.SECURE,
        match=("mx.a.test", ".b.test"),
        server_name="hostname",
        sts=StsPolicy(
            policy_type="sts",
            domain="a.test",
            strings=LINES,
            mx_patterns=("mx.a.test", "*.b.test"),
            mode="enforce",
        ),
    )


def test_not_enforced() -> None:
    tested = parse_entry(entry_of("a.test", Policy(Mode.TESTING, ("a.test",), 1)) or "", "w")
    assert tested.sts.tested
    assert tested.sts.strings[1] == "mode: testing"
    assert entry_of("a.test", Policy(Mode.NONE, ("a.test",), 1)) is None
    without = parse_entry(entry_without("a.test", "sts-policy-invalid"), "w")
    assert without.sts.tested
    assert (without.sts.failure, without.match) == ("sts-policy-invalid", ())


def test_the_largest_policy() -> None:
    hosts = tuple(f"*.{n:030}.test" for n in range(500))
    assert parse_entry(entry_of("a.test", Policy(Mode.ENFORCE, hosts, 1)) or "", "w").match
