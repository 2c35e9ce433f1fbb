"""DANE: which TLSA records there are for a server, and what becomes of a policy that asks for them.

The records are those of `_PORT._tcp.NAME` where NAME is that of the server, at the end of its CNAME
records or, when there are none, as it was found (RFC 7671 §7). They count only if DNSSEC vouches
for them, and are not looked for where it does not vouch for the address: whoever could forge that
could forge them, too, and some name servers fail at questions that they do not know.

Decisions over the lookup context. called by: smtp, lmtp, posttls-finger.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from libmail.dns.answers import DnsAnswer, DnsError, NotFound
from libmail.log import LOG, printable
from libmail.lookup.context import Lookups
from libmail.lookup.servers import Server
from libmail.tls.dane import Tlsa, read_tlsa
from libmail.tls.levels import Level
from libmail.tls.policy import Policy, dane_failed, with_records
from libmail.tls.policy_entry import PolicyError
from libmail.tls.tlsrpt import FailureType

__all__ = ["DaneParams", "FoundTlsa", "find_tlsa", "settled"]

_MOST_RECORDS: Final = 64  # of a server, which are used


@dataclass(frozen=True, slots=True)
class DaneParams:
    """lmtp loads it with the prefix ("smtp_", "lmtp_")."""

    smtp_tls_dane_insecure_mx_policy: str
    smtp_tls_force_insecure_host_tlsa_lookup: bool


class FoundTlsa(NamedTuple):
    """Records that DNSSEC vouches for. base_domain: the name of the server that they are for."""

    base_domain: str
    records: tuple[Tlsa, ...]


async def settled(
    policy: Policy, server: Server, port: int, lookups: Lookups, params: DaneParams
) -> Policy:
    """What a policy of DANE is for this server, RFC 7672 §2.2. Raises PolicyError.

    Where the MX record could be forged, the name of the server is none that was vouched for: with
    `dane` its records are used as far as smtp_tls_dane_insecure_mx_policy says, dane-only fails. A
    policy of MTA-STS, which has the names of servers, holds then.
    """
    if server.mx_secure is False:
        if policy.level is Level.DANE_ONLY:
            raise dane_failed("non DNSSEC destination", FailureType.DANE_REQUIRED)
        if params.smtp_tls_dane_insecure_mx_policy == "may" or policy.fallbacks[0].level.enforced:
            return policy.fallbacks[0]
    found = await find_tlsa(
        lookups, server, port, force=params.smtp_tls_force_insecure_host_tlsa_lookup
    )
    if found is None:
        return with_records(policy, None, "")
    decided = with_records(policy, found.records, found.base_domain)
    if server.mx_secure is not False or not decided.records:
        return decided
    if params.smtp_tls_dane_insecure_mx_policy == "encrypt":
        return policy.fallbacks[1]
    return replace(decided, level=Level.HALF_DANE)


async def find_tlsa(
    lookups: Lookups, server: Server, port: int, *, force: bool
) -> FoundTlsa | None:
    """None if there are none. force: look also where DNSSEC does not vouch for the address.

    Raises PolicyError where nobody can say.
    """
    for name in await _names(lookups, server, port, force=force):
        try:
            answer = await lookups.dns(f"_{port}._tcp.{name}", "TLSA")
        except NotFound:
            continue
        except DnsError as error:
            raise _failed(server, port, error) from None
        if answer.validated:
            return FoundTlsa(name, _records(answer))
    return None


async def _names(lookups: Lookups, server: Server, port: int, *, force: bool) -> Sequence[str]:
    """The names under which there may be records. Raises PolicyError."""
    host, final = server.host, server.final or server.host
    alias = final.lower() != host.lower()
    if server.secure or force:
        return (final, host) if alias else (host,)
    try:
        vouched = alias and (await lookups.dns(host, "CNAME")).validated
    except NotFound:
        vouched = False
    except DnsError as error:
        raise _failed(server, port, error) from None
    return (host,) if vouched else ()


def _failed(server: Server, port: int, error: DnsError) -> PolicyError:
    warning = f"DANE TLSA lookup problem: {error.text}"
    reason = f"TLSA lookup error for {server.host}:{port}"
    return dane_failed(reason, FailureType.DNSSEC_INVALID, warning=warning)


def _records(answer: DnsAnswer) -> tuple[Tlsa, ...]:
    """In an order that does not depend on the reply. Who cannot be read or used is warned of."""
    found: list[Tlsa] = []
    for text in sorted(record.value for record in answer.records)[:_MOST_RECORDS]:
        record = read_tlsa(text)
        if record is None:
            LOG.warning(f"{answer.name}: malformed TLSA record: {printable(text[:80])}")
            continue
        if not record.for_mail:
            LOG.warning(f"{answer.name} {record.unusable}: {record}")
        found.append(record)
    return tuple(found)
