"""check_*_mx_access, check_*_ns_access, check_*_a_access: tables of the hosts behind a domain."""

from functools import partial
from typing import Final, Literal

from libmail.dns.answers import DnsError, NotFound
from libmail.dns.hostname import literal_address, valid_hostaddr, valid_hostname
from libmail.lookup.access import host_action
from libmail.lookup.check import Check, Restriction
from libmail.lookup.context import LookupFailure
from libmail.lookup.facts import (
    CLIENT,
    DUNNO,
    HELO,
    PERMIT,
    RECIPIENT,
    REVERSE_CLIENT,
    SENDER,
    Outcome,
    Subject,
    named,
)
from libmail.smtp.address import split_address

__all__ = ["HOSTS_OF", "KINDS", "hosts_access"]

Kind = Literal["MX", "NS", "A"]
KINDS: Final[tuple[Kind, ...]] = ("MX", "NS", "A")
_MOST: Final = 100  # hosts of a domain that are looked at
HOSTS_OF: Final = {
    "client": CLIENT,
    "reverse_client_hostname": REVERSE_CLIENT,
    "helo": HELO,
    "sender": SENDER,
    "recipient": RECIPIENT,
}
"""What the hosts belong to, as names of restrictions have it."""


def hosts_access(name: str, kind: Kind) -> Restriction:
    """check_<name>_<kind>_access type:table. What they find may not permit: anybody can name
    the hosts of others as those of a domain of his own."""
    return partial(_check, f"check_{name}_{kind.lower()}_access", HOSTS_OF[name], kind)


def _domain(check: Check, subject: Subject) -> str:
    what = named(check.facts, subject)
    return what if subject in (CLIENT, REVERSE_CLIENT, HELO) else split_address(what)[1] or what


async def _check(
    name: str, subject: Subject, kind: Kind, check: Check, _: Subject, table: str
) -> Outcome:
    outcome = await _decide(subject, kind, check, table)
    if outcome is PERMIT and not check.discarding:
        return check.forbid_permit(name, named(check.facts, subject))
    return outcome


async def _decide(subject: Subject, kind: Kind, check: Check, table: str) -> Outcome:
    domain = _domain(check, subject)
    if not domain or domain == "unknown":
        return DUNNO
    bare = domain.removesuffix(".")
    if kind == "NS":
        if literal_address(bare) is not None:
            return DUNNO
        return await _look_at_hosts(check, subject, table, kind, await _found(check, subject, kind))
    literal = literal_address(bare)
    if literal is not None or valid_hostaddr(bare):
        return await _look(check, subject, table, "", [literal or bare])
    if not valid_hostname(bare):
        return DUNNO
    if kind == "MX" and bare != domain:
        # There are no records under a name that a host cannot have; as a host it may be known.
        return await _look_at_hosts(check, subject, table, kind, [domain])
    return await _look_at_hosts(check, subject, table, kind, await _found(check, subject, kind))


async def _found(check: Check, subject: Subject, kind: Kind) -> list[str]:
    """The hosts of the domain; none, with a warning, where they are not known."""
    domain = _domain(check, subject)
    try:
        if kind == "NS":
            return await _name_servers(check, domain)
        return await _hosts(check, kind, domain.removesuffix("."))
    except _Unknown as err:
        where = err.domain or named(check.facts, subject)
        check.warn(f"Unable to look up {kind} host for {where}: {err}")
        return []


class _Unknown(Exception):
    """The hosts of a domain are not known; the text says why. domain: "" if none above has any."""

    def __init__(self, error: DnsError, domain: str) -> None:
        _, known, text = error.text.rpartition("type=")
        super().__init__(text.partition(": ")[2] if known else "Host not found")
        self.domain = domain


async def _look_at_hosts(
    check: Check, subject: Subject, table: str, kind: Kind, hosts: list[str]
) -> Outcome:
    for host in hosts[:_MOST]:
        if kind != "A":
            outcome = await _look(check, subject, table, host, [])
            if outcome is not DUNNO:
                return outcome
        try:
            addresses = await _addresses(check, host)
        except DnsError:
            if kind != "A":
                about = f"{subject.words} {check.name(subject)}"
                why = "Name or service not known"
                check.warn(f"Unable to look up {kind} host {host} for {about}: {why}")
            continue
        outcome = await _look(check, subject, table, "", addresses)
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
    """Raises _Unknown."""
    if kind == "A":
        return [domain]
    try:
        return await _records(check, kind, domain)
    except NotFound:
        return [domain]  # RFC 5321 §5.1: then the domain itself is its host
    except DnsError as err:
        raise _Unknown(err, domain) from None


async def _name_servers(check: Check, domain: str) -> list[str]:
    """The name servers of the domain, or the closest one above that has any. Raises _Unknown."""
    why: DnsError = NotFound(domain, "NS", "")
    while domain and not domain.endswith("."):
        try:
            return await _records(check, "NS", domain)
        except NotFound as err:
            why = err
        except DnsError as err:
            raise _Unknown(err, domain) from None
        domain = domain.partition(".")[2]
    raise _Unknown(why, "")


async def _records(check: Check, kind: Kind, domain: str) -> list[str]:
    """Raises DnsError."""
    answer = await check.lookups.dns(domain, kind)
    return [record.value for record in answer.records if record.value]


async def _addresses(check: Check, host: str) -> list[str]:
    """Raises DnsError."""
    if valid_hostaddr(host):
        return [host]
    host = host.removesuffix(".")
    found: list[str] = []
    missing: DnsError | None = None
    for rrtype in ("A", "AAAA"):
        try:
            found += [record.value for record in (await check.lookups.dns(host, rrtype)).records]
        except NotFound as err:
            missing = err
    if not found and missing is not None:
        raise missing
    return found
