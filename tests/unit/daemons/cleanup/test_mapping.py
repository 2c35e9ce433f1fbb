"""canonical(5), masquerading, virtual(5); the expansions are recorded from the real cleanup(8)."""

import asyncio

import pytest

from daemons.cleanup.mapping import ENVELOPE_SENDER, HEADER_RECIPIENT
from daemons.cleanup.status import Refused
from libmail.ipc.messages import CleanupStatus
from tests.unit.daemons.cleanup.conftest import MakeMapper

VIRTUAL = "inline:{ " + " ".join(
    f"{{{entry}}}"
    for entry in (
        "one@v.test=alice", "team@v.test=one@v.test, bob@example.test carol",
        "nested@v.test=team@v.test", "self@v.test=self@v.test, alice",
        "alice+work=alice+elsewhere@example.test", "root@example.test=alice@example.test",
        "tagged@v.test=bob", "@catch.test=carol@example.test", "special@catch.test=alice",
        "@moved.test=@example.test", "many@v.test=a1@v.test,a2@v.test,a3@v.test,a4@v.test,"
        "a5@v.test,a6@v.test,a7@v.test", "deep0@v.test=deep1@v.test", "deep1@v.test=deep2@v.test",
        "deep2@v.test=deep3@v.test", "deep3@v.test=deep4@v.test", "deep4@v.test=deep5@v.test",
        "deep5@v.test=deep6@v.test", "deep6@v.test=alice", "loopa@v.test=loopb@v.test",
        "loopb@v.test=loopa@v.test",
    )
) + " }"  # fmt: skip


@pytest.mark.parametrize(
    ("address", "targets"),
    [
        ("one@v.test", ["alice@example.test"]),
        ("tagged+ext@v.test", ["bob+ext@example.test"]),
        ("anyone@catch.test", ["carol@example.test"]),
        ("special@catch.test", ["alice@example.test"]),
        ("special+x@catch.test", ["alice+x@example.test"]),
        ("bob@moved.test", ["bob@example.test"]),
        ("nested@v.test", ["alice@example.test", "bob@example.test", "carol@example.test"]),
        ("self@v.test", ["self@v.test", "alice@example.test"]),
        ("alice+work@example.test", ["alice+elsewhere@example.test"]),
        ("ROOT@example.test", ["alice@example.test"]),
        ("other@elsewhere.test", ["other@elsewhere.test"]),
    ],
)
def test_virtual(make_mapper: MakeMapper, address: str, targets: list[str]) -> None:
    mapper = make_mapper(virtual_alias_maps=(VIRTUAL,))
    assert asyncio.run(mapper.expand("ID", address)) == targets


@pytest.mark.parametrize("address", ["many@v.test", "deep0@v.test", "loopa@v.test"])
def test_virtual_limits(make_mapper: MakeMapper, address: str) -> None:
    mapper = make_mapper(
        virtual_alias_maps=(VIRTUAL,),
        virtual_alias_expansion_limit=6,
        virtual_alias_recursion_limit=5,
    )
    with pytest.raises(Refused) as caught:
        asyncio.run(mapper.expand("ID", address))
    assert (caught.value.status, caught.value.dsn, caught.value.reason) == (
        CleanupStatus.DEFER, "4.6.0", "Alias expansion error",
    )  # fmt: skip


def test_failing_table_is_temporary(make_mapper: MakeMapper) -> None:
    mapper = make_mapper(virtual_alias_maps=("fail:broken",))
    with pytest.raises(Refused) as caught:
        asyncio.run(mapper.expand("ID", "a@b.test"))
    assert (caught.value.status, caught.value.dsn) == (CleanupStatus.WRITE, "4.3.0")


ODD = 'inline:{ {a@v.test=<>}, {b@v.test=""}, {c@v.test=alice, <>}, {d@v.test=(x)} }'


@pytest.mark.parametrize(
    ("address", "targets"),
    [
        ("a@v.test", ["@example.test"]),
        ("b@v.test", ["@example.test"]),
        ("c@v.test", ["alice@example.test"]),
    ],
)
def test_null_addresses(make_mapper: MakeMapper, address: str, targets: list[str]) -> None:
    mapper = make_mapper(virtual_alias_maps=(ODD,), sender_canonical_maps=(ODD,))
    assert asyncio.run(mapper.expand("ID", address)) == targets
    sender = "" if address < "c" else targets[0]
    assert asyncio.run(mapper.map_class(ENVELOPE_SENDER, "ID", address)) == sender


def test_a_result_that_is_no_address_is_temporary(make_mapper: MakeMapper) -> None:
    mapper = make_mapper(virtual_alias_maps=(ODD,))
    with pytest.raises(Refused) as caught:
        asyncio.run(mapper.expand("ID", "d@v.test"))
    assert (caught.value.status, caught.value.dsn) == (CleanupStatus.WRITE, "4.3.0")


@pytest.mark.parametrize(
    ("address", "mapped"),
    [
        ("user@any.thing.foo.example.com", "user@foo.example.com"),
        ("user@any.other.Example.com", "user@example.com"),
        ("user@not.example.com", "user@not.example.com"),
        ("user@x.not.example.com", "user@x.not.example.com"),
        ("root@a.example.com", "root@a.example.com"),
        ("user@elsewhere.test", "user@elsewhere.test"),
        ("old+x@example.test", "new.name+x@example.test"),
        ("two@example.test", "first@far.test"),
    ],
)
def test_canonical_and_masquerade(make_mapper: MakeMapper, address: str, mapped: str) -> None:
    mapper = make_mapper(
        masquerade_domains=("foo.example.com", "!not.example.com", "example.com"),
        masquerade_exceptions=("root",),
        canonical_maps=("inline:{{old=new.name}, {two=first@far.test second@far.test}}",),
    )
    assert asyncio.run(mapper.map_class(ENVELOPE_SENDER, "ID", address)) == mapped


def test_sender_tables_are_for_senders(make_mapper: MakeMapper) -> None:
    mapper = make_mapper(sender_canonical_maps=("inline:{a@b.test=c@d.test}",))
    assert asyncio.run(mapper.map_class(ENVELOPE_SENDER, "ID", "a@b.test")) == "c@d.test"
    assert asyncio.run(mapper.map_class(HEADER_RECIPIENT, "ID", "a@b.test")) == "a@b.test"
