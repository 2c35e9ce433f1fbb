"""Whether an address exists, as far as the tables of its class tell."""

from typing import Final

from libmail.dsn.codes import split_dsn
from libmail.ipc.messages import ResolveFlag, ResolveReply
from libmail.lookup.check import Check
from libmail.lookup.context import LookupFailure
from libmail.lookup.facts import DUNNO, RECIPIENT, SENDER, Outcome, Subject
from libmail.lookup.verification import probe_senders
from libmail.smtp.address import split_address
from libmail.tables.maps import AddressForms

__all__ = ["at_origin", "check_listed", "reject_unlisted_recipient", "reject_unlisted_sender"]

_LOCAL: Final = int(ResolveFlag.LOCAL)
_ALIAS: Final = int(ResolveFlag.ALIAS)
_VIRTUAL: Final = int(ResolveFlag.VIRTUAL)
_RELAY: Final = int(ResolveFlag.RELAY)
_LISTED: Final = _LOCAL | _VIRTUAL | _RELAY  # classes that have tables
# Tables that know an address which they will make another one of.
_FOR_RECIPIENT: Final = ("recipient_canonical_maps", "canonical_maps", "virtual_alias_maps")
_FOR_SENDER: Final = ("sender_canonical_maps", *_FOR_RECIPIENT)


async def reject_unlisted_recipient(check: Check, _: Subject, __: str) -> Outcome:
    """The recipient is not in the tables of its address class."""
    recipient = check.facts.mail.recipient
    if recipient is None or check.unlisted:
        return DUNNO
    check.unlisted = not check.warning  # else the check at the end of all lists is still to come
    return await check_listed(check, RECIPIENT, recipient)


async def reject_unlisted_sender(check: Check, _: Subject, __: str) -> Outcome:
    """The sender is not in the tables of its address class."""
    sender = check.facts.mail.sender
    return await check_listed(check, SENDER, sender) if sender else DUNNO


async def check_listed(check: Check, subject: Subject, address: str) -> Outcome:
    """Refuse an address that is in none of the tables of its class.

    Where no_unknown_recipient_checks says that another smtpd(8) has looked, senders pass too.
    """
    if "no_unknown_recipient_checks" in check.params.receive_override_options:
        return DUNNO
    try:
        return await _check(check, subject, address)
    except LookupFailure:
        return check.reject_lookup(address)


async def _check(check: Check, subject: Subject, address: str) -> Outcome:
    reply = await check.resolve(address)
    recipient = reply.recipient or address
    for title in _FOR_SENDER if subject is SENDER else _FOR_RECIPIENT:
        if check.lookups.has(title):
            local = bool(reply.flags & _LOCAL) or at_origin(check, recipient)
            if await _found(check, title, recipient, local):
                return DUNNO
    if reply.transport in ("error", "retry"):
        return _error(check, subject, reply)
    if not reply.flags & _LISTED:
        return DUNNO
    return await _class_tables(check, subject, reply, recipient)


def at_origin(check: Check, address: str) -> bool:
    """Whether an address is in our own domain, $myorigin."""
    return split_address(address)[1].lower() == check.params.myorigin.lower()


async def _found(check: Check, title: str, address: str, local: bool) -> bool:
    delimiters = check.params.recipient_delimiter
    forms = AddressForms.DEFAULT
    found = await check.lookups.find_address(title, address, delimiters, forms, local=local)
    return found is not None


def _error(check: Check, subject: Subject, reply: ResolveReply) -> Outcome:
    """What resolves to error(8) is known to be undeliverable, to retry(8): not now."""
    dsn, reason = split_dsn(reply.nexthop, "5.1.0" if subject is SENDER else "5.1.1")
    if reply.transport == "retry":
        code = 450
    elif reply.flags & _ALIAS:
        code = check.params.unknown_virtual_alias_reject_code
    else:
        code = 550
    return _unknown(check, subject, code, f"{code // 100}{dsn[1:]}", reason)


async def _class_tables(
    check: Check, subject: Subject, reply: ResolveReply, address: str
) -> Outcome:
    params = check.params
    if reply.flags & _LOCAL:
        title, words = "local_recipient_maps", "local recipient"
        code = params.unknown_local_recipient_reject_code
        if _always_local(address, params.double_bounce_sender) or _sends_probes(check, address):
            return DUNNO
    elif reply.flags & _VIRTUAL:
        title, words = "virtual_mailbox_maps", "virtual mailbox"
        code = params.unknown_virtual_mailbox_reject_code
    else:
        title, words = "relay_recipient_maps", "relay recipient"
        code = params.unknown_relay_recipient_reject_code
    local = bool(reply.flags & _LOCAL)
    if not check.lookups.has(title) or await _found(check, title, address, local):
        return DUNNO
    reason = (
        f"User unknown in {words} table" if params.show_user_unknown_table_name else "User unknown"
    )
    dsn = "5.1.0" if subject is SENDER else "5.1.1"
    return _unknown(check, subject, code, dsn, reason)


def _unknown(check: Check, subject: Subject, code: int, dsn: str, reason: str) -> Outcome:
    return check.reject(subject, code, dsn, check.rejected(subject, reason), "bounce")


def _always_local(address: str, double_bounce_sender: str) -> bool:
    """Names that exist whatever the tables say: postmaster (RFC 5321 §4.5.1), and ours."""
    local = split_address(address)[0].lower()
    return local in ("postmaster", "mailer-daemon", double_bounce_sender.lower())


def _sends_probes(check: Check, address: str) -> bool:
    """Whether probes of ours have that sender: who is asked may ask whether it exists."""
    params = check.params
    base, ttl = params.address_verify_sender, params.address_verify_sender_ttl
    local = split_address(address)[0].lower()
    senders = probe_senders(base, ttl, check.lookups.now()) if ttl >= 1 else (base,)
    return any(split_address(sender)[0].lower() == local for sender in senders if sender)
