"""Block and allow lists in DNS: reject_rbl_client, reject_rhsbl_*, permit_dnswl_client, ...

A list is `domain`, or `domain=pattern`, where the pattern says which of its addresses count:
"127.0.0.[2..4;9]" (a value, or a list of values and ranges in brackets, at each position).
"""

import re
from collections.abc import Mapping
from functools import partial
from ipaddress import ip_address
from typing import Final

from libmail.config.errors import ExpansionError
from libmail.config.expand import expand
from libmail.dns.answers import DnsError, Filtered, NotFound
from libmail.dns.hostname import valid_hostaddr, valid_hostname
from libmail.dsn.codes import split_dsn
from libmail.lookup.addresses import permit_auth_destination
from libmail.lookup.check import Check, Restriction
from libmail.lookup.context import LookupFailure
from libmail.lookup.expansion import session_values
from libmail.lookup.facts import (
    CLIENT,
    DUNNO,
    HELO,
    PERMIT,
    RECIPIENT,
    SENDER,
    Outcome,
    Subject,
    named,
)
from libmail.smtp.address import split_address
from libmail.text.allowed import allowed_characters, sanitised

__all__ = [
    "matches_pattern",
    "permit_dnswl_client",
    "permit_rhswl_client",
    "reject_rbl_client",
    "rhsbl",
    "valid_pattern",
]

_REASON_LIMIT: Final = 255
_MOST_REASONS: Final = 10
_MOST: Final = 255
_TAKEN: Final = re.compile(r"(?<!\$)\$(?:(\w+)|\{\s*(\w+)\s*\}|\(\s*(\w+)\s*\))", re.A)
_CODE: Final = re.compile(r"([45][0-9][0-9])[ \t](.+)", re.S)


def _octet_matches(pattern: str, octet: int) -> bool:
    """One position of a pattern: "2", or "[2..4;9]". Raises ValueError."""
    found = False
    for part in pattern.strip("[]").split(";"):
        low, dots, high = part.partition("..")
        least, most = int(low), int(high if dots else low)
        if not least <= most <= _MOST:
            raise ValueError(part)
        found = found or least <= octet <= most
    return found


def _positions(pattern: str) -> list[str]:
    positions = re.findall(r"\[[0-9.;]*\]|[0-9]+", pattern)
    if len(positions) != 4 or ".".join(positions) != pattern:
        raise ValueError(pattern)
    return positions


def valid_pattern(pattern: str) -> bool:
    """Whether the text is such a pattern."""
    try:
        for position in _positions(pattern):
            _octet_matches(position, _MOST)
    except ValueError:
        return False
    return True


def matches_pattern(pattern: str, address: str) -> bool:
    """Whether an IPv4 address matches "127.0.0.[2..4;9]". Raises ValueError."""
    octets = [int(octet) for octet in address.split(".")]
    return all(map(_octet_matches, _positions(pattern), octets))


def _reversed_address(address: str) -> str:
    """As lists have it; "" if the client's address is not known (XCLIENT)."""
    if not valid_hostaddr(address.partition("%")[0]):
        return ""
    number = ip_address(address.partition("%")[0])
    return number.reverse_pointer.rpartition(".")[0].rpartition(".")[0]


async def _listed(check: Check, query: str, pattern: str) -> bool | None:
    """Whether the list has the name with such an address; None: the answer is not known now."""
    try:
        records = (await check.lookups.dns(query, "A")).records
    except NotFound:
        return False
    except DnsError as err:
        check.warn(f"{query}: RBL lookup error: {err.text}")
        return None
    try:
        return not pattern or any(matches_pattern(pattern, record.value) for record in records)
    except ValueError:
        check.warn(f"bad address pattern in DNS list: {pattern}")
        return None


async def _reason(check: Check, query: str) -> str:
    try:
        records = (await check.lookups.dns(query, "TXT")).records
    except (NotFound, Filtered):
        return ""
    except DnsError as err:
        check.warn(f"{query}: TXT lookup error: {err.text.rpartition(': ')[2]}")
        return ""
    return " / ".join(record.value[:_REASON_LIMIT] for record in records[:_MOST_REASONS])


async def _blocked(check: Check, subject: Subject, zone: str, query: str, what: str) -> Outcome:
    """The refusal of something that is listed; the text is rbl_reply_maps' or the default."""
    try:
        template = await check.lookups.find("rbl_reply_maps", zone)
    except LookupFailure:
        return check.reject_config()
    domain = zone.partition("=")[0]
    values = await _values(check, subject, domain, query, what)
    which = f"bad rbl reply template for domain {domain}"
    text = None if template is None else _filled_in(check, template, values, which)
    if text is None:
        template = check.params.default_rbl_reply
        text = _filled_in(check, template, values, "bad default rbl reply template")
    if text is None:
        return check.reject_config()
    match = _CODE.fullmatch(text)
    if match is None:
        check.warn(f"rbl response code configuration error: {text}")
        return check.reject(subject, 450, "4.7.1", "Service unavailable")
    dsn, rest = split_dsn(match[2].lstrip(), "5.7.1")
    return check.reject(subject, int(match[1]), dsn, rest or "Service unavailable")


def _filled_in(check: Check, template: str, values: Mapping[str, str], problem: str) -> str | None:
    """The text of a template; None, with a warning, for one that cannot be expanded.

    A name that is not known may only be asked about, as in `${name?text}`.
    """

    usable = True
    taken = {a or b or c for a, b, c in _TAKEN.findall(template)}
    allowed = allowed_characters(check.params.smtpd_expansion_filter)

    def value(name: str) -> str:
        nonlocal usable
        if name not in values:
            usable = usable and name not in taken
            check.warn(f'unknown macro name "{name}" in expansion request')
        text = sanitised(values.get(name, ""), allowed)
        return text.replace("$", "$$")  # it comes from outside, and is no template

    try:
        text = expand(template, value)
    except ExpansionError as err:
        usable = False
        check.warn(str(err))
    if usable:
        return text
    check.warn(f"rbl_reject_reply: {problem}: {template}")
    return None


async def _values(
    check: Check, subject: Subject, domain: str, query: str, what: str
) -> dict[str, str]:
    params = check.params
    reason = await _reason(check, query)
    return {
        **session_values(check.facts, params.myhostname, check.lookups.now()),
        "rbl_code": str(params.maps_rbl_reject_code),
        "rbl_domain": domain,
        "rbl_what": what,
        "rbl_class": subject.words,
        "rbl_reason": reason,
        "rbl_txt": reason,
    }


async def reject_rbl_client(check: Check, _: Subject, zone: str) -> Outcome:
    """reject_rbl_client domain[=pattern]: the client's address is listed."""
    address = check.facts.client.address
    domain, _eq, pattern = zone.partition("=")
    name = _reversed_address(address)
    query = f"{name}.{domain}"
    if not name or not await _listed(check, query, pattern):
        return DUNNO
    return await _blocked(check, CLIENT, zone, query, address)


async def permit_dnswl_client(check: Check, subject: Subject, zone: str) -> Outcome:
    """permit_dnswl_client domain[=pattern]: the client's address is listed."""
    address = check.facts.client.address
    return await _permitted(check, subject, zone, address, _reversed_address(address))


async def permit_rhswl_client(check: Check, subject: Subject, zone: str) -> Outcome:
    """permit_rhswl_client domain[=pattern]: the client's verified name is listed."""
    name = check.facts.client.name
    if name == "unknown" or not valid_hostname(name):
        return DUNNO
    return await _permitted(check, subject, zone, name, name)


async def _permitted(check: Check, subject: Subject, zone: str, what: str, name: str) -> Outcome:
    """Permit what is listed; a list of others opens no relay: it says nothing about a recipient
    that permit_auth_destination would not permit. name: in the list, "" for what cannot be."""
    if not name:
        return DUNNO
    if check.facts.where == "RCPT":
        allowed = await permit_auth_destination(check, subject, "")
        if allowed is not PERMIT:
            return allowed
    domain, _eq, pattern = zone.partition("=")
    listed = await _listed(check, f"{name}.{domain}", pattern)
    if listed is None:
        text = f"<{what}>: {CLIENT.words} rejected: Service unavailable"
        return check.want_defer_if_reject(subject, 450, "4.7.1", text)
    return PERMIT if listed else DUNNO


def rhsbl(subject: Subject) -> Restriction:
    """reject_rhsbl_* domain[=pattern] for a subject: the domain in question is listed."""
    return partial(_rhsbl, subject)


async def _rhsbl(subject: Subject, check: Check, _: Subject, zone: str) -> Outcome:
    what = named(check.facts, subject)
    name = split_address(what)[1] if subject in (SENDER, RECIPIENT) else what
    if subject is not HELO:
        name = name.removesuffix(".")
    if not name or name == "unknown" or name.startswith("[") or not valid_hostname(name):
        return DUNNO
    domain, _eq, pattern = zone.partition("=")
    query = f"{name}.{domain}"
    if not await _listed(check, query, pattern):
        return DUNNO
    return await _blocked(check, subject, zone, query, what)
