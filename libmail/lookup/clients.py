"""Restrictions on the client, its name, and the name in HELO or EHLO."""

from collections.abc import Awaitable

from libmail.dns.answers import DnsError, Filtered, NotFound
from libmail.dns.hostname import valid_hostaddr, valid_hostliteral, valid_hostname
from libmail.lookup.check import Check
from libmail.lookup.context import LookupFailure
from libmail.lookup.facts import CLIENT, DUNNO, HELO, PERMIT, NameStatus, Outcome, Subject

__all__ = [
    "permit_inet_interfaces",
    "permit_mynetworks",
    "reject_invalid_helo_hostname",
    "reject_non_fqdn_helo_hostname",
    "reject_plaintext_session",
    "reject_unauth_pipelining",
    "reject_unknown_client_hostname",
    "reject_unknown_forward_client_hostname",
    "reject_unknown_helo_hostname",
    "reject_unknown_reverse_client_hostname",
    "tempfail",
]


def permit_mynetworks(check: Check, subject: Subject, _: str) -> Awaitable[Outcome]:
    """The client is in mynetworks."""
    return _in_hosts(check, subject, "mynetworks")


def permit_inet_interfaces(check: Check, subject: Subject, _: str) -> Awaitable[Outcome]:
    """The client's address is one of ours."""
    return _in_hosts(check, subject, "inet_interfaces")


async def _in_hosts(check: Check, subject: Subject, title: str) -> Outcome:
    facts = check.facts
    try:
        found = await check.lookups.host_in_list(title, facts.client.name, facts.client.address)
    except LookupFailure:
        return check.reject_lookup(check.name(subject))
    return PERMIT if found else DUNNO


async def reject_unknown_client_hostname(check: Check, _: Subject, __: str) -> Outcome:
    """The client has no name that leads back to its address."""
    return _unknown_client(check, check.facts.client.name == "unknown", "4.7.25", "hostname")


async def reject_unknown_forward_client_hostname(check: Check, _: Subject, __: str) -> Outcome:
    """The client's name has no address."""
    facts = check.facts
    unknown = facts.client.name == "unknown" and facts.client.name_status is not NameStatus.FORGED
    return _unknown_client(check, unknown, "4.7.25", "hostname")


async def reject_unknown_reverse_client_hostname(check: Check, _: Subject, __: str) -> Outcome:
    """The client's address has no name."""
    unknown = check.facts.client.reverse_name == "unknown"
    status = check.facts.client.reverse_status
    return _unknown_client(check, unknown, "4.7.1", "reverse hostname", status)


def _unknown_client(
    check: Check, unknown: bool, dsn: str, what: str, status: NameStatus | None = None
) -> Outcome:
    if not unknown:
        return DUNNO
    status = status or check.facts.client.name_status
    code = 450 if status is NameStatus.TRY_AGAIN else check.params.unknown_client_reject_code
    text = f"Client host rejected: cannot find your {what}, [{check.facts.client.address}]"
    return check.reject(CLIENT, code, dsn, text)


async def reject_unauth_pipelining(check: Check, subject: Subject, _: str) -> Outcome:
    """The client sent commands ahead of our replies where it may not."""
    if not check.facts.improper_pipelining:
        return DUNNO
    text = check.rejected(subject, "Improper use of SMTP command pipelining")
    return check.reject(subject, 503, "5.5.0", text)


async def reject_plaintext_session(check: Check, subject: Subject, _: str) -> Outcome:
    """The session is not encrypted."""
    if check.facts.tls is not None:
        return DUNNO
    code = check.params.plaintext_reject_code
    return check.reject(subject, code, "4.7.1", "Session encryption is required")


# HELO


def _without_dot(name: str) -> str:
    return name[:-1] if name.endswith(".") and len(name) > 1 else name


async def reject_invalid_helo_hostname(check: Check, _: Subject, __: str) -> Outcome:
    """The name is neither a host name nor an address literal."""
    name = check.facts.helo_name
    decided = _without_name(check, name)
    if decided is not None:
        return decided
    if valid_hostname(_without_dot(name)) or valid_hostaddr(name):
        return DUNNO
    text = check.rejected(HELO, "Invalid name")
    return check.reject(HELO, check.params.invalid_hostname_reject_code, "5.5.2", text)


def _without_name(check: Check, name: str) -> Outcome | None:
    """What is decided where there was no HELO, or one with an address literal."""
    if not name:
        return DUNNO
    if not name.startswith("["):
        return None
    if valid_hostliteral(name):
        return DUNNO
    text = check.rejected(HELO, "invalid ip address")
    return check.reject(HELO, check.params.invalid_hostname_reject_code, "5.5.2", text)


async def reject_non_fqdn_helo_hostname(check: Check, _: Subject, __: str) -> Outcome:
    """The name is neither a fully-qualified host name nor an address literal."""
    name = check.facts.helo_name
    decided = _without_name(check, name)
    if decided is not None:
        return decided
    name = _without_dot(name)
    if valid_hostname(name) and "." in name and not valid_hostaddr(name):
        return DUNNO
    text = check.rejected(HELO, "need fully-qualified hostname")
    return check.reject(HELO, check.params.non_fqdn_reject_code, "5.5.2", text)


async def reject_unknown_helo_hostname(check: Check, _: Subject, __: str) -> Outcome:
    """The name has neither an address nor an MX record. With a final dot it is no name."""
    name = check.facts.helo_name
    decided = _without_name(check, name)
    if decided is not None:
        return decided
    failed: DnsError | None = None
    for rrtype in ("A", "AAAA", "MX") if valid_hostname(name) or valid_hostaddr(name) else ():
        try:
            await check.lookups.dns(name, rrtype)
        except NotFound:
            continue
        except Filtered as err:
            check.warn(f"{name}: address or MX lookup error: {err.text.rpartition(': ')[2]}")
            return DUNNO
        except DnsError as err:
            failed = err
        else:
            return DUNNO
    text = check.rejected(HELO, "Host not found")
    if failed is not None:
        action = check.params.unknown_helo_hostname_tempfail_action
        return tempfail(check, HELO, action, "4.7.1", text)
    return check.reject(HELO, check.params.unknown_hostname_reject_code, "4.7.1", text)


def tempfail(check: Check, subject: Subject, action: str, dsn: str, text: str) -> Outcome:
    """What a *_tempfail_action parameter says to do about a lookup that failed."""
    if action == "defer_if_permit":
        return check.want_defer_if_permit(subject, 450, dsn, text)
    if action == "defer_if_reject":
        return check.want_defer_if_reject(subject, 450, dsn, text)
    return check.reject(subject, 450, dsn, text)
