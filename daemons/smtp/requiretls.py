"""REQUIRETLS (RFC 8689): what a message that came with it needs of the servers on its way.

smtp_requiretls_policy says how strictly that is taken with a destination. Where a server does not
meet it the message goes to another one, and if none does, back to its sender: it is not to wait
for days in a queue for what is not going to change. While one of the servers cannot be asked, it
does wait: that one may meet it (RFC 8689 §4.2.1 has all of them tried).
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from daemons.smtp.failure import Failure
from daemons.smtp.session import Session
from daemons.smtp.settings import SmtpParams
from libmail.dns.hostname import ascii_domain, valid_hostname
from libmail.log import LOG
from libmail.tables.maps import Maps
from libmail.tables.table import TableOptions
from libmail.tls.levels import Level

__all__ = ["NO_CERTIFICATE", "NO_STARTTLS", "Demand", "RequireTls", "Verdict", "open_requiretls"]

NO_ENCRYPTION: Final = "noencryption"  # words of the log for what is missing
NO_STARTTLS: Final = "nostarttls"
NO_CERTIFICATE: Final = "nocertmatch"
NO_SUPPORT: Final = "none"
_SUPPORT_REQUIRED: Final = "5.7.30"  # RFC 8689 §8
_REASONS: Final = {
    NO_ENCRYPTION: "TLS is disabled for",
    NO_STARTTLS: "there is no TLS with",
    NO_CERTIFICATE: "there is no verified certificate of",
    NO_SUPPORT: "there is no support for it at",
}


class Verdict(NamedTuple):
    """What becomes of REQUIRETLS with a server.

    lacks: what keeps the server from getting the message, "" for nothing. passes: the server is
    asked for REQUIRETLS. status: for the log, "" where it does not count.
    """

    lacks: str = ""
    passes: bool = False
    status: str = ""

    def obstacle(self, server: str) -> Failure | None:
        """What is lacking, as a reason. server: its name for people."""
        if not self.lacks:
            return None
        reason = f"message requires REQUIRETLS, but {_REASONS[self.lacks]} {server}"
        return Failure(_SUPPORT_REQUIRED, reason, elsewhere=True)


_NOTHING: Final = Verdict()


class Demand(IntEnum):
    """How strictly REQUIRETLS is taken, by the names in smtp_requiretls_policy."""

    DISABLE = 0  # as if it were not there
    OPPORTUNISTIC = 1  # pass it on to a server that knows it
    OPPORTUNISTIC_STARTTLS = 2  # and insist on encryption
    ENFORCE = 3  # and on all of it

    @property
    def label(self) -> str:
        """The name."""
        return self.name.lower().replace("_", "+")

    @property
    def encrypts(self) -> bool:
        """Whether nothing may be sent in the clear."""
        return self >= Demand.OPPORTUNISTIC_STARTTLS

    def without(self, what: str) -> Verdict:
        """The verdict on a server that lacks something; "" for what is none of it."""
        needed = _NEEDED.get(what)
        if needed is None or self < needed:
            return _NOTHING
        return Verdict(what, status=f"!requiretls:{what}")

    def foresee(self, level: Level) -> Verdict:
        """The verdict on a server before it is connected to, by the level of the TLS policy."""
        if not self:
            return _NOTHING
        if level is Level.NONE:
            return self.without(NO_ENCRYPTION)
        return _NOTHING if _vouches(level) else self.without(NO_CERTIFICATE)

    def judge(self, session: Session, level: Level) -> Verdict:
        """The verdict on a server that has said what it offers."""
        if self < Demand.OPPORTUNISTIC:
            return _NOTHING
        known = session.secured and session.verified and _vouches(level)
        lacks = ""
        if not session.secured:
            lacks = NO_STARTTLS
        elif not known:
            lacks = NO_CERTIFICATE
        elif not session.extensions.requiretls:
            lacks = NO_SUPPORT
        violated = self.without(lacks)
        if violated.lacks:
            return violated
        if not (session.secured and session.extensions.requiretls):
            return Verdict(status="requiretls:none")
        return Verdict(passes=True, status="requiretls" if known else "requiretls:nocertmatch")


def _vouches(level: Level) -> bool:
    """Whether the right server is known, RFC 8689 §4.2.1; with half-dane it may be a forged one."""
    return level.matches_peer and level is not Level.HALF_DANE


_NEEDED: Final = {
    NO_ENCRYPTION: Demand.OPPORTUNISTIC_STARTTLS,
    NO_STARTTLS: Demand.OPPORTUNISTIC_STARTTLS,
    NO_CERTIFICATE: Demand.ENFORCE,
    NO_SUPPORT: Demand.ENFORCE,
}
_DEMANDS: Final = {demand.label: demand for demand in Demand}


class RequireTls:
    """smtp_requiretls_policy: words and tables, of which the first that says something counts."""

    def __init__(self, title: str, items: Sequence[str], options: TableOptions) -> None:
        """Open the tables. items: of the list. Raises TableConfigError."""
        self._title = title
        self._items: tuple[Demand | Maps | str, ...] = tuple(
            Maps(title, (item,), options) if ":" in item else _DEMANDS.get(item.lower(), item)
            for item in items
        )

    async def of(self, nexthop: str) -> Demand | None:
        """The demand for a destination, without brackets and port; without any entry ENFORCE.

        None, with a warning, for a word that is none. Raises TableError.
        """
        for item in self._items:
            found = item if not isinstance(item, Maps) else await _search(item, nexthop)
            if found is None:
                continue
            demand = found if isinstance(found, Demand) else _DEMANDS.get(found.strip().lower())
            if demand is None:
                LOG.warning(f'{self._title}: unknown policy "{found}" for {nexthop}')
            return demand
        return Demand.ENFORCE


def open_requiretls(params: SmtpParams, prefix: str, options: TableOptions) -> RequireTls | None:
    """None where requiretls_enable is off. prefix: "smtp" or "lmtp". Raises TableConfigError."""
    if not params.requiretls_enable:
        return None
    return RequireTls(f"{prefix}_requiretls_policy", params.smtp_requiretls_policy, options)


async def _search(maps: Maps, nexthop: str) -> str | None:
    for key, partial in _keys(nexthop):
        found = await maps.search(key, partial=partial)
        if found is not None:
            return found.value
    return None


def _keys(nexthop: str) -> Iterator[tuple[str, bool]]:
    """(key, whether it is a parent domain)."""
    name = (ascii_domain(nexthop) or nexthop).lower()
    yield name, False
    at = name.find(".") if valid_hostname(name) else -1
    while at > 0:
        yield name[at:], True
        at = name.find(".", at + 1)
