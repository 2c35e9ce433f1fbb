"""Lists of tables, the forms of addresses, and match lists."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

import pytest

from libmail.tables import TableRetry
from libmail.tables.maps import AddressForms, Found, Maps, address_keys, split_extension
from libmail.tables.match import AddressList, DomainList, StringList
from libmail.tables.table import TableConfigError, TableOptions
from tests.unit.libmail.tables.recorder import Recorder

T = TypeVar("T")


def run(work: Coroutine[None, None, T]) -> T:
    return asyncio.run(work)


def test_first_table_that_knows_the_key() -> None:
    maps = Maps("alias_maps", "inline:{a=1}, inline:{ {a = 2}, b=3 }")
    assert run(maps.find("a")) == "1"
    assert run(maps.search("b")) == Found("3", "b", "inline:{ {a = 2}, b=3 }")
    assert run(maps.find("c")) is None
    assert not Maps("x", "")


def test_failure_ends_the_search() -> None:
    log = Recorder()
    maps = Maps("alias_maps", "inline:{a=1} fail:x static:y", TableOptions(log=log))
    assert run(maps.find("a")) == "1"
    with pytest.raises(TableRetry, match=r"^alias_maps: table fail:x lookup error"):
        run(maps.find("b"))
    assert log.lines == ['warning: fail:x lookup error for "b"']


def test_empty_result_is_an_error() -> None:
    log = Recorder()
    with pytest.raises(TableRetry):
        run(Maps("virtual_alias_maps", "inline:{a=}", TableOptions(log=log)).find("a"))
    assert log.lines == [
        "warning: virtual_alias_maps lookup of a returns an empty string result",
        "warning: virtual_alias_maps should return NO RESULT in case of NOT FOUND",
    ]


EXTENSIONS = [
    ("user+ext", "+", ("user", "+ext")),
    ("user+a+b", "+", ("user", "+a+b")),
    ("user-a+b", "+-", ("user", "-a+b")),
    ("user", "+", ("user", "")),
    ("+ext", "+", ("+ext", "")),
    ("user+ext", "", ("user+ext", "")),
    ("owner-list", "-", ("owner-list", "")),
    ("list-request", "-", ("list-request", "")),
    ("mailer-daemon", "-", ("mailer-daemon", "")),
    ("double-bounce", "-", ("double-bounce", "")),
]


@pytest.mark.parametrize(("localpart", "delimiters", "want"), EXTENSIONS)
def test_split_extension(localpart: str, delimiters: str, want: tuple[str, str]) -> None:
    assert split_extension(localpart, delimiters) == want


KEYS = [
    (
        AddressForms.DEFAULT,
        True,
        ["u+x@d.test", "u@d.test", "u+x", "u", "@d.test"],
    ),
    (AddressForms.DEFAULT, False, ["u+x@d.test", "u@d.test", "@d.test"]),
    (AddressForms.FULL, True, ["u+x@d.test"]),
]


@pytest.mark.parametrize(("forms", "local", "want"), KEYS)
def test_order_of_address_forms(forms: AddressForms, local: bool, want: list[str]) -> None:
    keys = [key for key, _, _ in address_keys("u+x@d.test", "+", forms, local=local)]
    assert keys == want


FINDS = [
    ("u+x@d.test", "inline:{u+x@d.test=1,u@d.test=2}", ("1", "")),
    ("u+x@d.test", "inline:{u@d.test=2,@d.test=5}", ("2", "+x")),
    ("u+x@d.test", "inline:{u=4,@d.test=5}", ("4", "+x")),
    ("u+x@d.test", "inline:{@d.test=5}", ("5", "")),
    ("u@d.test", "inline:{nothing=1}", None),
    ("u", "inline:{u=4}", ("4", "")),
    ("u v@d.test", 'inline:{{u v@d.test=6},{"u v"@d.test=7}}', ("7", "")),
    ("u v+x@d.test", 'inline:{{"u v"=8},@d.test=5}', ("8", "+x")),
    ("u v+x@d.test", "inline:{{u v=9},@d.test=5}", ("9", "+x")),
    ("a@b@d.test", 'inline:{{"a@b"=1},{a@b=2}}', ("1", "")),
    ("@b@d.test", 'inline:{{"@b"@d.test=1},{@b@d.test=2}}', ("1", "")),
    ("@b@d.test", 'inline:{{"@b"=3},@d.test=5}', ("3", "")),
    ("@d.test", 'inline:{{""@d.test=1},@d.test=5}', ("1", "")),
    ("a@b+x@d.test", 'inline:{{"a@b"=1},{a@b=2}}', ("1", "+x")),
]


@pytest.mark.parametrize(("address", "spec", "want"), FINDS)
def test_find_address(address: str, spec: str, want: tuple[str, str] | None) -> None:
    found = run(Maps("x", spec).find_address(address, "+", local=True))
    assert (None if found is None else (found.value, found.extension)) == want


def test_patterns_see_only_the_full_address() -> None:
    maps = Maps("x", "regexp:{{/^@d/ partial},{/^u@/ bare}}")
    assert run(maps.find_address("u+x@d.test", "+")) is None
    found = run(maps.find_address("u@d.test", "+"))
    assert found is not None
    assert found.value == "bare"


STRINGS = [
    ("a, b", "B", True),
    ("a, !b, static:all", "b", False),
    ("a, !b, static:all", "c", True),
    ("inline:{k=v}", "K", True),
    ("", "x", False),
]


@pytest.mark.parametrize(("specs", "text", "want"), STRINGS)
def test_string_list(specs: str, text: str, want: bool) -> None:
    assert run(StringList("x", specs).match(text)) is want


DOMAINS = [
    ("example.org", False, "example.org", True),
    ("example.org", False, "a.example.org", False),
    (".example.org", False, "a.b.Example.ORG", True),
    (".example.org", False, "example.org", False),
    ("example.org", True, "a.example.org", True),
    ("example.org", True, "anexample.org", False),
    ("inline:{.example.org=x}", False, "a.b.example.org", True),
    ("inline:{example.org=x}", False, "a.example.org", False),
    ("inline:{example.org=x}", True, "a.b.example.org", True),
    ("!bad.example.org .example.org", False, "bad.example.org", False),
    ("regexp:{{/^org$/ x}}", True, "example.org", False),
]


@pytest.mark.parametrize(("specs", "parent", "domain", "want"), DOMAINS)
def test_domain_list(specs: str, parent: bool, domain: str, want: bool) -> None:
    assert run(DomainList("x", specs, parent=parent).match(domain)) is want


NETWORKS = "127.0.0.0/8 [::1]/128 !10.0.0.1 10.0.0.0/8 [2001:db8::]/32 .trusted.test 192.0.2.7"
HOSTS = [
    ("", "127.0.0.1", True),
    ("", "::1", True),
    ("", "10.0.0.1", False),
    ("", "10.0.0.2", True),
    ("", "2001:db8::99", True),
    ("", "192.0.2.7", True),
    ("", "192.0.2.8", False),
    ("a.trusted.test", "192.0.2.8", True),
    ("unknown", "192.0.2.8", False),
]


@pytest.mark.parametrize(("name", "address", "want"), HOSTS)
def test_address_list(name: str, address: str, want: bool) -> None:
    assert run(AddressList("mynetworks", NETWORKS).match(name, address)) is want


def test_items_from_files(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.write_text("10.0.0.0/8\n# comment\n!192.0.2.1 192.0.2.0/24\n")
    outer.write_text(f"{inner}\n")
    networks = AddressList("x", f"{outer}")
    assert [run(networks.match("", f"{a}")) for a in ("10.1.1.1", "192.0.2.1", "192.0.2.2")] == [
        True,
        False,
        True,
    ]
    assert run(AddressList("x", f"!{outer}, 0.0.0.0/0").match("", "10.1.1.1")) is False


# What is no network, and cannot be meant as one of the client's protocol, names a host.
WRITTEN = [
    ("[be:be]", "127.0.0.1", False),
    ("[be:be]", "::1", None),
    ("192.168", "127.0.0.1", False),
    ("10.0.0.0/", "127.0.0.1", None),
    ("10.0.0.0/", "::1", False),
    ("1.2.3/24", "127.0.0.1", None),
    ("300.1.1.1", "127.0.0.1", False),
    ("[127.0.0.1]", "127.0.0.1", True),
    ("[127.0.0.0]/8", "127.0.0.1", True),
    ("[127.0.0.0/8]", "127.0.0.1", True),
    ("foo/8", "127.0.0.1", False),
    ("cafe/8", "127.0.0.1", None),
    ("[::1/128]", "::1", True),
    ("[::1", "127.0.0.1", False),
    ("[::1", "::1", None),
    ("[]", "127.0.0.1", False),
    ("[]/8", "127.0.0.1", None),
    ("[be:be] 127.0.0.0/8", "127.0.0.1", True),
]


@pytest.mark.parametrize(("specs", "address", "want"), WRITTEN)
def test_written_forms_of_networks(specs: str, address: str, want: bool | None) -> None:
    """None: an item that was reached cannot be understood."""
    networks = AddressList("mynetworks", specs, TableOptions(log=Recorder()))
    if want is None:
        with pytest.raises(TableRetry):
            run(networks.match("localhost", address))
    else:
        assert run(networks.match("localhost", address)) is want


def test_nothing_to_negate() -> None:
    with pytest.raises(TableConfigError):
        StringList("x", ["!"])


def test_what_cannot_be_decided_is_temporary() -> None:
    log = Recorder()
    options = TableOptions(log=log)
    networks = AddressList("mynetworks", "127.0.0.0/8 10.0.0.1/8", options)
    assert run(networks.match("", "127.0.0.1"))
    with pytest.raises(TableRetry, match="non-null host address bits"):
        run(networks.match("", "192.0.2.1"))
    for bad in ("fail:x", "/nonexistent/list", "lmdb:/nonexistent/table"):
        with pytest.raises(TableRetry):
            run(DomainList("relay_domains", bad, options).match("example.org"))
