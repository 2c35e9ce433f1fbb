"""TLSA records: parsing, and which certificates they match."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.tls.client_spec import ClientSpec
from libmail.tls.connection import Connection
from libmail.tls.context import ClientContext, ClientSettings, ServerContext, ServerSettings
from libmail.tls.dane import Tlsa, parse_tlsa, parse_tlsa_digests, read_tlsa
from libmail.tls.facts import Trust
from libmail.tls.pem import load_chains
from tests.certificates import Authority, Issued
from tests.unit.libmail.tls.pair import ANY, CIPHERS, GROUPS, Pair

NAME = "mx.example.com"
SPEC = ClientSpec(ciphers=CIPHERS, protocols=ANY)


def test_wire_form() -> None:
    record = parse_tlsa(b"\x03\x01\x01" + bytes(32))
    assert record == Tlsa(3, 1, 1, bytes(32))
    assert record is not None
    assert str(record) == "3 1 1 " + "00" * 32
    assert str(Tlsa(3, 0, 0, b"\xab" * 100)) == "3 0 0 " + "AB" * 16 + "..." + "AB" * 16
    assert parse_tlsa(b"\x03\x01\x01") is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Tlsa(3, 1, 1, bytes(32)), ""),
        (Tlsa(2, 0, 2, bytes(64)), ""),
        (Tlsa(2, 0, 0, b"x"), ""),
        (Tlsa(0, 1, 1, bytes(32)), "unsupported TLSA certificate usage"),
        (Tlsa(1, 1, 1, bytes(32)), "unsupported TLSA certificate usage"),
        (Tlsa(3, 2, 1, bytes(32)), "unsupported TLSA selector"),
        (Tlsa(3, 1, 1, bytes(31)), "malformed TLSA association data"),
        (Tlsa(3, 1, 2, bytes(32)), "malformed TLSA association data"),
        (Tlsa(3, 1, 255, bytes(32)), "reserved private-use matching type"),
    ],
)
def test_records_that_do_not_count(record: Tlsa, reason: str) -> None:
    assert record.unusable == reason


def test_zone_form() -> None:
    assert read_tlsa("3 1 1 AB cd") == Tlsa(3, 1, 1, b"\xab\xcd")
    for text in (
        "",
        "3",
        "3 1 1",
        "3 1 1 x",
        "3 1 256 AB",
        "3 -1 1 AB",
        "\u0663 1 1 AB",
        "3 1 1 A",
    ):
        assert read_tlsa(text) is None


@given(st.text(st.sampled_from("0123456789 abFx\u0663-"), max_size=30))
def test_zone_form_of_any_text(text: str) -> None:
    record = read_tlsa(text)
    assert record is None or read_tlsa(str(record)) == record


@given(st.binary(max_size=100))
def test_wire_form_of_any_octets(data: bytes) -> None:
    record = parse_tlsa(data)
    if record is not None:
        assert bytes((record.usage, record.selector, record.matching)) + record.data == data
        assert str(record)
        assert isinstance(record.unusable, str)


def test_digests() -> None:
    assert parse_tlsa_digests(("sha512", "sha256")) == (("sha512", 2), ("sha256", 1))
    assert parse_tlsa_digests(("SHA256", "sha3-256=9")) == (("sha256", 1), ("sha3-256", 9))
    for entries, words in (
        (("sha3-256",), "digest algorithm sha3-256 needs an explicit number"),
        (("sha256=x",), "Invalid matching type number"),
        (("sha256=0",), "Reserved matching type number"),
        (("sha256=255",), "Reserved matching type number"),
        (("sha1=1",), "matching type 1 can only be sha256"),
        (("sha256", "sha256"), "matching type 1 specified more than once"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_tlsa_digests(entries)


class Site:
    """A server whose certificate an intermediate authority has issued."""

    def __init__(self, directory: Path) -> None:
        self.root = Authority(directory / "root", "Root")
        self.below = Authority(directory / "below", "Below", self.root)
        self.issued = self.below.issue(NAME, NAME)
        # With usage 2 the server has to send the authority, too (RFC 7671 §5.2.2).
        with self.issued.chain.open("ab") as chain:
            chain.write(self.root.certificate.read_bytes())
        self.context = ServerContext(
            ServerSettings(
                chains=load_chains([str(self.issued.chain)]),
                ciphers=CIPHERS,
                protocols=ANY,
                groups=GROUPS,
            )
        )

    def asked(self, spec: ClientSpec, **settings: object) -> Connection:
        base = replace(ClientSettings(groups=GROUPS), **settings)  # type: ignore[arg-type]
        return Pair(self.context, ClientContext(base), spec).shake().client


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def record(issued: Issued, usage: int, selector: int, matching: int) -> Tlsa:
    data = issued.public_key() if selector else issued.der()
    if matching:
        data = hashlib.new("sha256" if matching == 1 else "sha512", data).digest()
    return Tlsa(usage, selector, matching, data)


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_records_that_match(site: Site, selector: int, matching: int) -> None:
    for usage, issued in ((3, site.issued), (2, site.below.own), (2, site.root.own)):
        right = record(issued, usage, selector, matching)
        wrong = replace(right, data=right.data[::-1]) if matching else right
        for tlsa in ((right,), (wrong, right)):
            spec = replace(SPEC, tlsa=tlsa, base_domain=NAME, names=(NAME,))
            connection = site.asked(spec)
            assert connection.trust is Trust.VERIFIED, (usage, issued.certificate)
            assert connection.dane_match == right


def test_records_that_do_not_match(site: Site) -> None:
    for usage, issued in ((3, site.below.own), (2, site.issued)):
        spec = replace(SPEC, tlsa=(record(issued, usage, 1, 1),), base_domain=NAME)
        connection = site.asked(spec)
        assert connection.trust is Trust.UNTRUSTED
        assert connection.refused is not None
        assert connection.dane_match is None
    spec = replace(SPEC, tlsa=(Tlsa(3, 1, 1, bytes(32)),), base_domain=NAME)
    refused = site.asked(spec).refused
    assert refused is not None
    assert "num=65:no matching DANE TLSA records" in refused.text("server", "mx")


def test_names_count_for_authorities_only(site: Site) -> None:
    """RFC 7671 §5.1: with usage 3 the key is enough; §5.2: with usage 2 the name has to match."""
    other = "other.example.com"
    spec = replace(SPEC, tlsa=(record(site.issued, 3, 1, 1),), base_domain=other, names=(other,))
    assert site.asked(spec).trust is Trust.VERIFIED
    spec = replace(SPEC, tlsa=(record(site.root.own, 2, 0, 1),), base_domain=other)
    connection = site.asked(spec)
    assert connection.trust is not Trust.VERIFIED
    assert connection.refused is not None


def test_usage_3_does_not_look_at_dates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    old = authority.issue(NAME, NAME, days=-1)
    context = ServerContext(
        ServerSettings(chains=load_chains([str(old.chain)]), ciphers=CIPHERS, protocols=ANY)
    )
    spec = replace(SPEC, tlsa=(record(old, 3, 1, 1),), base_domain=NAME)
    client = ClientContext(ClientSettings())
    assert Pair(context, client, spec).shake().client.trust is Trust.VERIFIED


def test_strongest_digest_counts(site: Site) -> None:
    """RFC 7671 §9: a weaker record is not looked at where there is a stronger one."""
    weak = record(site.issued, 3, 1, 1)
    strong = Tlsa(3, 1, 2, bytes(64))
    spec = replace(SPEC, tlsa=(weak, strong), base_domain=NAME)
    assert site.asked(spec).trust is Trust.UNTRUSTED
    turned = (("sha256", 1), ("sha512", 2))
    assert site.asked(spec, dane_digests=turned).trust is Trust.VERIFIED
    assert site.asked(spec, dane_digests=(("sha256", 1),)).trust is Trust.VERIFIED


def test_records_that_cannot_be_used(site: Site) -> None:
    bad = (Tlsa(1, 1, 1, bytes(32)), Tlsa(3, 0, 0, b"nonsense"), Tlsa(3, 1, 7, b"x"))
    connection = site.asked(replace(SPEC, tlsa=bad, base_domain=NAME))
    assert not connection.usable_records
    assert connection.trust is Trust.UNTRUSTED
    good = record(site.issued, 3, 1, 1)
    connection = site.asked(replace(SPEC, tlsa=(*bad, good), base_domain=NAME))
    assert connection.usable_records
    assert connection.trust is Trust.VERIFIED


def test_trust_anchors(site: Site) -> None:
    """tafile=: an authority or its key, at any place of the chain, instead of a CAfile."""
    for anchor in (
        Tlsa(2, 0, 0, site.below.own.der()),
        Tlsa(2, 1, 0, site.below.own.public_key()),
        Tlsa(2, 0, 0, site.root.own.der()),
    ):
        spec = replace(SPEC, anchors=(anchor,))
        assert site.asked(replace(spec, names=(NAME,))).trust is Trust.VERIFIED
        assert site.asked(replace(spec, names=("x.example.com",))).trust is Trust.TRUSTED
        assert site.asked(spec).trust is Trust.TRUSTED
    stranger = Tlsa(2, 0, 0, site.root.self_signed("x").der())
    assert site.asked(replace(SPEC, anchors=(stranger,), names=(NAME,))).trust is Trust.UNTRUSTED
