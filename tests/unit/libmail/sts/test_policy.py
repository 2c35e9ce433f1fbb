"""Records and files of MTA-STS: what is a policy, and what is none."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.sts.policy import (
    LONGEST_LIFE,
    MOST_OCTETS,
    Mode,
    Policy,
    PolicyInvalid,
    parse_policy,
    policy_domain,
    policy_id,
    valid_id,
)

FILE = "version: STSv1\r\nmode: enforce\r\nmx: mx.a.test\r\nmx: *.b.test\r\nmax_age: 86400\r\n"
POLICY = Policy(Mode.ENFORCE, ("mx.a.test", "*.b.test"), 86400)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (FILE, POLICY),
        (FILE.replace("\r", ""), POLICY),
        (FILE.rstrip(), POLICY),
        (f"\n{FILE}\r\n\n", POLICY),
        (FILE.replace(": ", ":"), POLICY),
        (FILE.replace("\r\n", " \t\r\n"), POLICY),
        (FILE.upper().replace("VERSION", "version").replace("STSV1", "STSv1")
         .replace("MODE: ENFORCE", "mode: enforce").replace("MX:", "mx:")
         .replace("MAX_AGE", "max_age"), POLICY),
        (f"{FILE}mx: mx.a.test\n", POLICY),
        (f"{FILE}mode: none\nmax_age: 1\nversion: x\n", POLICY),
        (f"x-later.1: what \u00fc ever\n{FILE}", POLICY),
        ("max_age: 0\nmode: none\nversion: STSv1", Policy(Mode.NONE, (), 0)),
        (FILE.replace("enforce", "testing"), Policy(Mode.TESTING, POLICY.mx, 86400)),
        (FILE.replace("86400", "9999999999"), Policy(Mode.ENFORCE, POLICY.mx, LONGEST_LIFE)),
    ],
)  # fmt: skip
def test_files(text: str, wanted: Policy) -> None:
    assert parse_policy(text.encode()) == wanted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "policy of an unknown version"),
        (FILE.replace("STSv1", "STSv2"), "policy of an unknown version"),
        (FILE.replace("STSv1", "stsv1"), "policy of an unknown version"),
        (FILE.replace("enforce", "Enforce"), "policy without a mode that is known"),
        (FILE.replace("mode:", "x:"), "policy without a mode that is known"),
        (FILE.replace("86400", "-1"), "policy without max_age"),
        (FILE.replace("86400", "1d"), "policy without max_age"),
        (FILE.replace("86400", "\u0661"), "policy without max_age"),
        (FILE.replace("86400", "12345678901"), "policy without max_age"),
        (FILE.replace("mx:", "x:"), "policy without mx"),
        (FILE.replace("*.b", "*b"), "malformed mx in the policy"),
        (FILE.replace("*.b", "a.*.b"), "malformed mx in the policy"),
        (FILE.replace("*.b.test", "*"), "malformed mx in the policy"),
        (FILE.replace("*.b.test", "*."), "malformed mx in the policy"),
        (FILE.replace("*.b.test", "192.0.2.1"), "malformed mx in the policy"),
        (FILE.replace("*.b.test", "a:b"), "malformed mx in the policy"),
        (FILE.replace("*.b.test", "a } b"), "malformed mx in the policy"),
        (FILE.replace("*.b.test", "m\u00fc.test"), "malformed mx in the policy"),
        (f"{FILE}nonsense\n", "a line of the policy is no field"),
        (f"{FILE}x: \n", "a line of the policy is no field"),
        (f"{FILE}: x\n", "a line of the policy is no field"),
        (f"{FILE} x: y\n", "a line of the policy is no field"),
        (f"{FILE}{'x' * 33}: y\n", "a line of the policy is no field"),
        (f"{FILE}x: y\rmode: none\n", "control character in the policy"),
        (f"{FILE}x: \0\n", "control character in the policy"),
        ("<html>\n<head>\n", "a line of the policy is no field"),
        (FILE + "".join(f"mx: m{n}.test\n" for n in range(500)), "policy with too many mx"),
        (FILE + "".join(f"mx: {'a' * 60}.{n}.test\n" for n in range(400)),
         "policy with too many mx"),
        (FILE + "x: y\n" * (MOST_OCTETS // 4), "policy too long"),
    ],
)  # fmt: skip
def test_what_is_no_policy(text: str, why: str) -> None:
    with pytest.raises(PolicyInvalid, match=f"^{why}$"):
        parse_policy(text.encode())


def test_octets() -> None:
    with pytest.raises(PolicyInvalid, match="policy is not text"):
        parse_policy(b"\xff" + FILE.encode())


ELEMENTS = st.sampled_from(
    ["version", "mode", "mx", "max_age", ":", " ", "STSv1", "enforce", "\n", "\r\n", "*.", "a.test"]
)


@given(st.lists(ELEMENTS | st.text(max_size=3)).map("".join))
def test_any_file(text: str) -> None:
    """What is a policy tells its own lines, and these are the same policy."""
    with suppress(PolicyInvalid):
        policy = parse_policy(text.encode("utf-8", "surrogatepass"))
        assert parse_policy("\n".join(policy.lines).encode()) == policy


HOSTS = st.from_regex(r"(\*\.)?[a-z0-9]{1,20}(\.[a-z][a-z0-9]{0,20}){1,3}", fullmatch=True)


@given(st.lists(HOSTS, min_size=1, max_size=20, unique=True), st.integers(0, 2**33))
def test_any_policy(hosts: list[str], life: int) -> None:
    text = f"version: STSv1\nmode: testing\nmax_age: {life}\n"
    policy = parse_policy((text + "".join(f"mx: {host}\n" for host in hosts)).encode())
    assert policy == Policy(Mode.TESTING, tuple(hosts), min(life, LONGEST_LIFE))


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1 ; id=1"], ""),
        (["v=STSv1; id=1; id=2"], "1"),
        (["v=STSv1; x-y.z=a; id=1 ;"], "1"),
        (["v=spf1 -all", "v=STSv1; id=1", "v=STSv10; id=2"], "1"),
        (["v=STSv1; id=1", "v=STSv1; id=1"], ""),
        (["v=STSv1; id=1", "v=STSv1; nonsense"], ""),
        (["v=STSv1;"], ""),
        (["v=STSv1; x=1"], ""),
        (["v=STSv1; id="], ""),
        (["v=STSv1; id=a-b"], ""),
        ([f"v=STSv1; id={'1' * 33}"], ""),
        (["v=STSv1; id=1;;"], ""),
        (["v=STSv1; id=1; =x"], ""),
        (["V=STSv1; id=1"], ""),
        ([" v=STSv1; id=1"], ""),
        (["v=STSv1; id=1; x=" + "y" * 5000], ""),
        ([], ""),
    ],
)
def test_records(texts: list[str], wanted: str) -> None:
    assert policy_id(texts) == wanted


@given(st.lists(st.text() | st.text().map(lambda text: f"v=STSv1; {text}"), max_size=3))
def test_any_record(texts: list[str]) -> None:
    found = policy_id(texts)
    assert not found or valid_id(found)


@pytest.mark.parametrize(
    ("nexthop", "wanted"),
    [
        ("a.test", "a.test"),
        ("A.Test.", "a.test"),
        ("[mx.a.test]", "mx.a.test"),
        ("[mx.a.test]:587", "mx.a.test"),
        ("a.test:smtp", "a.test"),
        ("inet:a.test:24", "a.test"),
        ("m\u00fcller.test", "xn--mller-kva.test"),
        ("[192.0.2.1]", ""),
        ("192.0.2.1", ""),
        ("[ipv6:2001:db8::1]", ""),
        ("unix:/run/lmtp", ""),
        (".a.test", ""),
        ("localhost", ""),
        ("a b.test", ""),
        ("a.test\0", ""),
        ("", ""),
        (f"{'a.' * 130}test", ""),
        ("a." * 100_000, ""),
    ],
)
def test_domains(nexthop: str, wanted: str) -> None:
    assert policy_domain(nexthop) == wanted
