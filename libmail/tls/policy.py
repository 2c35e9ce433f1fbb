"""Which TLS a client uses with a server, as pure decisions over parameters and tables.

    policy = await choose(find_policy, find_site, params, common, nexthop, host)
    if policy.level.by_dane: policy = with_records(policy, records)   # what DNSSEC says, or not
    spec = policy.spec(where)                                         # for libmail.tls.connection
    ... handshake ...
    if problem := policy.unmet(connection.trust): defer

A mistake or a failed lookup never makes a policy weaker: PolicyError defers the mail.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from libmail.dns.hostname import valid_hostname
from libmail.tls.client_params import ClientTlsParams
from libmail.tls.client_spec import ClientSpec
from libmail.tls.dane import Tlsa
from libmail.tls.errors import TlsConfigError
from libmail.tls.facts import Trust
from libmail.tls.levels import Level, level_named
from libmail.tls.params import TlsParams
from libmail.tls.policy_entry import Find, PolicyEntry, PolicyError, StsPolicy, find_entry
from libmail.tls.settings import cipher_list, parse_protocols, words
from libmail.tls.tlsrpt import (
    NO_POLICY,
    FailureType,
    PolicyKind,
    ReportedFailure,
    ReportedPolicy,
    failure_named,
)

__all__ = [
    "Policy",
    "Where",
    "choose",
    "client_level",
    "dane_failed",
    "relaxed",
    "session_key",
    "site_level",
    "with_records",
]

NOT_VERIFIED: Final = "Server certificate not verified"
_WRONG_HOST: Final = ReportedFailure(FailureType.VALIDATION_FAILURE, "MX host not in STS policy")
_SITES: Final = {
    "NONE": Level.NONE,
    "MAY": Level.MAY,
    "MUST_NOPEERMATCH": Level.ENCRYPT,
    "MUST": Level.VERIFY,
}
_HEX: Final = re.compile(r"[0-9A-F]{2}(?::[0-9A-F]{2})*")


class Where(NamedTuple):
    """A server that mail goes to. nexthop: the domain, without brackets and port; host: its name.

    Both are myhostname for a UNIX socket.
    """

    nexthop: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The TLS policy for a server. match: patterns and strategies, or fingerprints.

    reuse: whether a session may serve several deliveries. records: TLSA records of base_domain;
    fallbacks: the policies without such records, and with unusable ones, which then has them in
    `unusable`. warning: to be logged each time that the policy is used. tested: whether the server
    meets sts is found out, and has no consequences but a report.
    """

    level: Level
    ciphers: str = ""
    protocols: str = ""
    match: tuple[str, ...] = ()
    server_name: str = ""
    anchor_files: tuple[str, ...] = ()
    reuse: bool = False
    raw_keys: bool = False
    digest: str = "sha256"
    wide_wildcards: bool = True
    records: tuple[Tlsa, ...] = ()
    unusable: tuple[Tlsa, ...] = ()
    base_domain: str = ""
    fallbacks: tuple[Policy, ...] = ()
    mx_hosts: tuple[str, ...] = ()
    sts: StsPolicy = field(default_factory=StsPolicy)
    tested: bool = False
    warning: str = ""

    def __hash__(self) -> int:
        """Of few fields: session keys are looked up many times for each message."""
        return hash((self.level, self.match, self.base_domain))

    def spec(self, where: Where, anchors: tuple[Tlsa, ...] = ()) -> ClientSpec:
        """The specification for the engine. anchors: from anchor_files. Raises PolicyError."""
        base = ClientSpec(
            ciphers=self.ciphers,
            protocols=parse_protocols(self.protocols),
            server_name=self._server_name(where),
            digest=self.digest,
            wide_wildcards=self.wide_wildcards,
            raw_keys=self.raw_keys and self._key_is_enough,
        )
        if self.level is Level.FINGERPRINT:
            return replace(base, fingerprints=self._fingerprints(where))
        if self.records:
            names = [self.base_domain, where.nexthop, where.host]
            if self.level is Level.HALF_DANE:
                names.remove(where.nexthop)  # RFC 7672 §3.2.2: nothing vouches for the MX record
            unique = tuple(dict.fromkeys(names))
            return replace(base, tlsa=self.records, base_domain=self.base_domain, names=unique)
        if self.level.by_authority or self.tested:
            return replace(base, names=self._names(where), anchors=anchors)
        return base

    def allows_host(self, host: str) -> bool:
        """Whether an MX host is one that the MTA-STS policy names (RFC 8461 §4.1), if any does."""
        name = host.lower()
        parent = f"*.{name.partition('.')[2]}"
        return not self.mx_hosts or any(
            pattern.lower() in (name, parent) for pattern in self.mx_hosts
        )

    def refuse_host(self, domain: str, host: str) -> None:
        """Raises PolicyError for a host that `allows_host` does not. domain: mail goes there."""
        if not self.sts.tested and not self.allows_host(host):
            where = f"the MX hosts of the MTA-STS policy of {self.sts.domain or domain}"
            reason = f"{host} is not among {where}"
            raise PolicyError("", reason, reported=(self.reported, _WRONG_HOST))

    def objection(self, host: str) -> ReportedFailure | None:
        """What is reported of a host, whatever comes of it: it, or the policy, fails in testing."""
        if not self.sts.tested or self.records or self.unusable:
            return None
        if self.sts.failure:
            return ReportedFailure(failure_named(self.sts.failure))
        return None if self.allows_host(host) else _WRONG_HOST

    def fails_test(self, trust: Trust) -> bool:
        """Whether the trust of the handshake does not meet what is only tested."""
        return self.tested and trust is not Trust.VERIFIED

    @property
    def reported(self) -> ReportedPolicy:
        """What reports say that it is (RFC 8460 §4.2); of DANE only once its records are known."""
        if self.records or self.unusable:
            return _reported_tlsa(self.records or self.unusable, self.base_domain)
        return self.sts.reported or NO_POLICY

    def unmet(self, trust: Trust) -> PolicyError | None:
        """The error if the trust that the handshake has established does not meet the policy."""
        if not self.level.matches_peer or trust is Trust.VERIFIED:
            return None
        return PolicyError("", NOT_VERIFIED)

    def told(self, trust: Trust) -> Trust:
        """The trust for the log; with half-dane the MX record may have been forged."""
        forged = self.level is Level.HALF_DANE and trust is Trust.VERIFIED
        return Trust.TRUSTED if forged else trust

    @property
    def _key_is_enough(self) -> bool:
        """Whether a server can be verified by a raw public key (RFC 7250)."""
        if self.records:
            return all(record.is_key for record in self.records)
        return not (self.level.by_authority or self.tested)

    def _server_name(self, where: Where) -> str:
        """The name to ask for; with DANE it is that of the records (RFC 7672 §8.1)."""
        if self.records:
            return self.base_domain
        wanted = self.server_name
        name = {"hostname": where.host, "nexthop": where.nexthop}.get(wanted.lower(), wanted)
        if not name or valid_hostname(name):
            return name
        if wanted.lower() in ("hostname", "nexthop"):
            return ""  # an address is no name
        raise PolicyError(f'"servername={wanted}" specifies an invalid hostname')

    def _names(self, where: Where) -> tuple[str, ...]:
        """The patterns, with strategies replaced by names."""
        strategies = {
            "nexthop": where.nexthop,
            "dot-nexthop": f".{where.nexthop}",
            "hostname": where.host,
        }
        names = [strategies.get(pattern.lower(), pattern) for pattern in self.match]
        usable = tuple(name for name in names if name not in ("", "."))
        if not usable:
            raise PolicyError(f"{where.host}: could not configure peer name checks")
        return usable

    def _fingerprints(self, where: Where) -> frozenset[str]:
        found = frozenset(_fingerprint(text) for text in self.match)
        if not found:
            raise PolicyError(
                f"nexthop domain {where.nexthop}: configured at fingerprint security level,"
                " but with no fingerprints to match."
            )
        return found


def _fingerprint(text: str) -> str:
    """AB:CD:... of a fingerprint with or without colons. Raises PolicyError."""
    plain = text.upper()
    if ":" not in plain and len(plain) % 2 == 0:
        plain = ":".join(plain[at : at + 2] for at in range(0, len(plain), 2))
    if _HEX.fullmatch(plain) is None:
        raise PolicyError(f"malformed fingerprint value: {text[:384]}")
    return plain


def client_level(params: ClientTlsParams) -> Level:
    """The level from main.cf, without tables. Raises TlsConfigError."""
    if params.smtp_tls_security_level:
        level = level_named(params.smtp_tls_security_level)
        if level is None:
            raise TlsConfigError(f'Invalid TLS level "{params.smtp_tls_security_level}"')
        return level
    if params.smtp_enforce_tls:
        return Level.VERIFY if params.smtp_tls_enforce_peername else Level.ENCRYPT
    return Level.MAY if params.smtp_use_tls else Level.NONE


async def choose(
    find_policy: Find,
    find_site: Find,
    params: ClientTlsParams,
    common: TlsParams,
    nexthop: str,
    where: Where,
) -> Policy:
    """The policy for a server. nexthop: as configured, with brackets and port.

    Raises PolicyError, and what the lookup functions raise.
    """
    level, entry = client_level(params), None
    if params.smtp_tls_policy_maps:
        entry = await find_entry(find_policy, "smtp_tls_policy_maps", nexthop)
        if entry is not None and entry.sts.mode == "enforce":
            return _after_dane(level, entry, params, common)
        if entry is not None and not entry.sts.tested:
            level = entry.level
    elif params.smtp_tls_per_site:
        level = await site_level(find_site, level, nexthop, where.host)
    if entry is None:
        entry = PolicyEntry(level)
    elif entry.sts.tested:
        entry = _in_testing(level, entry)
    if level.by_dane and (why := _against_dane(params)):
        warning = f"{nexthop}: {level.label} configured with {why}"
        if level is Level.DANE_ONLY:
            raise PolicyError(warning)
        return replace(_policy(Level.MAY, entry, params, common), warning=warning)
    policy = _policy(level, entry, params, common)
    if not level.by_dane:
        return policy
    lower = (Level.MAY, Level.ENCRYPT)
    return replace(policy, fallbacks=tuple(_policy(n, entry, params, common) for n in lower))


def _in_testing(level: Level, entry: PolicyEntry) -> PolicyEntry:
    """The entry for the level of main.cf, which asks for what is only looked at, too."""
    if level.matches_peer and not level.by_dane:
        return PolicyEntry(level, sts=entry.sts)
    return replace(entry, level=level)


def _after_dane(
    level: Level, entry: PolicyEntry, params: ClientTlsParams, common: TlsParams
) -> Policy:
    """The policy of MTA-STS, for servers of which DANE has nothing to say (RFC 8461 §2).

    level: of main.cf, by which DANE is asked or not.
    """
    policy = _policy(entry.level, entry, params, common)
    if not level.by_dane or _against_dane(params):
        return policy
    dane = _policy(Level.DANE, PolicyEntry(Level.DANE), params, common)
    return replace(dane, fallbacks=(policy, policy))


def relaxed(policy: Policy, params: ClientTlsParams, common: TlsParams, *, wrapped: bool) -> Policy:
    """The policy where the sender does not insist on TLS (RFC 8689 §5): what is possible.

    wrapped: nothing can be said outside of TLS, so that it stays, with whomever.
    """
    level = Level.ENCRYPT if wrapped else Level.MAY
    return policy if policy.level <= level else _policy(level, PolicyEntry(level), params, common)


def _against_dane(params: ClientTlsParams) -> str:
    """The setting that makes DANE impossible or useless; "" for none."""
    if params.smtp_dns_support_level.lower() != "dnssec" or "dns" not in params.smtp_host_lookup:
        return "dnssec lookups disabled"
    return "MX lookup errors ignored" if params.ignore_mx_lookup_error else ""


async def site_level(find: Find, default: Level, nexthop: str, host: str) -> Level:
    """The level by smtp_tls_per_site: the stricter of the entries for next hop and host.

    MAY yields to the entry for the other name, and to a stricter main.cf.
    """
    found: list[Level] = []
    for key, kind in ((nexthop, "next-hop destination"), (host, "server hostname")):
        value = await find(key) if key else None
        if value is None:
            continue
        word = value.strip().upper()
        if word not in _SITES:
            raise PolicyError(
                f"smtp_tls_per_site: unknown TLS policy '{value[:100]}' for {kind} {key}"
            )
        found.append(_SITES[word])
    if not found:
        return default
    strict = [level for level in found if level is not Level.MAY]
    if strict:
        return max(strict)
    return max(default, Level.MAY)


def _policy(level: Level, entry: PolicyEntry, params: ClientTlsParams, common: TlsParams) -> Policy:
    reuse, raw = entry.connection_reuse, entry.raw_keys
    policy = Policy(
        level=level,
        match=entry.match or _default_match(level, params),
        server_name=params.smtp_tls_servername if entry.server_name is None else entry.server_name,
        anchor_files=entry.anchor_files or params.smtp_tls_trust_anchor_file,
        reuse=params.smtp_tls_connection_reuse if reuse is None else reuse,
        raw_keys=params.smtp_tls_enable_rpk if raw is None else raw,
        digest=params.smtp_tls_fingerprint_digest,
        wide_wildcards=common.tls_wildcard_matches_multiple_labels,
        sts=entry.sts,
    )
    entry.sts.check()
    free = not level.matches_peer  # of demands of main.cf, which a policy in testing leaves alone
    if params.smtp_tls_enforce_sts_mx_patterns and _is_sts(entry.sts, free=free):
        policy = replace(policy, match=("hostname",), mx_hosts=entry.sts.mx_patterns)
    if entry.sts.tested and free and policy.match:
        policy = replace(policy, tested=True)
    return _with_ciphers(policy, entry, params, common)


def _default_match(level: Level, params: ClientTlsParams) -> tuple[str, ...]:
    match level:
        case Level.FINGERPRINT:
            return params.smtp_tls_fingerprint_cert_match
        case Level.VERIFY:
            return tuple(words(params.smtp_tls_verify_cert_match))
        case Level.SECURE:
            return tuple(words(params.smtp_tls_secure_cert_match))
        case _:
            return ()


def _with_ciphers(
    policy: Policy, entry: PolicyEntry, params: ClientTlsParams, common: TlsParams
) -> Policy:
    """The policy with ciphers and protocols for its level. Raises PolicyError."""
    exclusions = [params.smtp_tls_exclude_ciphers]
    if policy.level.enforced:
        grade, protocols = params.smtp_tls_mandatory_ciphers, params.smtp_tls_mandatory_protocols
        also = params.smtp_tls_mandatory_exclude_ciphers if entry.exclude is None else entry.exclude
        # Verification needs a certificate; without it, any cipher that encrypts will do.
        certain = policy.level.matches_peer or policy.tested
        exclusions += [also, "aNULL" if certain else "eNULL"]
    else:
        grade, protocols = params.smtp_tls_ciphers, params.smtp_tls_protocols
        exclusions = exclusions if entry.exclude is None else [entry.exclude]
        if policy.tested:
            exclusions.append("aNULL")
    protocols = protocols if entry.protocols is None else entry.protocols
    try:
        ciphers = cipher_list(entry.ciphers or grade, exclusions, common.cipher_lists)
        parse_protocols(protocols)
    except TlsConfigError as error:
        raise PolicyError(f"{error.reason}: aborting TLS session") from None
    return replace(policy, ciphers=ciphers, protocols=protocols)


def with_records(policy: Policy, records: Sequence[Tlsa] | None, base_domain: str) -> Policy:
    """A DANE policy with its TLSA records, or its fallback. records: None for no secure records.

    Records that are unusable for other reasons than their usage are found by the engine. Raises
    PolicyError.
    """
    if not policy.level.by_dane:
        return policy
    only = policy.level is Level.DANE_ONLY
    if records is None:
        if only:
            raise dane_failed("no TLSA records found", FailureType.DANE_REQUIRED)
        return policy.fallbacks[0]
    usable = tuple(record for record in records if record.for_mail)
    if usable:
        return replace(policy, records=usable, base_domain=base_domain)
    unusable = tuple(records)
    if only:
        told = _reported_tlsa(unusable, base_domain)
        raise dane_failed("TLSA records unusable", FailureType.TLSA_INVALID, told)
    return replace(policy.fallbacks[1], unusable=unusable, base_domain=base_domain)


def _reported_tlsa(records: Sequence[Tlsa], base_domain: str) -> ReportedPolicy:
    lines = tuple(record.whole() for record in records)
    return ReportedPolicy(PolicyKind.TLSA, base_domain, lines)


def dane_failed(
    reason: str, kind: FailureType, policy: ReportedPolicy | None = None, warning: str = ""
) -> PolicyError:
    """The error where DANE says that there can be no session. policy: None for no records."""
    told = policy or ReportedPolicy(PolicyKind.TLSA)
    return PolicyError(warning, reason, reported=(told, ReportedFailure(kind)))


def _is_sts(sts: StsPolicy, *, free: bool) -> bool:
    return sts.policy_type == "sts" and bool(sts.mx_patterns) and (free or not sts.tested)


def session_key(service: str, parts: Sequence[str], spec: ClientSpec) -> str:
    """The name under which a client keeps a session: who, where, and how it was recognized.

    A session that is resumed is not verified again, so whatever was asked for is in the name.
    """
    prints = sorted(spec.fingerprints)  # a set has another order after a restart
    described = service, tuple(parts), replace(spec, fingerprints=frozenset()), prints
    text = repr(described).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()
