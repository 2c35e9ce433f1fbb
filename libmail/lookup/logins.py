"""Restrictions about logins (SASL), and about who owns the sender address.

smtpd_sender_login_maps say to which logins an address belongs. Whether that can be asked at all
depends on smtpd_sasl_auth_enable: without it these restrictions decide nothing, with a warning.
"""

from typing import Final

from libmail.ipc.messages import ResolveFlag
from libmail.lookup.access import act
from libmail.lookup.check import Check, Restriction
from libmail.lookup.context import LookupFailure
from libmail.lookup.facts import DUNNO, PERMIT, SASL, SENDER, Outcome, Subject
from libmail.lookup.unlisted import at_origin
from libmail.tables.maps import AddressForms

__all__ = [
    "check_sasl_access",
    "permit_sasl_authenticated",
    "reject_authenticated_sender_login_mismatch",
    "reject_known_sender_login_mismatch",
    "reject_sender_login_mismatch",
    "reject_unauthenticated_sender_login_mismatch",
]

_MAPS: Final = "smtpd_sender_login_maps"
_LOCAL: Final = int(ResolveFlag.LOCAL)


async def permit_sasl_authenticated(check: Check, _: Subject, __: str) -> Outcome:
    """The client has logged in, and as somebody.

    A login that XCLIENT tells of counts only where clients could log in themselves.
    """
    sasl, params = check.facts.sasl, check.params
    if sasl is None or sasl.method.upper() == "ANONYMOUS" or not params.smtpd_sasl_auth_enable:
        return DUNNO
    return DUNNO if params.smtpd_tls_auth_only and check.facts.tls is None else PERMIT


async def check_sasl_access(check: Check, _: Subject, table: str) -> Outcome:
    """check_sasl_access type:table."""
    if _ignored(check, "check_sasl_access") or check.facts.sasl is None:
        return DUNNO
    name = check.facts.sasl.username
    if not name:
        return DUNNO
    try:
        value = await check.lookups.find(table, name)
    except LookupFailure:
        text = check.rejected(SASL, "Server configuration error")
        return check.reject(SASL, 451, "4.3.5", text)
    if value is None:
        return DUNNO
    check.verdict.decided_by = f"{table} {name}"
    return await act(check, SASL, table, value)


def _ignored(check: Check, name: str) -> bool:
    if check.params.smtpd_sasl_auth_enable:
        return False
    check.warn(f"restriction `{name}' ignored: no SASL support")
    return True


async def _owners(check: Check, sender: str) -> tuple[str, ...] | None:
    """The logins that own an address in lower case; None: it is nobody's. Raises LookupFailure."""
    reply = await check.resolve(sender)
    address = reply.recipient or sender
    local = bool(reply.flags & _LOCAL) or at_origin(check, address)
    delimiters, forms = check.params.recipient_delimiter, AddressForms.DEFAULT
    found = await check.lookups.find_address(_MAPS, address, delimiters, forms, local=local)
    if found is None:
        return None
    return tuple(found.value.lower().replace(",", " ").split())


def _mismatch(name: str, *, logged_in: bool, others: bool, known: bool) -> Restriction:
    """A restriction that refuses senders which do not belong to the client.

    logged_in: of those who are. others: of those who are not. known: only addresses that have
    owners.
    """

    async def refuse(check: Check, _: Subject, __: str) -> Outcome:
        sender, sasl = check.facts.mail.sender, check.facts.sasl
        if _ignored(check, name) or not sender or not (others if sasl is None else logged_in):
            return DUNNO
        try:
            owners = await _owners(check, sender)
        except LookupFailure:
            return check.reject_lookup(sender)
        if owners is None and (sasl is None or known):
            return DUNNO
        if sasl is not None and sasl.username.lower() in (owners or ()):
            return DUNNO
        reason = "not logged in" if sasl is None else f"not owned by user {sasl.username}"
        return check.reject(SENDER, 553, "5.7.1", check.rejected(SENDER, reason))

    return refuse


reject_authenticated_sender_login_mismatch: Final = _mismatch(
    "reject_authenticated_sender_login_mismatch", logged_in=True, others=False, known=False
)
reject_unauthenticated_sender_login_mismatch: Final = _mismatch(
    "reject_unauthenticated_sender_login_mismatch", logged_in=False, others=True, known=True
)
reject_known_sender_login_mismatch: Final = _mismatch(
    "reject_known_sender_login_mismatch", logged_in=True, others=True, known=True
)


async def reject_sender_login_mismatch(check: Check, subject: Subject, argument: str) -> Outcome:
    """The sender does not belong to the client, whether it has logged in or not."""
    outcome = await reject_authenticated_sender_login_mismatch(check, subject, argument)
    if outcome is not DUNNO:
        return outcome
    return await reject_unauthenticated_sender_login_mismatch(check, subject, argument)
