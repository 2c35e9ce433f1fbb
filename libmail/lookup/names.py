"""The restrictions by name."""

from collections.abc import Mapping
from typing import Final

from libmail.lookup.access import (
    check_client_access,
    check_etrn_access,
    check_helo_access,
    check_recipient_access,
    check_reverse_client_access,
    check_sender_access,
)
from libmail.lookup.addresses import (
    defer_unauth_destination,
    permit_auth_destination,
    permit_mx_backup,
    reject_multi_recipient_bounce,
    reject_non_fqdn_recipient,
    reject_non_fqdn_sender,
    reject_unauth_destination,
    reject_unknown_recipient_domain,
    reject_unknown_sender_domain,
)
from libmail.lookup.certificates import (
    check_ccert_access,
    permit_tls_all_clientcerts,
    permit_tls_clientcerts,
)
from libmail.lookup.check import Check, Restriction
from libmail.lookup.clients import (
    permit_inet_interfaces,
    permit_mynetworks,
    reject_invalid_helo_hostname,
    reject_non_fqdn_helo_hostname,
    reject_plaintext_session,
    reject_unauth_pipelining,
    reject_unknown_client_hostname,
    reject_unknown_forward_client_hostname,
    reject_unknown_helo_hostname,
    reject_unknown_reverse_client_hostname,
)
from libmail.lookup.dnslists import (
    permit_dnswl_client,
    permit_rhswl_client,
    reject_rbl_client,
    rhsbl,
)
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
)
from libmail.lookup.hosts import HOSTS_OF, KINDS, hosts_access
from libmail.lookup.logins import (
    check_sasl_access,
    permit_sasl_authenticated,
    reject_authenticated_sender_login_mismatch,
    reject_known_sender_login_mismatch,
    reject_sender_login_mismatch,
    reject_unauthenticated_sender_login_mismatch,
)
from libmail.lookup.unlisted import reject_unlisted_recipient, reject_unlisted_sender
from libmail.lookup.verification import reject_unverified_recipient, reject_unverified_sender

__all__ = ["RESTRICTIONS", "WITH_ARGUMENT", "WITH_TABLE"]


async def _permit(_: Check, __: Subject, ___: str) -> Outcome:
    return PERMIT


async def _dunno(_: Check, __: Subject, ___: str) -> Outcome:
    return DUNNO


async def _reject(check: Check, subject: Subject, _: str) -> Outcome:
    text = check.rejected(subject, "Access denied")
    return check.reject(subject, check.params.reject_code, "5.7.1", text)


async def _defer(check: Check, subject: Subject, _: str) -> Outcome:
    text = check.rejected(subject, "Try again later")
    return check.reject(subject, check.params.defer_code, "4.3.2", text)


async def _defer_if_permit(check: Check, subject: Subject, _: str) -> Outcome:
    text = check.rejected(subject, "defer_if_permit requested")
    return check.want_defer_if_permit(subject, 450, "4.7.0", text)


async def _defer_if_reject(check: Check, subject: Subject, _: str) -> Outcome:
    text = check.rejected(subject, "defer_if_reject requested")
    return check.want_defer_if_reject(subject, 450, "4.7.0", text)


def _removed(name: str, instead: str) -> Restriction:
    """A restriction that there was before version 3.9."""

    async def refuse(check: Check, _: Subject, __: str) -> Outcome:
        what = f'support for restriction "{name}" has been removed in Postfix 3.9'
        check.warn(f"{what}; instead, specify {instead}")
        return check.reject_config()

    return refuse


_REMOVED: Final = {
    "check_relay_domains": '"reject_unauth_destination"',
    "permit_naked_ip_address": '"permit_mynetworks" or "permit_sasl_authenticated"',
    "reject_maps_rbl": '"reject_rbl_client domain-name"',
}

RESTRICTIONS: Final[Mapping[str, Restriction]] = {
    "defer": _defer,
    "defer_if_permit": _defer_if_permit,
    "defer_if_reject": _defer_if_reject,
    "defer_unauth_destination": defer_unauth_destination,
    "permit": _permit,
    "permit_auth_destination": permit_auth_destination,
    "permit_inet_interfaces": permit_inet_interfaces,
    "permit_mx_backup": permit_mx_backup,
    "permit_mynetworks": permit_mynetworks,
    "permit_sasl_authenticated": permit_sasl_authenticated,
    "permit_tls_all_clientcerts": permit_tls_all_clientcerts,
    "permit_tls_clientcerts": permit_tls_clientcerts,
    "reject": _reject,
    "reject_authenticated_sender_login_mismatch": reject_authenticated_sender_login_mismatch,
    "reject_invalid_helo_hostname": reject_invalid_helo_hostname,
    "reject_invalid_hostname": reject_invalid_helo_hostname,
    "reject_known_sender_login_mismatch": reject_known_sender_login_mismatch,
    "reject_multi_recipient_bounce": reject_multi_recipient_bounce,
    "reject_non_fqdn_helo_hostname": reject_non_fqdn_helo_hostname,
    "reject_non_fqdn_hostname": reject_non_fqdn_helo_hostname,
    "reject_non_fqdn_recipient": reject_non_fqdn_recipient,
    "reject_non_fqdn_sender": reject_non_fqdn_sender,
    "reject_plaintext_session": reject_plaintext_session,
    "reject_sender_login_mismatch": reject_sender_login_mismatch,
    "reject_unauth_destination": reject_unauth_destination,
    "reject_unauth_pipelining": reject_unauth_pipelining,
    "reject_unauthenticated_sender_login_mismatch": reject_unauthenticated_sender_login_mismatch,
    "reject_unknown_address": reject_unknown_sender_domain,
    "reject_unknown_client": reject_unknown_client_hostname,
    "reject_unknown_client_hostname": reject_unknown_client_hostname,
    "reject_unknown_forward_client_hostname": reject_unknown_forward_client_hostname,
    "reject_unknown_helo_hostname": reject_unknown_helo_hostname,
    "reject_unknown_hostname": reject_unknown_helo_hostname,
    "reject_unknown_recipient_domain": reject_unknown_recipient_domain,
    "reject_unknown_reverse_client_hostname": reject_unknown_reverse_client_hostname,
    "reject_unknown_sender_domain": reject_unknown_sender_domain,
    "reject_unlisted_recipient": reject_unlisted_recipient,
    "reject_unlisted_sender": reject_unlisted_sender,
    "reject_unverified_recipient": reject_unverified_recipient,
    "reject_unverified_sender": reject_unverified_sender,
    "check_recipient_maps": reject_unlisted_recipient,
    "warn_if_reject": _dunno,  # the evaluation itself looks out for it
    **{name: _removed(name, instead) for name, instead in _REMOVED.items()},
}

# Restrictions that need a table, and those that need something else.
WITH_TABLE: Final[Mapping[str, Restriction]] = {
    "check_ccert_access": check_ccert_access,
    "check_client_access": check_client_access,
    "check_etrn_access": check_etrn_access,
    "check_helo_access": check_helo_access,
    "check_recipient_access": check_recipient_access,
    "check_reverse_client_hostname_access": check_reverse_client_access,
    "check_sasl_access": check_sasl_access,
    "check_sender_access": check_sender_access,
    **{
        f"check_{name}_{kind.lower()}_access": hosts_access(name, kind)
        for name in HOSTS_OF
        for kind in KINDS
    },
}
WITH_ARGUMENT: Final[Mapping[str, Restriction]] = {
    "permit_dnswl_client": permit_dnswl_client,
    "permit_rhswl_client": permit_rhswl_client,
    "reject_rbl": reject_rbl_client,
    "reject_rbl_client": reject_rbl_client,
    "reject_rhsbl_client": rhsbl(CLIENT),
    "reject_rhsbl_helo": rhsbl(HELO),
    "reject_rhsbl_recipient": rhsbl(RECIPIENT),
    "reject_rhsbl_reverse_client": rhsbl(REVERSE_CLIENT),
    "reject_rhsbl_sender": rhsbl(SENDER),
}
