"""cidr tables, and networks as match lists have them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.tables import lookup_now, open_table
from libmail.tables.networks import parse_address, parse_network
from tests.unit.libmail.tables.recorder import Recorder

RULES = """\
1.2.3.4 one
1.2.3.0/24 net  with spaces
[::1] six
2001:db8::/32 doc
if 4.0.0.0/8
4.5.0.0/16 four
!4.6.0.0/16 not six
endif
if !10.0.0.0/8
11.0.0.0/8 eleven
endif
"""
LOOKUPS = [
    ("1.2.3.4", "one"),
    ("1.2.3.77", "net  with spaces"),
    ("::1", "six"),
    ("0:0:0:0:0:0:0:1", "six"),
    ("2001:DB8::5", "doc"),
    ("4.5.6.7", "four"),
    ("4.6.6.6", None),
    ("4.7.1.1", "not six"),
    ("11.1.1.1", "eleven"),
    ("9.9.9.9", None),
    ("host.example", None),
    ("1.2.3", None),
    ("::ffff:1.2.3.4", None),
]


@pytest.mark.parametrize(("key", "want"), LOOKUPS)
def test_lookup(tmp_path: Path, key: str, want: str | None) -> None:
    path = tmp_path / "cidr"
    path.write_text(RULES)
    assert lookup_now(open_table(f"cidr:{path}", strict=True), key) == want


@pytest.mark.parametrize(
    ("key", "want"),
    [("10.1.1.1", "four"), ("1.2.3.4", "not ten"), ("::1", "not doc"), ("2001:db8::1", "six")],
)
def test_negation_is_about_one_family(key: str, want: str) -> None:
    rules = "{!2001:db8::/32 not doc},{!10.0.0.0/8 not ten},{::/0 six},{0.0.0.0/0 four}"
    assert lookup_now(open_table(f"cidr:{{{rules}}}", strict=True), key) == want
    conditional = f"{{if !10.0.0.0/8}},{rules},{{endif}}"
    outside = key == "1.2.3.4"
    found = lookup_now(open_table(f"cidr:{{{conditional}}}", strict=True), key)
    assert found == (want if outside else None)


WARNINGS = [
    (
        "10.0.0.1/8 x",
        'non-null host address bits in "10.0.0.1/8", perhaps you should use "10.0.0.0/8" instead',
    ),
    (
        "2001:db8::1/33 x",
        'non-null host address bits in "2001:db8::1/33", '
        'perhaps you should use "2001:db8::/33" instead',
    ),
    ("!9.9.9.9", "no lookup result"),
    ("endif x", "garbage after ENDIF"),
    ("endif", "ENDIF without IF"),
    ("foo bar", 'bad address pattern: "foo"'),
    ("1.2.3.4/33 x", 'bad mask length in "1.2.3.4/33"'),
    ("1.2.3.999 x", 'bad address pattern: "1.2.3.999"'),
    ("01.02.03.04 x", 'bad address pattern: "01.02.03.04"'),
    ("10.0.0.0/8x y", 'bad mask value in "10.0.0.0/8x"'),
    ("1.2/16 y", 'bad network value in "1.2/16"'),
    ("[1.2.3.0/24 x", "missing ']' character after \"[1.2.3.0/24\""),
    ("if", "no address pattern"),
]


@pytest.mark.parametrize(("rule", "text"), WARNINGS)
def test_warnings(tmp_path: Path, rule: str, text: str) -> None:
    path, log = tmp_path / "cidr", Recorder()
    path.write_text(f"{rule}\n1.1.1.1 good\n")
    table = open_table(f"cidr:{path}", log=log)
    assert log.lines == [f"warning: cidr map {path}, line 1: {text}: skipping this rule"]
    assert lookup_now(table, "1.1.1.1") == "good"


@settings(max_examples=200)
@given(st.ip_addresses(), st.integers(0, 128), st.ip_addresses())
def test_networks_agree_with_the_standard_library(
    base: ipaddress.IPv4Address | ipaddress.IPv6Address,
    bits: int,
    other: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    length = min(bits, base.max_prefixlen)
    network = ipaddress.ip_network(f"{base}/{length}", strict=False)
    ours = parse_network(str(network))
    for address in (base, other):
        number = parse_address(str(address))
        assert number is not None
        assert ours.holds(number) == (address in network)
