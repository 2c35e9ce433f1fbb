"""SMTP TLS reporting (RFC 8460): what a client tells a collector of one handshake, as a datagram.

The format is that of libtlsrpt, which the collector of tlsrpt-reporter reads: a JSON object with
one policy and at most one failure. Nothing of a stranger goes into it as it came: a collector gets
UTF-8, and from the record in DNS only printable ASCII, which is all that it may be (RFC 8460 §3).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from libmail.tls.facts import (
    EXPIRED,
    NO_DANE_MATCH,
    UNTRUSTED,
    UNTRUSTED_ISSUER,
    WRONG_NAME,
    Refusal,
)

__all__ = [
    "NO_POLICY",
    "FailureType",
    "PolicyKind",
    "ReportedFailure",
    "ReportedPolicy",
    "ReportedServer",
    "datagram",
    "distrust",
    "failure_named",
    "tlsrpt_record",
]

_PROTOCOL: Final = "1"
_VERSION: Final = "v=TLSRPTv1"
_LONGEST_RECORD: Final = 4096
_MOST_TEXT: Final = 500  # characters of a text that comes from a server or the library


class PolicyKind(IntEnum):
    """The policy-type of RFC 8460 §4.2, with the numbers of libtlsrpt."""

    TLSA = 1
    STS = 2
    NO_POLICY_FOUND = 9


class FailureType(IntEnum):
    """The result-type of RFC 8460 §4.3, with the numbers of libtlsrpt."""

    STARTTLS_NOT_SUPPORTED = 201
    CERTIFICATE_HOST_MISMATCH = 202
    CERTIFICATE_NOT_TRUSTED = 203
    CERTIFICATE_EXPIRED = 204
    VALIDATION_FAILURE = 205
    STS_POLICY_FETCH_ERROR = 301
    STS_POLICY_INVALID = 302
    STS_WEBPKI_INVALID = 303
    TLSA_INVALID = 304
    DNSSEC_INVALID = 305
    DANE_REQUIRED = 306

    @property
    def label(self) -> str:
        """The word for it in the log: "dane_required"."""
        return self.name.lower()


class ReportedPolicy(NamedTuple):
    """The policy that was to be met. domain: "" for the one that mail goes to.

    strings: lines of an MTA-STS policy, or TLSA records. mx_hosts: patterns of the former.
    """

    kind: PolicyKind
    domain: str = ""
    strings: tuple[str, ...] = ()
    mx_hosts: tuple[str, ...] = ()


NO_POLICY: Final = ReportedPolicy(PolicyKind.NO_POLICY_FOUND)


class ReportedFailure(NamedTuple):
    """Why it was not. reason: in words, "" where the type says it all."""

    kind: FailureType
    reason: str = ""

    @property
    def code(self) -> str:
        """The reason as one printable word, for the failure-reason-code."""
        return "_".join(_shown(self.reason).split())


@dataclass(frozen=True, slots=True)
class ReportedServer:
    """Both ends of the connection; "" for what is not known. hello: what it calls itself."""

    host: str
    address: str
    hello: str = ""
    sender: str = ""


def failure_named(name: str) -> FailureType:
    """Of "sts-policy-invalid". Raises KeyError."""
    return FailureType[name.upper().replace("-", "_")]


def tlsrpt_record(texts: Iterable[str]) -> str:
    """The record among those of `_smtp._tls.DOMAIN`; "" where the domain wants no reports.

    Several are as good as none, RFC 8460 §3.
    """
    found = [text for text in texts if text.partition(";")[0].strip() == _VERSION]
    if len(found) != 1 or len(found[0]) > _LONGEST_RECORD:
        return ""
    return found[0] if found[0].isascii() and found[0].isprintable() else ""


def distrust(refusal: Refusal | None, *, resumed: bool) -> ReportedFailure:
    """The failure for a certificate that is not the one that was asked for; None for none at all.

    resumed: in a session of before, of which the details are gone.
    """
    if refusal is None:
        return ReportedFailure(FailureType.VALIDATION_FAILURE, "no certificate")
    if refusal.code == WRONG_NAME:
        return ReportedFailure(FailureType.CERTIFICATE_HOST_MISMATCH)
    if resumed:
        return ReportedFailure(FailureType.CERTIFICATE_NOT_TRUSTED)
    if refusal.code in EXPIRED:
        return ReportedFailure(FailureType.CERTIFICATE_EXPIRED)
    if refusal.code in (UNTRUSTED, NO_DANE_MATCH, *UNTRUSTED_ISSUER):
        return ReportedFailure(FailureType.CERTIFICATE_NOT_TRUSTED, refusal.words)
    return ReportedFailure(FailureType.VALIDATION_FAILURE, refusal.words)


def datagram(
    domain: str,
    record: str,
    policy: ReportedPolicy,
    server: ReportedServer,
    failure: ReportedFailure | None,
) -> bytes:
    """The report of one handshake with a server of a domain. record: see `tlsrpt_record`."""
    told: dict[str, object] = {"policy-type": int(policy.kind)}
    told["policy-domain"] = _clean(policy.domain) or domain
    if policy.strings:
        told["policy-string"] = [_clean(line) for line in policy.strings]
    if policy.mx_hosts:
        told["mx-host"] = [_clean(host) for host in policy.mx_hosts]
    if failure is not None:
        told["failure-details"] = [_details(server, failure)]
    told["t"] = told["f"] = int(failure is not None)
    whole = {"dpv": _PROTOCOL, "d": domain, "pr": record, "policies": [told]}
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()


def _details(server: ReportedServer, failure: ReportedFailure) -> dict[str, object]:
    texts = {
        "s": server.sender,
        "n": server.host,
        "h": _shown(server.hello),
        "r": server.address,
        "f": failure.code,
    }
    known = {key: _clean(text) for key, text in texts.items() if text}
    return {"c": int(failure.kind), **known}


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:_MOST_TEXT])
