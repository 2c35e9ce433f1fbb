"""access(5) tables: how they are searched, and what their right-hand sides do."""

import re
from collections.abc import Iterator
from typing import Final

from libmail.dsn.codes import split_dsn
from libmail.lookup.check import Check, Rule
from libmail.lookup.context import LookupFailure
from libmail.lookup.facts import (
    CLIENT,
    DUNNO,
    END_OF_MESSAGE,
    ETRN,
    HELO,
    PERMIT,
    RECIPIENT,
    REVERSE_CLIENT,
    SENDER,
    Effect,
    Outcome,
    Subject,
)
from libmail.smtp.address import address_fault, split_address
from libmail.tables.maps import split_extension

__all__ = [
    "address_parents",
    "check_client_access",
    "check_etrn_access",
    "check_helo_access",
    "check_recipient_access",
    "check_reverse_client_access",
    "check_sender_access",
    "domain_parents",
    "host_action",
]

_HEADER: Final = re.compile(r"[!-9;-~]+[ \t]*:")  # RFC 5322 §2.2, §4.5
_DEPTH: Final = 10  # restriction lists within tables within lists


def domain_parents(domain: str, *, dotted: bool) -> Iterator[tuple[str, bool]]:
    """(key, is a part) for a domain and those above it; dotted: the latter as ".example.org"."""
    yield domain, False
    parent = domain
    while (dot := parent.find(".", 1)) >= 0:
        parent = parent[dot if dotted else dot + 1 :]
        if parent:
            yield parent, True


def address_parents(address: str) -> Iterator[tuple[str, bool]]:
    """(key, is a part) for an address and the networks that its text begins with."""
    yield address, False
    separator = ":" if ":" in address else "."
    while separator in address:
        address = address.rpartition(separator)[0].rstrip(":")
        if address:
            yield address, True


def _dotted(check: Check) -> bool:
    return "smtpd_access_maps" not in check.params.parent_domain_matches_subdomains


async def _search(
    check: Check, table: str, keys: Iterator[tuple[str, bool]], subject: Subject
) -> Outcome | None:
    """What the first key in the table leads to; None: no key is in it."""
    entry = ""
    for key, partial in keys:
        entry = entry or key  # the whole name, of which only a part may be in the table
        value = await check.lookups.find(table, key, partial=partial)
        if value is not None:
            check.verdict.decided_by = f"{table} {key}"
            return await act(check, subject, table, value, entry)
    return None


async def host_action(
    check: Check, subject: Subject, table: str, name: str, address: str
) -> Outcome | None:
    """Search for a host name (if any), then for an address (if any). Raises LookupFailure."""
    if name:
        found = await _search(check, table, domain_parents(name, dotted=_dotted(check)), subject)
        if found is not None:
            return found
    if address:
        return await _search(check, table, address_parents(address), subject)
    return None


async def check_client_access(check: Check, _: Subject, table: str) -> Outcome:
    """check_client_access type:table."""
    facts = check.facts
    return await _host(check, CLIENT, table, facts.client.name, facts.client.address)


async def check_reverse_client_access(check: Check, _: Subject, table: str) -> Outcome:
    """check_reverse_client_hostname_access type:table. It may not permit: whoever owns an address
    can give it any name."""
    name = check.facts.client.reverse_name
    outcome = await _host(check, REVERSE_CLIENT, table, name, check.facts.client.address)
    if outcome is PERMIT and not check.discarding:
        return check.forbid_permit("check_reverse_client_hostname_access", name)
    return outcome


async def _host(check: Check, subject: Subject, table: str, name: str, address: str) -> Outcome:
    try:
        found = await host_action(check, subject, table, name, address)
    except LookupFailure:
        return _unavailable(check, subject)
    return DUNNO if found is None else found


def _unavailable(check: Check, subject: Subject) -> Outcome:
    """A table cannot be searched now."""
    return check.reject(
        subject, 451, "4.3.5", check.rejected(subject, "Server configuration error")
    )


async def check_helo_access(check: Check, _: Subject, table: str) -> Outcome:
    """check_helo_access type:table."""
    name = check.facts.helo_name
    return await _host(check, HELO, table, name, "") if name else DUNNO


async def check_etrn_access(check: Check, subject: Subject, table: str) -> Outcome:
    """check_etrn_access type:table."""
    return await _host(check, subject, table, check.name(subject), "")


async def check_sender_access(check: Check, _: Subject, table: str) -> Outcome:
    """check_sender_access type:table."""
    if check.facts.mail.sender is None:
        return DUNNO
    return await _mail(check, SENDER, table, check.facts.mail.sender)


async def check_recipient_access(check: Check, _: Subject, table: str) -> Outcome:
    """check_recipient_access type:table."""
    if not check.facts.mail.recipient:
        return DUNNO
    return await _mail(check, RECIPIENT, table, check.facts.mail.recipient)


def _address_keys(check: Check, address: str) -> Iterator[tuple[str, bool]]:
    if not address:
        yield check.params.smtpd_null_access_lookup_key, False
        return
    local, domain = split_address(address)
    base, extension = split_extension(local, check.params.recipient_delimiter)
    yield address, False
    if extension and domain:
        yield f"{base}@{domain}", True
    if domain:
        for key, _ in domain_parents(domain, dotted=_dotted(check)):
            yield key, True
    yield f"{local}@", True
    if extension:
        yield f"{base}@", True


async def _mail(check: Check, subject: Subject, table: str, address: str) -> Outcome:
    """By the address as it is once it is complete and without a route: that of the mail."""
    if address:
        try:
            address = (await check.resolve(address)).recipient
        except LookupFailure:
            return check.reject_lookup(check.name(subject))
        if "@" not in address:
            return DUNNO
    try:
        found = await _search(check, table, _address_keys(check, address), subject)
    except LookupFailure:
        return _unavailable(check, subject)
    return DUNNO if found is None else found


# actions


async def act(check: Check, subject: Subject, table: str, value: str, entry: str = "") -> Outcome:
    """Do what the right-hand side of a table says. entry: what was looked up, for warnings."""
    value = value.strip()
    if not value:
        check.warn(f"access table {table} entry {value} has empty value")
        return DUNNO
    word, _, text = value.partition(" ")
    word, text = word.upper(), text.strip()
    if word in ("OK", "RELAY") or (not text and word.isascii() and word.isdigit()):
        check.permitted_by = word
        return PERMIT
    if word == "DUNNO":
        return DUNNO
    if word in _REFUSALS:
        return _refuse(check, subject, word, text)
    if _is_code(word):
        return _numeric(check, subject, int(word), text)
    if word in _NOTES:
        return _note(check, subject, table, word, text, entry or check.name(subject))
    return await _restrictions(check, subject, table, value)


def _is_code(word: str) -> bool:
    return len(word) == 3 and word[0] in "45" and word.isascii() and word.isdigit()


def _refuse(check: Check, subject: Subject, word: str, text: str) -> Outcome:
    params = check.params
    permanent = word == "REJECT"
    usual = "Service unavailable" if word in _LATER else "Access denied"
    code = params.access_map_reject_code if permanent else params.access_map_defer_code
    dsn, reason = split_dsn(text, "5.7.1" if permanent else "4.7.1")
    line = check.rejected(subject, reason or usual)
    if word == "DEFER_IF_PERMIT":
        return check.want_defer_if_permit(subject, code, dsn, line)
    if word == "DEFER_IF_REJECT":
        return check.want_defer_if_reject(subject, code, dsn, line)
    return check.reject(subject, code, dsn, line)


def _numeric(check: Check, subject: Subject, code: int, text: str) -> Outcome:
    dsn, reason = split_dsn(text, f"{code // 100}.7.1")
    return check.reject(subject, code, dsn, check.rejected(subject, reason or "Access denied"))


def _note(check: Check, subject: Subject, table: str, word: str, text: str, entry: str) -> Outcome:
    """An action that does not decide."""
    about = f"<{check.name(subject)}>: {subject.words}"
    action = word.lower()
    if word in ("WARN", "INFO"):
        effect = Effect(action, text)
    elif not _may_be_done(check, subject, table, word):
        return DUNNO
    elif word in ("HOLD", "DISCARD"):
        effect = Effect(action, f"{about} {text or f'triggers {word} action'}")
    elif not _usable(check, table, word, text, entry):
        return DUNNO
    elif word == "PREPEND":
        effect = Effect(action, "", text)
    else:
        effect = Effect(action, f"{about} triggers {word} {text}", text)
    check.verdict.effects.append(effect)
    if word != "DISCARD":
        return DUNNO
    check.permitted_by = word
    return PERMIT


def _may_be_done(check: Check, subject: Subject, table: str, word: str) -> bool:
    """Whether an action on the message is possible here; logs why not."""
    params = check.params
    if subject is ETRN:
        why = f"action {word} is unavailable in smtpd_etrn_restrictions"
    elif params.smtpd_proxy_filter and word in _OF_QUEUE:
        why = f"with smtpd_proxy_filter specified, action {word} is unavailable"
    elif not params.smtpd_delay_reject and subject in (CLIENT, HELO):
        where = f"{CLIENT.words} or {HELO.words} restrictions"
        why = f"with smtpd_delay_reject=no, action {word} is always skipped in {where}"
    elif word == "PREPEND" and check.facts.where == END_OF_MESSAGE:
        why = f"action {word} must be used before smtpd_end_of_data_restrictions"
    else:
        return True
    check.warn(f"access table {table}: {why}")
    return False


def _usable(check: Check, table: str, word: str, text: str, entry: str) -> bool:
    """Whether the argument of an action can be used; logs why not."""
    if word == "PREPEND":
        problem = "" if _HEADER.match(text) else "requires header: text"
    elif word == "FILTER":
        problem = "" if ":" in text else "requires transport:destination"
        if not text:
            problem = "has FILTER entry without value"
    else:
        problem = address_fault(text) if "@" in text else "requires user@domain target"
    if problem:
        check.warn(f'access table {table} entry "{entry}" {problem}')
    return not problem


async def _restrictions(check: Check, subject: Subject, table: str, value: str) -> Outcome:
    """A right-hand side that names restrictions."""
    if ":" in value:
        check.warn(f"access table {table} has entry with lookup table: {value}")
        check.warn("do not specify lookup tables inside SMTPD access maps")
        check.warn("define a restriction class and specify its name instead.")
        return check.reject_config()
    rules: list[Rule] = []
    rest = value.replace(",", " ").split()
    while rest:
        name = rest[0]
        rule = check.by_name(rest)
        if rule is None:
            check.warn(f'unknown smtpd restriction: "{name}"')
            return check.reject_config()
        rules.append(rule)
    if check.depth >= _DEPTH:
        check.warn(f"access table {table} entry {value} causes unreasonable recursion")
        return check.reject_config()
    check.depth += 1
    try:
        return await check.run(tuple(rules), subject)
    finally:
        check.depth -= 1


_REFUSALS: Final = frozenset({"REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT"})
_LATER: Final = frozenset({"DEFER_IF_PERMIT", "DEFER_IF_REJECT"})
_OF_QUEUE: Final = frozenset({"HOLD", "DISCARD", "FILTER", "REDIRECT", "BCC"})
_NOTES: Final = frozenset(
    {"WARN", "INFO", "HOLD", "DISCARD", "FILTER", "REDIRECT", "BCC", "PREPEND"}
)
