"""Settings that depend on the client: the decisions of `libmail.lookup.client_rules`.

Their warnings are logged here. Results that every session or message needs are cached for a minute.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

from daemons.smtpd.params import SmtpdParams
from libmail.log import LOG
from libmail.lookup.client_rules import (
    Decided,
    authorized,
    bare_newlines,
    completed_with,
    discarded_keywords,
    keyword_set,
)
from libmail.lookup.context import Lookups
from libmail.lookup.facts import Client
from libmail.lookup.xclient import Forwarded
from libmail.net.cache import ExpiringCache
from libmail.smtp.server import BareNewline

__all__ = ["NOT_AUTHORIZED", "Authorization", "ClientRules"]

_XCLIENT: Final = "smtpd_authorized_xclient_hosts"
_XFORWARD: Final = "smtpd_authorized_xforward_hosts"
_CACHE_SIZE: Final = 5000
_CACHE_LIFE: Final = 60.0

T = TypeVar("T")


def _logged(decided: Decided[T]) -> T:
    for text in decided.warnings:
        LOG.warning(text)
    return decided.value


@dataclass(frozen=True, slots=True)
class Authorization:
    """Whether a client may use XCLIENT and XFORWARD: smtpd_authorized_*_hosts."""

    xclient: bool = False
    xforward: bool = False


NOT_AUTHORIZED: Final = Authorization()


class ClientRules:
    """Decides about clients, independent of any session.

    authorizes_some: there are clients with an authorization.
    """

    def __init__(self, params: SmtpdParams, lookups: Lookups) -> None:
        self.params = params
        self.lookups = lookups
        self._discard = keyword_set(params.smtpd_discard_ehlo_keywords)
        self._discards_some = lookups.has("smtpd_discard_ehlo_keyword_address_maps")
        self._verp_for_some = lookups.has("smtpd_authorized_verp_clients")
        self.authorizes_some = lookups.has(_XCLIENT) or lookups.has(_XFORWARD)
        self._newlines: ExpiringCache[str, BareNewline] = ExpiringCache(_CACHE_SIZE, _CACHE_LIFE)
        self._contexts: ExpiringCache[str, str] = ExpiringCache(_CACHE_SIZE, _CACHE_LIFE)

    async def discarded(self, address: str) -> frozenset[str]:
        """EHLO keywords that are hidden from a client."""
        if not self._discards_some:
            return self._discard
        return _logged(await discarded_keywords(self.lookups, address, self._discard))

    async def authorization(self, client: Client) -> Authorization:
        """Whether a client may use XCLIENT and XFORWARD."""
        return Authorization(
            _logged(await authorized(self.lookups, _XCLIENT, client)),
            _logged(await authorized(self.lookups, _XFORWARD, client)),
        )

    async def allows_verp(self, client: Client) -> bool:
        """Whether the client may ask for VERP."""
        return self._verp_for_some and _logged(
            await authorized(self.lookups, "smtpd_authorized_verp_clients", client)
        )

    async def newlines(self, client: Client) -> BareNewline:
        """How bare newlines of a client are treated (smtpd_forbid_bare_newline)."""
        known = self._newlines.get(client.address)
        if known is None:
            setting = self.params.smtpd_forbid_bare_newline
            known = _logged(await bare_newlines(self.lookups, client, setting))
            self._newlines.put(client.address, known)
        return known

    async def rewrite_context(self, client: Client, forwarded: Forwarded | None) -> str:
        """The address rewriting context: "local", or the domain that completes remote headers."""
        if forwarded is not None and forwarded.local is not None:
            return "local" if forwarded.local else self.params.remote_header_rewrite_domain
        known = self._contexts.get(client.address)
        if known is None:
            words = self.params.local_header_rewrite_clients
            remote = self.params.remote_header_rewrite_domain
            known = _logged(await completed_with(self.lookups, client, words, remote))
            self._contexts.put(client.address, known)
        return known
