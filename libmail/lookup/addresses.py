"""Restrictions on sender and recipient addresses, and the relay control."""

from typing import Final

from libmail.dns.answers import DnsError, Filtered, Invalid, NotFound, is_null_mx
from libmail.dns.hostname import valid_hostaddr, valid_hostliteral, valid_hostname
from libmail.ipc.messages import ResolveFlag
from libmail.lookup.check import Check
from libmail.lookup.clients import tempfail
from libmail.lookup.context import LookupFailure
from libmail.lookup.facts import DUNNO, PERMIT, RECIPIENT, SENDER, Effect, Outcome, Subject
from libmail.smtp.address import split_address

__all__ = [
    "defer_unauth_destination",
    "permit_auth_destination",
    "permit_mx_backup",
    "reject_multi_recipient_bounce",
    "reject_non_fqdn_recipient",
    "reject_non_fqdn_sender",
    "reject_unauth_destination",
    "reject_unknown_recipient_domain",
    "reject_unknown_sender_domain",
]

FINAL: Final = int(ResolveFlag.LOCAL | ResolveFlag.ALIAS | ResolveFlag.VIRTUAL)
OURS: Final = FINAL | int(ResolveFlag.RELAY)
_ROUTED: Final = int(ResolveFlag.ROUTED)


# relay control


async def _authorized(check: Check, address: str) -> bool:
    """Whether anybody may send mail for this address here. Raises LookupFailure."""
    reply = await check.resolve(address)
    if not split_address(reply.recipient)[1] or "@" not in reply.recipient:
        return True
    if reply.flags & _ROUTED and not check.params.allow_untrusted_routing:
        return False
    return bool(reply.flags & OURS)


async def permit_auth_destination(check: Check, _: Subject, __: str) -> Outcome:
    """We are the final destination, or relay for the domain."""
    recipient = check.facts.mail.recipient
    if recipient is None:
        return DUNNO
    try:
        return PERMIT if await _authorized(check, recipient) else DUNNO
    except LookupFailure:
        return check.reject_lookup(recipient)


async def reject_unauth_destination(check: Check, _: Subject, __: str) -> Outcome:
    """We are neither final destination nor relay for the domain."""
    return await _relay_denied(check, check.params.relay_domains_reject_code, "5.7.1")


async def defer_unauth_destination(check: Check, _: Subject, __: str) -> Outcome:
    """The same, refused for now only."""
    code = check.params.relay_domains_reject_code
    return await _relay_denied(check, code - 100 if code >= 500 else code, "4.7.1")


async def _relay_denied(check: Check, code: int, dsn: str) -> Outcome:
    recipient = check.facts.mail.recipient
    if recipient is None:
        return DUNNO
    try:
        if await _authorized(check, recipient):
            return DUNNO
    except LookupFailure:
        return check.reject_lookup(recipient)
    return check.reject(RECIPIENT, code, dsn, f"<{recipient}>: Relay access denied")


async def permit_mx_backup(check: Check, _: Subject, __: str) -> Outcome:
    """We are an MX host of the domain, but not its primary one."""
    recipient = check.facts.mail.recipient
    if recipient is None:
        return DUNNO
    _warn_of_removal(check)
    try:
        if await _authorized(check, recipient):
            return PERMIT
        domain = split_address(recipient)[1].rstrip(".")
        if not valid_hostname(domain):
            return DUNNO
        return await _is_backup(check, domain)
    except LookupFailure:
        return check.reject_lookup(recipient)
    except NotFound:
        return DUNNO
    except DnsError as err:
        why = f"information: {err.text.rpartition('type=')[2].partition(': ')[2] or err.text}"
        return _unknown_exchanger(check, why)


def _unknown_exchanger(check: Check, what: str) -> Outcome:
    """What cannot be looked up may be what would have permitted the recipient."""
    text = check.rejected(RECIPIENT, f"Unable to look up mail exchanger {what}")
    return check.want_defer_if_reject(RECIPIENT, 450, "4.4.4", text)


def _warn_of_removal(check: Check) -> None:
    what = 'support for restriction "permit_mx_backup" will be removed from Postfix'
    check.verdict.effects.append(Effect("deprecated", f'{what}; instead, specify "relay_domains"'))


async def _is_backup(check: Check, domain: str) -> Outcome:
    """Raises DnsError, LookupFailure."""
    hosts = (await check.lookups.dns(domain, "MX")).records  # best preference first
    if not hosts or is_null_mx(hosts):
        return DUNNO
    best = hosts[0].preference
    for host in hosts:
        if not await _is_ours(check, host.value):
            continue
        if host.preference == best:
            return DUNNO  # the primary one: then it should be in relay_domains
        if check.lookups.has("permit_mx_backup_networks"):
            return await _primaries_permitted(
                check, [h.value for h in hosts if h.preference == best]
            )
        return PERMIT
    return DUNNO


async def _is_ours(check: Check, host: str) -> bool:
    """Also where nobody can tell, and then a refusal is for now only."""
    if host.lower() == check.params.myhostname.lower():
        return True
    addresses = await _addresses(check, host)
    for address in addresses:
        for title in ("inet_interfaces", "proxy_interfaces"):
            if await check.lookups.host_in_list(title, "", address):
                return True
    return not addresses


async def _primaries_permitted(check: Check, hosts: list[str]) -> Outcome:
    for host in hosts:
        addresses = await _addresses(check, host)
        for address in addresses:
            if not await check.lookups.host_in_list("permit_mx_backup_networks", host, address):
                return DUNNO
        if not addresses:
            return DUNNO
    return PERMIT


async def _addresses(check: Check, host: str) -> list[str]:
    """None if there are none, or none can be found now; then a refusal is for now only."""
    if valid_hostaddr(host):
        return [host]
    found: list[str] = []
    for rrtype in ("A", "AAAA"):
        try:
            found += [record.value for record in (await check.lookups.dns(host, rrtype)).records]
        except DnsError:
            continue
    if not found:
        _unknown_exchanger(check, f"host {host}: Name or service not known")
    return found


# syntax


def _fqdn(address: str) -> bool:
    domain = split_address(address)[1]
    if domain.startswith("["):
        return valid_hostliteral(domain)
    domain = domain.removesuffix(".")
    return "." in domain and not valid_hostaddr(domain) and _valid_domain(domain)


def _valid_domain(domain: str) -> bool:
    if domain.isascii():
        return valid_hostname(domain)
    try:
        return valid_hostname(domain.encode("idna").decode("ascii"))
    except UnicodeError:
        return False


async def reject_non_fqdn_sender(check: Check, _: Subject, __: str) -> Outcome:
    """The sender's domain is not fully qualified."""
    sender = check.facts.mail.sender
    if not sender or _fqdn(sender):
        return DUNNO
    text = check.rejected(SENDER, "need fully-qualified address")
    return check.reject(SENDER, check.params.non_fqdn_reject_code, "5.5.2", text)


async def reject_non_fqdn_recipient(check: Check, _: Subject, __: str) -> Outcome:
    """The recipient's domain is not fully qualified."""
    recipient = check.facts.mail.recipient
    if not recipient or recipient.lower() == "postmaster" or _fqdn(recipient):
        return DUNNO
    text = check.rejected(RECIPIENT, "need fully-qualified address")
    return check.reject(RECIPIENT, check.params.non_fqdn_reject_code, "5.5.2", text)


async def reject_multi_recipient_bounce(check: Check, subject: Subject, _: str) -> Outcome:
    """A message without sender has several recipients."""
    facts = check.facts
    # While recipients are still coming, this one counts, too.
    count = facts.mail.recipient_count + (facts.where == "RCPT")
    if facts.mail.sender != "" or count <= 1:
        return DUNNO
    code = check.params.multi_recipient_bounce_reject_code
    return check.reject(subject, code, "5.5.3", check.rejected(subject, "Multi-recipient bounce"))


# domains


async def reject_unknown_sender_domain(check: Check, _: Subject, __: str) -> Outcome:
    """The sender's domain has neither MX nor address, and we are not its destination."""
    return await _unknown_domain(check, SENDER, check.facts.mail.sender, "4.1.8", "5.7.27")


async def reject_unknown_recipient_domain(check: Check, _: Subject, __: str) -> Outcome:
    """The recipient's domain has neither MX nor address, and we are not its destination."""
    return await _unknown_domain(check, RECIPIENT, check.facts.mail.recipient, "4.1.2", "5.1.10")


async def _unknown_domain(
    check: Check, subject: Subject, address: str | None, dsn: str, null_dsn: str
) -> Outcome:
    if not address:
        return DUNNO
    try:
        reply = await check.resolve(address)
    except LookupFailure:
        return check.reject_lookup(address)
    domain = split_address(reply.recipient)[1]
    if not domain or reply.flags & FINAL or domain.startswith("["):
        return DUNNO
    return await _domain_exists(check, subject, domain, dsn, null_dsn)


async def _domain_exists(
    check: Check, subject: Subject, domain: str, dsn: str, null_dsn: str
) -> Outcome:
    params = check.params
    failed: DnsError | None = None
    for rrtype in ("MX", "A", "AAAA"):
        try:
            records = (await check.lookups.dns(domain, rrtype)).records
        except NotFound:
            continue
        except Invalid:
            text = check.rejected(subject, "Malformed DNS server reply")
            return check.reject(subject, params.unknown_address_reject_code, dsn, text)
        except Filtered as err:
            check.warn(f"{domain}: MX or address lookup error: {err.text.rpartition(': ')[2]}")
            return DUNNO
        except DnsError as err:
            failed = err
            break
        if is_null_mx(records):
            return _null_mx(check, subject, domain, null_dsn)
        return DUNNO
    text = check.rejected(subject, "Domain not found")
    if failed is None:
        return check.reject(subject, params.unknown_address_reject_code, dsn, text)
    return tempfail(check, subject, params.unknown_address_tempfail_action, dsn, text)


def _null_mx(check: Check, subject: Subject, domain: str, dsn: str) -> Outcome:
    """The domain says that it takes no mail, RFC 7505."""
    text = check.rejected(subject, f"Domain {domain} does not accept mail (nullMX)")
    return check.reject(subject, 550 if subject is SENDER else 556, dsn, text, exact=True)
