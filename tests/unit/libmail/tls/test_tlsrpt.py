"""Reports of handshakes: what is in a datagram, and who wants one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.tls.facts import Refusal
from libmail.tls.tlsrpt import (
    NO_POLICY,
    FailureType,
    PolicyKind,
    ReportedFailure,
    ReportedPolicy,
    ReportedServer,
    datagram,
    distrust,
    failure_named,
    tlsrpt_record,
)

RECORD = "v=TLSRPTv1; rua=mailto:tls@a.test"
SERVER = ReportedServer("mx.a.test", "192.0.2.1", "hello.a.test", "192.0.2.9")


def test_success() -> None:
    policy = ReportedPolicy(
        PolicyKind.STS, "sts.a.test", ("version: STSv1", "mode: enforce"), ("*.a.test",)
    )
    assert json.loads(datagram("a.test", RECORD, policy, SERVER, None)) == {
        "dpv": "1",
        "d": "a.test",
        "pr": RECORD,
        "policies": [
            {
                "policy-type": 2,
                "policy-domain": "sts.a.test",
                "policy-string": ["version: STSv1", "mode: enforce"],
                "mx-host": ["*.a.test"],
                "t": 0,
                "f": 0,
            }
        ],
    }


def test_failure() -> None:
    failure = ReportedFailure(FailureType.VALIDATION_FAILURE, "self-signed certificate")
    (policy,) = json.loads(datagram("a.test", RECORD, NO_POLICY, SERVER, failure))["policies"]
    assert policy == {
        "policy-type": 9,
        "policy-domain": "a.test",
        "failure-details": [
            {
                "c": 205,
                "s": "192.0.2.9",
                "n": "mx.a.test",
                "h": "hello.a.test",
                "r": "192.0.2.1",
                "f": "self-signed_certificate",
            }
        ],
        "t": 1,
        "f": 1,
    }


@given(st.text(st.characters(), max_size=600), st.text(st.characters(), max_size=600))
def test_whatever_strangers_say_is_utf8(hello: str, line: str) -> None:
    """surrogates, too: a collector would choke on them."""
    policy = ReportedPolicy(PolicyKind.STS, line, (line,), (line,))
    server = ReportedServer("mx.a.test", "192.0.2.1", hello)
    failure = ReportedFailure(FailureType.STARTTLS_NOT_SUPPORTED, line)
    told = json.loads(datagram("a.test", RECORD, policy, server, failure).decode())
    assert told["policies"][0]["t"] == 1
    json.dumps(told, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([RECORD], RECORD),
        (["v=spf1 -all", RECORD], RECORD),
        (["v=TLSRPTv1 ;rua=https://a.test/"], "v=TLSRPTv1 ;rua=https://a.test/"),
        ([], ""),
        (["v=spf1 -all"], ""),
        (["v=TLSRPTv11; rua=mailto:tls@a.test"], ""),
        ([RECORD, RECORD], ""),
        ([RECORD + "\udcff"], ""),
        ([RECORD + "\n"], ""),
        ([RECORD + "x" * 5000], ""),
    ],
)
def test_record(texts: list[str], found: str) -> None:
    assert tlsrpt_record(texts) == found


@pytest.mark.parametrize(
    ("code", "resumed", "kind"),
    [
        (62, False, FailureType.CERTIFICATE_HOST_MISMATCH),
        (62, True, FailureType.CERTIFICATE_HOST_MISMATCH),
        (10, False, FailureType.CERTIFICATE_EXPIRED),
        (10, True, FailureType.CERTIFICATE_NOT_TRUSTED),
        (18, False, FailureType.VALIDATION_FAILURE),
        (20, False, FailureType.CERTIFICATE_NOT_TRUSTED),
        (27, False, FailureType.CERTIFICATE_NOT_TRUSTED),
        (65, False, FailureType.CERTIFICATE_NOT_TRUSTED),
        (9, False, FailureType.VALIDATION_FAILURE),
    ],
)
def test_what_a_refusal_counts_as(code: int, kind: FailureType, *, resumed: bool) -> None:
    assert distrust(Refusal(code, 0, "words"), resumed=resumed).kind is kind


def test_no_certificate_at_all() -> None:
    assert distrust(None, resumed=False).code == "no_certificate"


def test_names() -> None:
    assert failure_named("sts-webpki-invalid") is FailureType.STS_WEBPKI_INVALID
    assert FailureType.DANE_REQUIRED.label == "dane_required"
