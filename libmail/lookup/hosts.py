"""check_*_mx_access, check_*_ns_access, check_*_a_access: tables of the hosts behind a domain."""

from functools import partial
from typing import Final, Literal

from libmail.dns.answers import DnsError, NotFound
from libmail.dns.hostname import literal_address, valid_hostaddr, valid_hostname
from libmail.log import LOG
from libmail.lookup.access import host_action
from libmail.lookup.check import Check, Restriction
from libmail.lookup.context import LookupFailure
from libmail.lookup.facts import (
    CLIENT,
    DUNNO,
    HELO,
    REVERSE_CLIENT,
    Outcome,
    Subject,
    named,
)
from libmail.smtp.address import split_address

__all__ = ["hosts_access"]

Kind = Literal["MX", "NS", "A"]
_MOST: Final = 100  # hosts of a domain that are looked at


def hosts_access(subject: Subject, kind: Kind) -> Restriction:
    """check_<subject>_<kind>_access type:table."""
    return partial(_check, subject, kind)


def _domain(check: Check, subject: Subject) -> str:
    what = named(check.facts, subject)
    return what if subject in (CLIENT, REVERSE_CLIENT, HELO) else split_address(what)[1]


async def _check(subject: Subject, kind: Kind, check: Check, _: Subject, table: str) -> Outcome:
    domain = _domain(check, subject).removesuffix(".")
    if not domain or domain == "unknown":
        return DUNNO
    literal = literal_address(domain)
    if literal is not None or valid_hostaddr(domain):
        if subject is HELO and literal is None:
            return DUNNO
        return await _look(check, subject, table, "", [literal or domain])
    if not valid_hostname(domain):
        return DUNNO
    try:
        hosts = await _hosts(check, kind, domain)
    except DnsError as err:
        LOG.warning(f"Unable to look up {kind} host for {domain}: {_why(err)}")
        return DUNNO
    return await _look_at_hosts(check, subject, table, kind, domain, hosts)


def _why(err: DnsError) -> str:
    return err.text.rpartition("type=")[2].partition(": ")[2] or err.text


async def _look_at_hosts(
    check: Check, subject: Subject, table: str, kind: Kind, domain: str, hosts: list[str]
) -> Outcome:
    for host in hosts[:_MOST]:
        try:
            addresses = await _addresses(check, host)
        except DnsError as err:
            if kind != "A" or not isinstance(err, NotFound):
                LOG.warning(f"Unable to look up {kind} host {host} for {domain}: {_why(err)}")
            addresses = []
        outcome = await _look(check, subject, table, host, addresses)
        if outcome is not DUNNO:
            return outcome
    return DUNNO


async def _look(
    check: Check, subject: Subject, table: str, host: str, addresses: list[str]
) -> Outcome:
    try:
        found = await host_action(check, subject, table, host, "")
        for address in addresses:
            if found is not None:
                break
            found = await host_action(check, subject, table, "", address)
    except LookupFailure:
        return check.reject_lookup(check.name(subject))
    return DUNNO if found is None else found


async def _hosts(check: Check, kind: Kind, domain: str) -> list[str]:
    """Raises DnsError."""
    if kind == "A":
        return [domain]
    try:
        return [record.value for record in await check.lookups.dns(domain, kind) if record.value]
    except NotFound:
        if kind == "MX":
            return [domain]  # RFC 5321 §5.1: then the domain itself is its host
    parent = domain.partition(".")[2]
    return await _hosts(check, kind, parent) if "." in parent else []


async def _addresses(check: Check, host: str) -> list[str]:
    """Raises DnsError."""
    found: list[str] = []
    missing: DnsError | None = None
    for rrtype in ("A", "AAAA"):
        try:
            found += [record.value for record in await check.lookups.dns(host, rrtype)]
        except NotFound as err:
            missing = err
    if not found and missing is not None:
        raise missing
    return found
