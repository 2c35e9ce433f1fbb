"""Policy tables, levels, names: which TLS a client uses, and with whom."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.config import Config, open_config
from libmail.tls.client_params import ClientTlsParams
from libmail.tls.dane import Tlsa
from libmail.tls.errors import TlsConfigError
from libmail.tls.facts import Trust
from libmail.tls.levels import Level
from libmail.tls.params import TlsParams
from libmail.tls.policy import (
    Policy,
    Where,
    choose,
    client_level,
    session_key,
    site_level,
    with_records,
)
from libmail.tls.policy_entry import Find, PolicyEntry, PolicyError, find_entry, parse_entry

WHERE = Where("example.com", "mx.example.com")
RIGHT = Tlsa(3, 1, 1, bytes(32))


def config(tmp_path: Path, **settings: str) -> Config:
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (tmp_path / "main.cf").write_text("\n".join(["compatibility_level = 3.12", *lines, ""]))
    return open_config(str(tmp_path))


def table(entries: Mapping[str, str]) -> Find:
    async def find(key: str) -> str | None:
        return entries.get(key)

    return find


def chosen(
    tmp_path: Path,
    entries: Mapping[str, str] | None = None,
    sites: Mapping[str, str] | None = None,
    nexthop: str = "example.com",
    prefix: tuple[str, str] | None = None,
    **settings: str,
) -> Policy:
    if entries is not None:
        settings.setdefault("smtp_tls_policy_maps", "static:x")
    if sites is not None:
        settings.setdefault("smtp_tls_per_site", "static:x")
    loaded = config(tmp_path, **settings)
    params = loaded.load(ClientTlsParams, prefix)
    common = loaded.load(TlsParams)
    find = table(entries or {})
    return asyncio.run(choose(find, table(sites or {}), params, common, nexthop, WHERE))


# -- entries


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("may", PolicyEntry(Level.MAY)),
        ("  Secure\tciphers=high, protocols=>=TLSv1.2:!TLSv1.3",
         PolicyEntry(Level.SECURE, ciphers="high", protocols=">=TLSv1.2:!TLSv1.3")),
        ("secure match=.example.net:example.net match=nexthop",
         PolicyEntry(Level.SECURE, match=(".example.net", "example.net", "nexthop"))),
        ("fingerprint match=AA:BB|CC:DD match=EEFF",
         PolicyEntry(Level.FINGERPRINT, match=("AA:BB", "CC:DD", "EEFF"))),
        ("verify tafile=/a tafile=/b", PolicyEntry(Level.VERIFY, anchor_files=("/a", "/b"))),
        ("encrypt exclude=aNULL:DES+MD5 servername=hostname connection_reuse=YES enable_rpk=no",
         PolicyEntry(Level.ENCRYPT, exclude="aNULL:DES+MD5", server_name="hostname",
                     connection_reuse=True, raw_keys=False)),
        ("none protocols=nonsense", PolicyEntry(Level.NONE)),
        ("dane-only { ciphers = high }", PolicyEntry(Level.DANE_ONLY, ciphers="high")),
    ],
)  # fmt: skip
def test_entries(text: str, wanted: PolicyEntry) -> None:
    assert parse_entry(text, "w") == wanted


def test_entry_of_a_plugin() -> None:
    entry = parse_entry(
        "secure match=mail.example.com:.b.example.com servername=hostname policy_type=sts"
        " policy_domain=example.com policy_ttl=86400 mx_host_pattern=mail.example.com"
        " mx_host_pattern=*.b.example.com { policy_string = version: STSv1 }"
        " { policy_string = mode: enforce } policy_failure=sts-webpki-invalid",
        "w",
    )
    assert entry.match == ("mail.example.com", ".b.example.com")
    assert entry.sts.strings == ("version: STSv1", "mode: enforce")
    assert entry.sts.mx_patterns == ("mail.example.com", "*.b.example.com")
    assert (entry.sts.policy_type, entry.sts.domain, entry.sts.ttl) == ("sts", "example.com", 86400)
    assert entry.sts.failure == "sts-webpki-invalid"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("", "w: invalid empty policy"),
        ("best", 'w: invalid security level "best"'),
        ("may nonsense", "w: malformed attribute/value pair \"nonsense\":"
                         " missing '=' after attribute name"),
        ("may =x", 'w: malformed attribute/value pair "=x": missing attribute name'),
        ("may { x=y", "w: malformed attribute/value pair \"{ x=y\": missing '}' in \"{ x=y\""),
        ("may nonsense=1", 'w: invalid attribute name: "nonsense"'),
        ("may ciphers=", 'w: attribute "ciphers" has empty value'),
        ("may ciphers=high ciphers=low", 'w: attribute "ciphers" is specified multiple times'),
        ("may match=x", 'w: attribute "match" invalid at security level "may"'),
        ("dane match=x", 'w: attribute "match" invalid at security level "dane"'),
        ("encrypt tafile=/x", 'w: attribute "tafile" invalid at security level "encrypt"'),
        ("may enable_rpk=perhaps", 'w: attribute "enable_rpk" has bad value: "perhaps"'),
        ("may policy_failure=x", 'w: attribute "policy_failure" has bad value: "x"'),
        ("may policy_ttl=-1", 'w: attribute "policy_ttl" has bad value: "-1"'),
    ],
)  # fmt: skip
def test_entries_with_mistakes(text: str, warning: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_entry(text, "w")
    assert caught.value.warning == warning
    assert caught.value.reason == "client TLS configuration problem"
    assert caught.value.dsn == "4.7.5"


@given(st.text(max_size=100), st.sampled_from([level.label for level in Level]))
def test_entries_of_any_text(text: str, level: str) -> None:
    for value in (text, f"{level} {text}", f"{level} match={text}", f"{level} {{ {text} }}"):
        try:
            entry = parse_entry(value, "w")
        except PolicyError as error:
            assert error.warning.startswith("w: ")  # noqa: PT017
        else:
            assert entry.level in Level


def test_keys_of_a_next_hop() -> None:
    asked: list[str] = []

    async def find(key: str) -> str | None:
        asked.append(key)
        return None

    for nexthop, keys in (
        ("a.b.example", ["a.b.example", ".b.example", ".example"]),
        ("[a.b.example]", ["[a.b.example]"]),
        ("a.example:26", ["a.example:26"]),
        ("[192.0.2.1]:25", ["[192.0.2.1]:25"]),
        ("192.0.2.1", ["192.0.2.1"]),
    ):
        asked.clear()
        assert asyncio.run(find_entry(find, "m", nexthop)) is None
        assert asked == keys
    found = asyncio.run(find_entry(table({".b.example": "encrypt"}), "m", "a.b.example"))
    assert found == PolicyEntry(Level.ENCRYPT)
    with pytest.raises(PolicyError) as caught:
        asyncio.run(find_entry(table({".b.example": "x"}), "smtp_tls_policy_maps", "a.b.example"))
    assert caught.value.warning == (
        'smtp_tls_policy_maps, next-hop destination ".b.example": invalid security level "x"'
    )


# -- levels


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({"smtp_tls_security_level": ""}, Level.NONE),
        ({}, Level.MAY),
        ({"smtp_tls_security_level": "Dane-Only"}, Level.DANE_ONLY),
        ({"smtp_tls_security_level": "", "smtp_use_tls": "yes"}, Level.MAY),
        ({"smtp_tls_security_level": "", "smtp_enforce_tls": "yes"}, Level.VERIFY),
        ({"smtp_tls_security_level": "", "smtp_enforce_tls": "yes",
          "smtp_tls_enforce_peername": "no"}, Level.ENCRYPT),
        ({"smtp_tls_security_level": "none", "smtp_enforce_tls": "yes"}, Level.NONE),
    ],
)  # fmt: skip
def test_level(tmp_path: Path, settings: dict[str, str], level: Level) -> None:
    assert client_level(config(tmp_path, **settings).load(ClientTlsParams)) is level


def test_level_that_is_none(tmp_path: Path) -> None:
    params = config(tmp_path, smtp_tls_security_level="x").load(ClientTlsParams)
    with pytest.raises(TlsConfigError, match='Invalid TLS level "x"'):
        client_level(params)


def test_lmtp_has_its_own(tmp_path: Path) -> None:
    prefix = ("smtp_", "lmtp_")
    settings = {"smtp_tls_security_level": "encrypt", "lmtp_tls_security_level": "secure"}
    policy = chosen(tmp_path, None, None, prefix=prefix, **settings)
    assert (policy.level, policy.match) == (Level.SECURE, ("nexthop",))


@pytest.mark.parametrize(
    ("nexthop", "host", "default", "level"),
    [
        (None, None, Level.ENCRYPT, Level.ENCRYPT),
        ("NONE", None, Level.VERIFY, Level.NONE),
        ("may", None, Level.NONE, Level.MAY),
        ("MAY", None, Level.VERIFY, Level.VERIFY),
        ("MAY", "NONE", Level.MAY, Level.NONE),
        ("NONE", "MUST", Level.NONE, Level.VERIFY),
        ("MUST_NOPEERMATCH", "NONE", Level.NONE, Level.ENCRYPT),
        ("MUST_NOPEERMATCH", "MUST", Level.NONE, Level.VERIFY),
        ("MAY", "MUST_NOPEERMATCH", Level.NONE, Level.ENCRYPT),
    ],
)
def test_sites(nexthop: str | None, host: str | None, default: Level, level: Level) -> None:
    entries = {key: value for key, value in (("n", nexthop), ("h", host)) if value}
    assert asyncio.run(site_level(table(entries), default, "n", "h")) is level


def test_site_that_is_none() -> None:
    with pytest.raises(PolicyError) as caught:
        asyncio.run(site_level(table({"h": "x"}), Level.NONE, "n", "h"))
    assert "unknown TLS policy 'x' for server hostname h" in caught.value.warning


def test_tables_come_first(tmp_path: Path) -> None:
    assert chosen(tmp_path, {"example.com": "none"}).level is Level.NONE
    assert chosen(tmp_path, {}, {"example.com": "MUST"}).level is Level.MAY
    assert chosen(tmp_path, None, {"example.com": "MUST"}).level is Level.VERIFY


# -- ciphers and protocols


@pytest.mark.parametrize(
    ("entry", "ciphers", "protocols"),
    [
        ("may", "M:!RC4", ">=TLSv1"),
        ("may exclude=MD5 ciphers=high protocols=TLSv1.2", "H:!MD5", "TLSv1.2"),
        ("encrypt", "H:!RC4:!SHA1:!eNULL", ">=TLSv1.2"),
        ("encrypt exclude=MD5 ciphers=medium", "M:!RC4:!MD5:!eNULL", ">=TLSv1.2"),
        ("verify protocols=!TLSv1.3", "H:!RC4:!SHA1:!aNULL", "!TLSv1.3"),
        ("fingerprint ciphers=null", "N:!RC4:!SHA1:!aNULL", ">=TLSv1.2"),
    ],
)
def test_ciphers(tmp_path: Path, entry: str, ciphers: str, protocols: str) -> None:
    policy = chosen(
        tmp_path,
        {"example.com": entry},
        tls_high_cipherlist="H",
        tls_medium_cipherlist="M",
        tls_null_cipherlist="N",
        smtp_tls_exclude_ciphers="RC4",
        smtp_tls_mandatory_exclude_ciphers="SHA1",
        smtp_tls_mandatory_ciphers="high",
        smtp_tls_mandatory_protocols=">=TLSv1.2",
    )
    assert (policy.ciphers, policy.protocols) == (ciphers, protocols)


@pytest.mark.parametrize("entry", ["may ciphers=x", "encrypt protocols=x", "may exclude=!x"])
def test_ciphers_with_mistakes(tmp_path: Path, entry: str) -> None:
    with pytest.raises(PolicyError) as caught:
        chosen(tmp_path, {"example.com": entry})
    assert caught.value.warning.endswith(": aborting TLS session")


# -- names


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ("may", ()),
        ("encrypt", ()),
        ("verify", ("mx.example.com",)),
        ("secure", ("example.com", ".example.com")),
        ("verify match=hostname:Nexthop:x.example", ("mx.example.com", "example.com", "x.example")),
        ("secure match=dot-nexthop", (".example.com",)),
    ],
)
def test_names(tmp_path: Path, entry: str, names: tuple[str, ...]) -> None:
    assert chosen(tmp_path, {"example.com": entry}).spec(WHERE).names == names


def test_names_that_are_empty(tmp_path: Path) -> None:
    policy = chosen(tmp_path, {"example.com": "secure match=dot-nexthop:nexthop"})
    with pytest.raises(PolicyError, match="client TLS configuration problem"):
        policy.spec(Where("", "mx"))


@pytest.mark.parametrize(
    ("servername", "name"),
    [
        ("", ""),
        ("hostname", "mx.example.com"),
        ("Nexthop", "example.com"),
        ("x.example.org", "x.example.org"),
    ],
)
def test_server_name(tmp_path: Path, servername: str, name: str) -> None:
    assert chosen(tmp_path, smtp_tls_servername=servername).spec(WHERE).server_name == name


def test_server_name_of_an_address(tmp_path: Path) -> None:
    policy = chosen(tmp_path, smtp_tls_servername="hostname")
    assert policy.spec(Where("192.0.2.1", "192.0.2.1")).server_name == ""
    with pytest.raises(PolicyError) as caught:
        replace(policy, server_name="a..b").spec(WHERE)
    assert "invalid hostname" in caught.value.warning


def test_fingerprints(tmp_path: Path) -> None:
    setting = "ab:cd:ef, ABCD01"
    policy = chosen(
        tmp_path, smtp_tls_security_level="fingerprint", smtp_tls_fingerprint_cert_match=setting
    )
    assert policy.spec(WHERE).fingerprints == {"AB:CD:EF", "AB:CD:01"}
    for match, words in (((), "with no fingerprints"), (("xyz",), "malformed fingerprint")):
        with pytest.raises(PolicyError) as caught:
            replace(policy, match=match).spec(WHERE)
        assert words in caught.value.warning


# -- DANE


def dane(tmp_path: Path, level: str = "dane") -> Policy:
    return chosen(
        tmp_path,
        smtp_tls_security_level=level,
        smtp_dns_support_level="dnssec",
        smtp_tls_ciphers="medium",
        smtp_tls_mandatory_ciphers="high",
        tls_high_cipherlist="H",
        tls_medium_cipherlist="M",
    )


def test_dane_with_records(tmp_path: Path) -> None:
    policy = with_records(dane(tmp_path), [Tlsa(0, 0, 1, bytes(32)), RIGHT], "tlsa.example.com")
    spec = policy.spec(WHERE)
    assert policy.level is Level.DANE
    assert (spec.tlsa, spec.base_domain, spec.server_name) == (
        (RIGHT,), "tlsa.example.com", "tlsa.example.com")  # fmt: skip
    assert spec.names == ("tlsa.example.com", "example.com", "mx.example.com")
    assert spec.ciphers == "H:!aNULL"


def test_insecure_mx_does_not_vouch_for_the_next_hop(tmp_path: Path) -> None:
    policy = with_records(dane(tmp_path, "half-dane"), [RIGHT], "mx.example.com")
    assert policy.spec(WHERE).names == ("mx.example.com",)


def test_dane_without_records(tmp_path: Path) -> None:
    """No records: opportunistic; none that counts: encryption, with whomever."""
    policy = dane(tmp_path)
    none, unusable = with_records(policy, None, ""), with_records(policy, [Tlsa(0, 0, 1, b"")], "")
    assert (none.level, none.ciphers) == (Level.MAY, "M")
    assert (unusable.level, unusable.ciphers) == (Level.ENCRYPT, "H:!eNULL")
    only = dane(tmp_path, "dane-only")
    for records, reason in ((None, "no TLSA records found"), ([], "TLSA records unusable")):
        with pytest.raises(PolicyError, match=reason):
            with_records(only, records, "")


def test_dane_needs_dnssec(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        chosen(tmp_path, smtp_tls_security_level="dane-only")
    assert "dane-only configured with dnssec lookups disabled" in caught.value.warning
    policy = chosen(tmp_path, smtp_tls_security_level="dane")
    assert policy.level is Level.MAY
    assert policy.warning.endswith(": dane configured with dnssec lookups disabled")


def test_raw_keys_where_they_are_enough(tmp_path: Path) -> None:
    for entry, wanted in (("may", True), ("encrypt", True), ("verify", False),
                          ("may enable_rpk=no", False)):  # fmt: skip
        policy = chosen(tmp_path, {"example.com": entry}, smtp_tls_enable_rpk="yes")
        assert policy.spec(WHERE).raw_keys is wanted
    policy = replace(dane(tmp_path), raw_keys=True)
    for records, wanted in (([RIGHT], True), ([RIGHT, Tlsa(2, 0, 1, bytes(32))], False)):
        assert with_records(policy, records, "x").spec(WHERE).raw_keys is wanted


# -- MTA-STS, and the rest


STS = (
    "secure match=mail.example.com servername=hostname policy_type=sts"
    " mx_host_pattern=mail.example.com mx_host_pattern=*.b.example.com"
)


def test_sts(tmp_path: Path) -> None:
    policy = chosen(tmp_path, {"example.com": STS})
    assert policy.match == ("hostname",)
    for host, allowed in (
        ("mail.example.com", True),
        ("MAIL.example.com", True),
        ("x.B.example.com", True),
        ("b.example.com", False),
        ("x.y.b.example.com", False),
        ("example.com", False),
    ):
        assert policy.allows_host(host) is allowed
    policy = chosen(tmp_path, {"example.com": STS}, smtp_tls_enforce_sts_mx_patterns="no")
    assert policy.match == ("mail.example.com",)
    assert policy.allows_host("anything")
    with pytest.raises(PolicyError, match="sts-webpki-invalid"):
        chosen(tmp_path, {"example.com": f"{STS} policy_failure=sts-webpki-invalid"})


def test_what_is_known_must_be_enough(tmp_path: Path) -> None:
    for level, trust, good in (
        ("may", Trust.UNTRUSTED, True),
        ("encrypt", Trust.ANONYMOUS, True),
        ("verify", Trust.TRUSTED, False),
        ("secure", Trust.VERIFIED, True),
        ("fingerprint", Trust.UNTRUSTED, False),
    ):
        problem = chosen(tmp_path, smtp_tls_security_level=level).unmet(trust)
        assert (problem is None) is good
        if problem is not None:
            assert (problem.reason, problem.dsn) == ("Server certificate not verified", "4.7.5")


def test_sessions_are_kept_by_all_that_counts(tmp_path: Path) -> None:
    spec = chosen(tmp_path, smtp_tls_security_level="verify").spec(WHERE)
    place, other = ["example.com", "192.0.2.1", "25"], ["example.com", "192.0.2.2", "25"]
    key = session_key("smtp", place, spec)
    others = {
        session_key("lmtp", place, spec),
        session_key("smtp", other, spec),
        session_key("smtp", place, replace(spec, names=("x",))),
        session_key("smtp", place, replace(spec, tlsa=(RIGHT,))),
    }
    assert len(others) == 4
    assert key not in others


class Colliding(str):
    """A set of such has the order in which they came; that of others changes with each start."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 1


def test_the_order_of_fingerprints_does_not_count(tmp_path: Path) -> None:
    spec = chosen(tmp_path, smtp_tls_security_level="verify").spec(WHERE)
    prints = Colliding("aa"), Colliding("bb")
    keys = {
        session_key("smtp", ["x"], replace(spec, fingerprints=frozenset(order)))
        for order in (prints, prints[::-1])
    }
    assert len(keys) == 1
    assert keys.isdisjoint({session_key("smtp", ["x"], spec)})


# -- tables mta-sts:


def by_sts(mode: str, more: str = "") -> dict[str, str]:
    return {"example.com": f"{STS} policy_domain=example.com policy_mode={mode}{more}"}


DANE: dict[str, Any] = {"smtp_tls_security_level": "dane", "smtp_dns_support_level": "dnssec"}


def test_dane_goes_before_a_policy_that_says_so(tmp_path: Path) -> None:
    """Also where main.cf wants nothing but DANE; a plug-in's policy replaces it, as ever."""
    for level in ("dane", "dane-only", "half-dane"):
        policy = chosen(tmp_path, by_sts("enforce"), **{**DANE, "smtp_tls_security_level": level})
        assert policy.level is Level.DANE
        found = with_records(policy, [RIGHT], "mx.example.com")
        assert found.spec(WHERE).tlsa == (RIGHT,)
        assert found.mx_hosts == ()
        assert found.reported.kind == 1
        for records in (None, [Tlsa(0, 0, 1, b"")]):
            instead = with_records(policy, records, "mx.example.com")
            assert (instead.level, instead.match) == (Level.SECURE, ("hostname",))
            assert instead.mx_hosts == ("mail.example.com", "*.b.example.com")
    assert chosen(tmp_path, {"example.com": STS}, **DANE).level is Level.SECURE


def test_no_dane_no_detour(tmp_path: Path) -> None:
    for level in ("may", "dane"):
        policy = chosen(tmp_path, by_sts("enforce"), smtp_tls_security_level=level)
        assert (policy.level, policy.warning, policy.tested) == (Level.SECURE, "", False)


def test_a_policy_in_testing_changes_nothing(tmp_path: Path) -> None:
    """But that the names of the server are looked at, if main.cf has no demands of its own."""
    for level, tested in (("may", True), ("encrypt", True), ("secure", False), ("none", True)):
        policy = chosen(tmp_path, by_sts("testing"), smtp_tls_security_level=level)
        plain = chosen(tmp_path, smtp_tls_security_level=level)
        assert (policy.level.label, policy.tested) == (level, tested)
        assert policy.unmet(Trust.UNTRUSTED) == plain.unmet(Trust.UNTRUSTED) or level == "secure"
        policy.refuse_host("example.com", "other.test")
        if level == "secure":
            assert policy.match == plain.match
            assert policy.spec(WHERE) == replace(plain.spec(WHERE), server_name="")
        else:
            assert policy.spec(WHERE).names == ("mx.example.com",)
            assert policy.spec(WHERE).ciphers.endswith("!aNULL")
    assert policy.reported.domain == "example.com"


def test_what_is_reported_of_a_policy_in_testing(tmp_path: Path) -> None:
    policy = chosen(tmp_path, by_sts("testing"), smtp_tls_security_level="may")
    assert policy.objection("mail.example.com") is None
    wrong = policy.objection("other.test")
    assert wrong is not None
    assert wrong.kind == 205
    assert policy.fails_test(Trust.TRUSTED)
    assert not policy.fails_test(Trust.VERIFIED)
    enforced = chosen(tmp_path, by_sts("enforce"), smtp_tls_security_level="may")
    assert enforced.objection("other.test") is None
    assert not enforced.fails_test(Trust.UNTRUSTED)


def test_dane_goes_before_a_policy_in_testing(tmp_path: Path) -> None:
    policy = chosen(tmp_path, by_sts("testing"), **DANE)
    found, none = with_records(policy, [RIGHT], "x"), with_records(policy, None, "")
    assert (found.level, found.tested, found.objection("other.test")) == (Level.DANE, False, None)
    assert (none.level, none.tested) == (Level.MAY, True)


def test_a_policy_that_cannot_be_had(tmp_path: Path) -> None:
    entry = "secure policy_type=sts policy_domain=a.test policy_failure=sts-policy-invalid"
    policy = chosen(tmp_path, {"example.com": f"{entry} policy_mode=testing"},
                    smtp_tls_security_level="may")  # fmt: skip
    assert (policy.level, policy.tested, policy.spec(WHERE).names) == (Level.MAY, False, ())
    found = policy.objection("any.test")
    assert found is not None
    assert found.kind == 302
