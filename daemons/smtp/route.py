"""A destination of a request, and how its servers are to be spoken with."""

from typing import NamedTuple

from daemons.smtp.requiretls import Demand
from daemons.smtp.session import Session, SessionKey
from daemons.smtp.tls_policy import ServerTlsPolicy, TlsKey
from libmail.lookup.next_hop import Destination
from libmail.lookup.servers import Server

__all__ = ["Route"]


class Route(NamedTuple):
    """A destination, and how its servers are to be spoken with.

    text: as the next hop has it, in small letters unless it is a path. keep: sessions, for the next
    message. loop_detect: a server may turn out to be this system. smtputf8: the message needs that.
    login: see SessionKey. demand: of REQUIRETLS.
    """

    text: str
    destination: Destination
    keep: bool
    loop_detect: bool
    smtputf8: bool = False
    login: tuple[str, ...] = ()
    demand: Demand = Demand.DISABLE

    @property
    def name(self) -> str:
        """The destination as in the next hop, or the path of a socket."""
        return self.destination.path or self.text.removeprefix("inet:")

    def key(self, tls: TlsKey) -> SessionKey:
        """The key of sessions with any server of the destination."""
        return SessionKey(self.text, self.destination.port, tls, self.smtputf8, self.login)

    def server_key(self, host: str, address: str, port: int, tls: TlsKey) -> SessionKey:
        """The key of sessions with one server."""
        login = (*self.login, host, self.text) if self.login else ()
        return SessionKey(address, port, tls, self.smtputf8, login)

    def port(self, server: Server) -> int:
        """That of its SRV record, or of the destination."""
        return server.port or self.destination.port

    def keys(self, session: Session, tls: ServerTlsPolicy) -> tuple[SessionKey, ...]:
        """The keys under which a session is cached."""
        key = self.key(tls.key)
        if not session.port:
            return (key,)
        return key, self.server_key(session.host, session.address, session.port, tls.key)
