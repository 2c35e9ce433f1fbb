"""Decisions that depend on the client alone: hidden EHLO keywords, authorization for XCLIENT,
XFORWARD and XVERP, bare newlines, the domain that completes its headers, Milters for its mail.

They use the lookup context like restrictions, and return the warnings that are to be logged.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from libmail.config.declare import split_list
from libmail.lookup.context import LookupFailure, Lookups
from libmail.lookup.facts import Client
from libmail.smtp.server import BareNewline

__all__ = [
    "Decided",
    "authorized",
    "bare_newlines",
    "completed_with",
    "discarded_keywords",
    "keyword_set",
    "milters_for",
]

T = TypeVar("T")
_OWN: Final = {"permit_inet_interfaces": "inet_interfaces", "permit_mynetworks": "mynetworks"}


@dataclass(frozen=True, slots=True)
class Decided(Generic[T]):
    """A decision. warnings: to be logged."""

    value: T
    warnings: tuple[str, ...] = ()


def keyword_set(words: Iterable[str]) -> frozenset[str]:
    """EHLO keywords in upper case; unknown words are kept, and have no effect."""
    return frozenset(word.upper() for word in words)


async def discarded_keywords(
    lookups: Lookups, address: str, usual: frozenset[str]
) -> Decided[frozenset[str]]:
    """EHLO keywords to hide from a client. If the table fails: those hidden from all clients."""
    try:
        found = await lookups.find("smtpd_discard_ehlo_keyword_address_maps", address)
    except LookupFailure:
        found = None
    return Decided(usual if found is None else keyword_set(found.replace(",", " ").split()))


async def authorized(lookups: Lookups, title: str, client: Client) -> Decided[bool]:
    """Whether a client is in a list such as smtpd_authorized_xclient_hosts; no if a table fails."""
    try:
        if not lookups.has(title):
            return Decided(False)
        return Decided(await lookups.host_in_list(title, client.name, client.address))
    except LookupFailure as err:
        return Decided(False, (str(err),))


async def bare_newlines(lookups: Lookups, client: Client, setting: str) -> Decided[BareNewline]:
    """How bare newlines of a client are treated. setting: smtpd_forbid_bare_newline."""
    if setting in ("no", "note"):
        return Decided(BareNewline.ALLOW)
    title = "smtpd_forbid_bare_newline_exclusions"
    try:
        if await lookups.host_in_list(title, client.name, client.address):
            return Decided(BareNewline.ALLOW)
    except LookupFailure:
        pass  # a failing list excludes nobody
    return Decided(BareNewline.REJECT if setting == "reject" else BareNewline.NORMALIZE)


async def completed_with(
    lookups: Lookups, client: Client, words: Sequence[str], remote: str
) -> Decided[str]:
    """The address rewriting context: "local" for clients that `words` match, else `remote`.

    words: local_header_rewrite_clients. remote: remote_header_rewrite_domain.
    """
    title = "local_header_rewrite_clients"
    warnings: list[str] = []
    for word in words:
        own = _OWN.get(word.lower())
        try:
            if own is not None:
                local = await lookups.host_in_list(own, client.name, client.address)
            else:
                local = ":" in word and await lookups.find(title, client.address) is not None
        except LookupFailure as err:
            warnings.append(f"{title}: {err}")
        else:
            if local:
                return Decided("local", tuple(warnings))
    return Decided(remote, tuple(warnings))


async def milters_for(
    lookups: Lookups, address: str, usual: tuple[str, ...]
) -> Decided[tuple[str, ...] | None]:
    """The elements of the list of Milters for a client; None if the table fails."""
    try:
        found = await lookups.find("smtpd_milter_maps", address)
    except LookupFailure as err:
        return Decided(None, (f"smtpd_milter_maps: {err}",))
    if found is None:
        return Decided(usual)
    return Decided(() if found.strip().upper() == "DISABLE" else split_list(found))
