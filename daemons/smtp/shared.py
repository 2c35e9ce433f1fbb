"""What the deliveries of a process of smtp(8) share: settings, lookups, kept sessions, poller."""

import asyncio
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from daemons.smtp.cache import SessionCache
from daemons.smtp.logins import Logins
from daemons.smtp.pix import PixWorkarounds
from daemons.smtp.recording import Notices, RecordingWire, WatchedWire
from daemons.smtp.replyfilter import ReplyFilter
from daemons.smtp.requiretls import RequireTls
from daemons.smtp.route import Route
from daemons.smtp.settings import Settings
from daemons.smtp.tls_policy import TlsPolicies
from libmail.log import LOG
from libmail.lookup.context import Lookups
from libmail.lookup.next_hop import parse_destination
from libmail.lookup.servers import ServerChoice
from libmail.lookup.tlsa import DaneParams
from libmail.lookup.watched import WatchedPeers
from libmail.net.poller import Poller
from libmail.net.secure_wire import SecureWire
from libmail.smtp.client import Extensions, ServerReply, parse_extensions
from libmail.tables.match import StringList

if TYPE_CHECKING:
    from daemons.smtp.handshakes import Handshakes
    from daemons.smtp.tlsrpt import Reporter

__all__ = ["Decisions", "SmtpClient", "SourceUnusable", "discard_title"]


class SourceUnusable(Exception):
    """smtp_bind_address_enforce: the source address is not ours to use."""


def discard_title(*, lmtp: bool) -> str:
    """The name of smtp_discard_ehlo_keyword_address_maps or its sister."""
    return f"{'lmtp_discard_lhlo' if lmtp else 'smtp_discard_ehlo'}_keyword_address_maps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """Everything that decides about servers; made before the jail.

    lookups: what the decisions ask. cache_destinations: smtp_connection_cache_destinations. logins:
    None without smtp_sasl_auth_enable. requiretls: None where it counts with no destination.
    """

    lookups: Lookups
    choice: ServerChoice
    default_port: int
    cache_destinations: StringList
    tls: TlsPolicies
    dane: DaneParams
    pix: PixWorkarounds
    reply_filter: ReplyFilter
    watched: WatchedPeers
    logins: Logins | None = None
    requiretls: RequireTls | None = None


class SmtpClient:
    """The SMTP client of a process. Made within the event loop."""

    def __init__(
        self,
        settings: Settings,
        decisions: Decisions,
        notices: Notices,
        engine: "Handshakes | None" = None,
        reporter: "Reporter | None" = None,
    ) -> None:
        """engine: the TLS engine, None where TLS is off or not possible. reporter: of its
        handshakes, None where nobody is to be told."""
        self.settings: Final = settings
        self.decisions: Final = decisions
        self.reply_filter: Final = decisions.reply_filter or None
        self.notices: Final = notices or None
        self.engine: Final = engine
        self.reporter: Final = reporter
        self.cache: Final = SessionCache(settings.params)
        self._wire: type[SecureWire] = RecordingWire if notices else SecureWire
        self._poller: Poller | None = None
        self._discard = discard_title(lmtp=settings.lmtp)
        # Servers of one kind answer EHLO alike, message after message.
        self.extensions: Callable[[ServerReply, tuple[str, ...]], Extensions]
        self.extensions = lru_cache(256)(parse_extensions)
        # Most messages go where others went before.
        self.route: Callable[[str, bool], Route]
        self.route = lru_cache(1024)(self._usual_route)

    def wire(self, family: int, *, watched: bool = False) -> SecureWire:
        """A socket with its source address, not yet connected. Raises OSError, SourceUnusable.

        watched: the session is to be told in the log.
        """
        settings = self.settings
        if self._poller is None:
            self._poller = Poller(asyncio.get_running_loop())
        window = 0 if family == socket.AF_UNIX else settings.params.tcp_windowsize
        kind = WatchedWire if watched else self._wire
        wire = kind(
            self._poller, family, settings.limits, min_rate=settings.min_rate, window=window
        )
        source = settings.sources.get(family)
        if source is not None:
            try:
                wire.bind(source)
            except OSError as error:
                LOG.warning(f"smtp_connect_addr: bind {source}: {error.strerror}")
                if settings.params.smtp_bind_address_enforce:
                    wire.close()
                    raise SourceUnusable from None
        return wire

    def _usual_route(self, text: str, keep: bool) -> Route:
        """The route to a destination for mail that asks for nothing. Raises BadDestination."""
        lmtp, port = self.settings.lmtp, self.decisions.default_port
        known = self.settings.params.known_tcp_ports
        destination = parse_destination(text, port, lmtp=lmtp, known=known)
        return Route(
            text=text if destination.path else text.lower(),
            destination=destination,
            keep=keep,
            loop_detect=not lmtp and destination.port == port,
        )

    async def discarded(self, address: str) -> tuple[str, ...]:
        """EHLO keywords to ignore from this server. Raises LookupFailure."""
        usual, lookups = self.settings.params.smtp_discard_ehlo_keywords, self.decisions.lookups
        if not lookups.has(self._discard):
            return usual
        found = await lookups.find(self._discard, address)
        return usual if found is None else tuple(re.split(r"[\s,]+", found))
