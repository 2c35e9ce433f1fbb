"""Entries of smtp_tls_policy_maps: a level, and attributes that overrule main.cf.

    example.com          dane-only
    [mail.example.net]   secure match=.example.net:example.net ciphers=high
    sts.example.org      secure match=mx.example.org servername=hostname policy_type=sts
                         policy_domain=sts.example.org { policy_string = version: STSv1 }
                         policy_mode=testing

policy_mode is ours, and comes from tables `mta-sts:`. With `enforce` the entry holds where DANE,
if main.cf wants that, has nothing to say. With `testing` main.cf says what is done, and what the
entry asks for is only reported.

A mistake in an entry makes it useless: mail is deferred, with a warning that names it. It is never
sent with less protection than somebody has tried to ask for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from libmail.dns.hostname import valid_hostname
from libmail.tables.braces import split_list, strip_braces
from libmail.tls.errors import TlsError
from libmail.tls.levels import Level, level_named
from libmail.tls.tlsrpt import NO_POLICY, PolicyKind, ReportedFailure, ReportedPolicy, failure_named

__all__ = ["Find", "PolicyEntry", "PolicyError", "StsPolicy", "find_entry", "parse_entry"]

Find = Callable[[str], Awaitable[str | None]]  # looks a key up in tables

_AT_ANY: Final = frozenset(Level)
_LONGEST: Final = 100_000
_STS_FAILURES: Final = frozenset(
    ("sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid", "validation-failure")
)
_POLICY_TYPES: Final = frozenset(("sts", "no-policy-found"))
_MODES: Final = frozenset(("enforce", "testing"))


class PolicyError(TlsError):
    """What is to be sent cannot be sent so: a mistake in the configuration, or a temporary failure.

    warning: for the log, "" for none. The text goes into the delivery status, with `dsn`. reported:
    what is told to those who want to know how TLS fares (RFC 8460), the policy and what is wrong;
    None where the trouble is ours.
    """

    def __init__(
        self,
        warning: str,
        reason: str = "client TLS configuration problem",
        dsn: str = "4.7.5",
        reported: tuple[ReportedPolicy, ReportedFailure] | None = None,
    ) -> None:
        super().__init__(reason)
        self.warning = warning
        self.reason = reason
        self.dsn = dsn
        self.reported = reported


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """What an MTA-STS plug-in says of the policy of a domain, for enforcement and reports.

    failure: the policy counts as failed, with that result type of RFC 8460. ttl: seconds. mode:
    "enforce", "testing", or "" for a plug-in of others, which enforces, and knows nothing of DANE.
    """

    policy_type: str = ""
    domain: str = ""
    ttl: int = 0
    strings: tuple[str, ...] = ()
    mx_patterns: tuple[str, ...] = ()
    failure: str = ""
    mode: str = ""

    @property
    def tested(self) -> bool:
        """Whether nothing is enforced, only reported."""
        return self.mode == "testing"

    @property
    def reported(self) -> ReportedPolicy | None:
        """For reports; None where there is no such policy."""
        if self.policy_type != "sts":
            return None
        return ReportedPolicy(PolicyKind.STS, self.domain, self.strings, self.mx_patterns)

    def check(self) -> None:
        """Raises PolicyError for a policy that counts as failed, if it is to be enforced."""
        if self.failure and not self.tested:
            told = self.reported or NO_POLICY, ReportedFailure(failure_named(self.failure))
            raise PolicyError("", f"policy failure: {self.failure}", reported=told)


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """What one entry says; None and () where it says nothing."""

    level: Level
    match: tuple[str, ...] = ()
    protocols: str | None = None
    ciphers: str | None = None
    exclude: str | None = None
    server_name: str | None = None
    anchor_files: tuple[str, ...] = ()
    connection_reuse: bool | None = None
    raw_keys: bool | None = None
    sts: StsPolicy = field(default_factory=StsPolicy)


async def find_entry(find: Find, title: str, nexthop: str) -> PolicyEntry | None:
    """The entry for a next hop as it is written, or for a parent domain of a plain one.

    title: of the tables, smtp_tls_policy_maps. Raises PolicyError, and what find raises.
    """
    for key in _keys(nexthop):
        value = await find(key)
        if value is not None:
            return parse_entry(value, f'{title}, next-hop destination "{key}"')
    return None


def _keys(nexthop: str) -> Iterator[str]:
    yield nexthop
    if valid_hostname(nexthop):
        at = nexthop.find(".")
        while at > 0:
            yield nexthop[at:]
            at = nexthop.find(".", at + 1)


def parse_entry(value: str, where: str) -> PolicyEntry:
    """The entry of a table's value. where: what messages begin with. Raises PolicyError."""
    if len(value) > _LONGEST:
        raise PolicyError(f"{where}: policy of more than {_LONGEST} characters")
    words = split_list(value)
    if not words:
        raise PolicyError(f"{where}: invalid empty policy")
    level = level_named(words[0])
    if level is None:
        raise PolicyError(f'{where}: invalid security level "{words[0]}"')
    entry = PolicyEntry(level)
    if level is Level.NONE:
        return entry  # whatever follows, there is no TLS
    seen: set[str] = set()
    for word in words[1:]:
        name, attribute = _pair(word, where)
        entry = _with(entry, name, attribute, where, name in seen)
        seen.add(name)
    return entry


def _pair(word: str, where: str) -> tuple[str, str]:
    """Name and value of `name=value` or `{ name = value with spaces }`."""
    try:
        inner = strip_braces(word) if word.startswith("{") else word
    except ValueError as error:
        problem = str(error)
    else:
        name, equals, value = (part.strip() for part in inner.partition("="))
        if equals and name:
            return name.lower(), value
        problem = "missing attribute name" if equals else "missing '=' after attribute name"
    raise PolicyError(f'{where}: malformed attribute/value pair "{word}": {problem}')


def _with(entry: PolicyEntry, name: str, value: str, where: str, again: bool) -> PolicyEntry:
    """The entry with one attribute more. Raises PolicyError."""
    if name not in _ATTRIBUTES:
        raise PolicyError(f'{where}: invalid attribute name: "{name}"')
    attribute = _ATTRIBUTES[name]
    if entry.level not in attribute.levels:
        label = entry.level.label
        raise PolicyError(f'{where}: attribute "{name}" invalid at security level "{label}"')
    if not value:
        raise PolicyError(f'{where}: attribute "{name}" has empty value')
    if again and not attribute.repeats:
        raise PolicyError(f'{where}: attribute "{name}" is specified multiple times')
    try:
        return attribute.add(entry, value)
    except ValueError:
        raise PolicyError(f'{where}: attribute "{name}" has bad value: "{value}"') from None


@dataclass(frozen=True, slots=True)
class _Attribute:
    """add: an entry with the value. repeats: may be given several times, and adds up."""

    add: Callable[[PolicyEntry, str], PolicyEntry]
    levels: frozenset[Level] = _AT_ANY
    repeats: bool = False


def _yes(value: str) -> bool:
    if value.lower() not in ("yes", "no"):
        raise ValueError(value)
    return value.lower() == "yes"


def _match(entry: PolicyEntry, value: str) -> PolicyEntry:
    """Fingerprints have colons inside, so that `|` is between them."""
    separator = "|" if entry.level is Level.FINGERPRINT else ":"
    patterns = tuple(part for part in value.split(separator) if part)
    return replace(entry, match=entry.match + patterns)


def _sts(entry: PolicyEntry, **changes: object) -> PolicyEntry:
    return replace(entry, sts=replace(entry.sts, **changes))  # type: ignore[arg-type]


def _one_of(value: str, known: frozenset[str]) -> str:
    if value not in known:
        raise ValueError(value)
    return value


def _seconds(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) <= 10):
        raise ValueError(value)
    return int(value)


_MATCHING: Final = frozenset((Level.FINGERPRINT, Level.VERIFY, Level.SECURE))
_BY_AUTHORITY: Final = frozenset((Level.VERIFY, Level.SECURE))
_ATTRIBUTES: Final = {
    "ciphers": _Attribute(lambda entry, value: replace(entry, ciphers=value)),
    "protocols": _Attribute(lambda entry, value: replace(entry, protocols=value)),
    "exclude": _Attribute(lambda entry, value: replace(entry, exclude=value)),
    "servername": _Attribute(lambda entry, value: replace(entry, server_name=value)),
    "match": _Attribute(_match, _MATCHING, repeats=True),
    "tafile": _Attribute(
        lambda entry, value: replace(entry, anchor_files=(*entry.anchor_files, value)),
        _BY_AUTHORITY,
        repeats=True,
    ),
    "connection_reuse": _Attribute(
        lambda entry, value: replace(entry, connection_reuse=_yes(value))
    ),
    "enable_rpk": _Attribute(lambda entry, value: replace(entry, raw_keys=_yes(value))),
    "policy_type": _Attribute(
        lambda entry, value: _sts(entry, policy_type=_one_of(value, _POLICY_TYPES))
    ),
    "policy_domain": _Attribute(lambda entry, value: _sts(entry, domain=value)),
    "policy_ttl": _Attribute(lambda entry, value: _sts(entry, ttl=_seconds(value))),
    "policy_string": _Attribute(
        lambda entry, value: _sts(entry, strings=(*entry.sts.strings, value)), repeats=True
    ),
    "mx_host_pattern": _Attribute(
        lambda entry, value: _sts(entry, mx_patterns=(*entry.sts.mx_patterns, value)),
        repeats=True,
    ),
    "policy_mode": _Attribute(lambda entry, value: _sts(entry, mode=_one_of(value, _MODES))),
    "policy_failure": _Attribute(
        lambda entry, value: _sts(entry, failure=_one_of(value, _STS_FAILURES))
    ),
}
