"""Milters in an SMTP session: events for commands that restrictions accept, and their decisions.

The chain of a session is opened when the client is greeted, and closed with it. For the content of
a message the connections go to cleanup(8), see `states`; smtpd(8) keeps them for what follows.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from daemons.smtpd.answer import CLOSING, Answer, answer
from libmail.clients.milter import HandedOver, MilterLink
from libmail.clients.milters import MilterChain, Milters
from libmail.log import LOG
from libmail.lookup.client_rules import milters_for
from libmail.lookup.facts import Client, Effect, Facts, NameStatus
from libmail.milter.conversation import PASS, Act, Decision
from libmail.milter.protocol import Command, connection, strings
from libmail.milter.settings import MilterSettings
from libmail.smtp.address import quote_local
from libmail.smtp.reply import Reply

if TYPE_CHECKING:
    from daemons.smtpd.session import Session

__all__ = ["OpenedMilters", "SessionMilters", "open_chain"]

_RESOLVES: Final = {
    NameStatus.OK: "OK",
    NameStatus.NOT_FOUND: "FAIL",
    NameStatus.FORGED: "FORGED",
    NameStatus.TRY_AGAIN: "TEMP",
}
# Attributes of enumerations are slow.
_CONNECT: Final = Command.CONNECT
_HELO: Final = Command.HELO
_MAIL: Final = Command.MAIL
_RCPT: Final = Command.RCPT
_DATA: Final = Command.DATA
_UNKNOWN: Final = Command.UNKNOWN
_TEMPFAIL: Final = Decision(
    Act.REFUSE, Reply(451, "4.7.1", "Service unavailable - try again later")
)


class OpenedMilters:
    """What is read before the jail. usual: smtpd_milters, as configured.

    Raises ValueError for what is no list of Milters.
    """

    def __init__(self, milters: Milters, usual: tuple[str, ...]) -> None:
        self.milters = milters
        self.usual = usual
        self._parsed = milters.parse(usual)

    def settings(self, elements: tuple[str, ...]) -> list[MilterSettings]:
        """The settings of the Milters for a client. Raises ValueError."""
        return self._parsed if elements == self.usual else self.milters.parse(elements)


async def open_chain(session: "Session", opened: OpenedMilters) -> "SessionMilters | None":
    """Connect to the Milters of the session's client; None if there are none."""
    if session.milters is not None:
        session.milters.close()
    address = session.facts.client.address
    decided = await milters_for(session.lookups, address, opened.usual)
    warnings, wanted = list(decided.warnings), None
    if decided.value is not None:
        try:
            wanted = opened.settings(decided.value)
        except ValueError as error:
            warnings.append(f"smtpd_milter_maps: {error}")
    for warning in warnings:
        LOG.warning(warning)
    if wanted is None:
        return SessionMilters(session, MilterChain(opened.milters, ()), _TEMPFAIL)
    if not wanted:
        return None
    links = [MilterLink(settings) for settings in wanted]
    for link in links:
        await link.open(opened.milters.dial(link.settings))
    return SessionMilters(session, MilterChain(opened.milters, links))


class SessionMilters:
    """The Milters of one session. Each event returns the answer of a rejection, or None."""

    __slots__ = ("_always", "_begun", "_chain", "_handed", "_session", "_values")

    def __init__(
        self, session: "Session", chain: MilterChain, always: Decision | None = None
    ) -> None:
        """always: the decision about every event, where Milters are not asked."""
        self._session = session
        self._chain = chain
        self._always = always
        self._handed = False
        self._begun = False  # there is a message at hand
        self._values: dict[str, str] = {}

    # events

    async def greeting(self) -> Reply | None:
        """Report the connection. Returns the reply instead of the banner, if any."""
        client = self._session.facts.client
        refused = await self._tell(_CONNECT, connection(client.name, client.address, client.port))
        if refused is None:
            return None
        host = self._session.server.params.myhostname
        if refused.reply.code in CLOSING:
            return Reply(421, "", f"{host} Service unavailable - try again later")
        if refused.reply.code >= 500:
            return Reply(554, "", f"{host} ESMTP not accepting connections")
        return None  # it is told at MAIL

    def helo(self) -> Awaitable[Answer | None]:
        """Report HELO or EHLO."""
        return self._tell(_HELO, strings(self._session.facts.helo_name))

    async def mail(self, parameters: str) -> Answer | None:
        """Report MAIL. parameters: of the command, as the client gave them."""
        self._begun = True
        sender = self._session.facts.mail.sender or ""
        self._values = await self._resolved("mail", "", sender)
        return await self._tell(_MAIL, _path(sender, parameters))

    async def rcpt(self, parameters: str) -> Answer | None:
        """Report a recipient that the restrictions accepted."""
        mail = self._session.facts.mail
        recipient = mail.recipient or ""
        self._values |= await self._resolved("rcpt", mail.sender or "", recipient)
        return await self._tell(_RCPT, _path(recipient, parameters))

    def data(self) -> Awaitable[Answer | None]:
        """Report DATA, or the first BDAT."""
        return self._tell(_DATA)

    def unknown(self, line: str) -> Awaitable[Answer | None]:
        """Report an unknown command; without its arguments, as the original does."""
        return self._tell(_UNKNOWN, strings(line.partition(" ")[0]))

    async def _tell(self, command: Command, data: bytes = b"") -> Answer | None:
        decision = self._always
        if decision is None:
            decision = await self._chain.event(command, data, self._macro)
        return None if decision is PASS else self._carry_out(decision)

    def _carry_out(self, decision: Decision) -> Answer | None:
        session = self._session
        match decision.act:
            case Act.GO_ON:
                return None
            case Act.HOLD:
                self._have(Effect("hold", "milter triggers HOLD action"))
                return None
            case Act.DISCARD:
                self._have(Effect("discard", "milter triggers DISCARD action"))
                return None
        if decision.reply is None:
            raise AssertionError(decision)
        wire = decision.reply.wire().decode("utf-8", "surrogateescape")
        session.log("milter-reject", wire.removesuffix("\r\n").replace("\r\n", "??"))
        return answer(decision.reply)

    def _have(self, effect: Effect) -> None:
        self._session.log(f"milter-{effect.action}", effect.text)
        self._session.extras = self._session.extras.and_also(effect)

    # macros

    def _macro(self, name: str) -> str | None:
        value_of = _VALUES.get(name)
        return self._values.get(name) if value_of is None else value_of(self._session.facts) or None

    async def _resolved(self, role: str, sender: str, address: str) -> dict[str, str]:
        """{mail_addr}, {mail_host}, {mail_mailer}, or those of rcpt."""
        found = await self._session.server.rewrite.resolve_completed(sender, address)
        return {
            f"{role}_addr": found.recipient if address else "",
            f"{role}_host": found.nexthop,
            f"{role}_mailer": found.transport,
        }

    # the message

    def states(self) -> list[HandedOver]:
        """The connections to hand over to cleanup(8), before the content."""
        self._handed = True
        params = self._chain.milters.params
        macros = params.milter_end_of_header_macros, params.milter_end_of_data_macros
        return [link.hand_over(*macros) for link in self._chain.links]

    def message_ended(self, *, complete: bool) -> None:
        """The transaction is over. complete: cleanup(8) has reported its end."""
        handed, begun = self._handed, self._begun
        if not (handed or begun):
            return
        self._handed = self._begun = False
        self._values = {}
        for link in self._chain.links:
            if handed and not complete:
                link.lost()
            elif begun:
                link.abort(at_once=not handed)  # the Milter knows that a message is complete

    def close(self) -> None:
        """The session is over."""
        for link in self._chain.links:
            link.abort()
        self._chain.close()


def _path(address: str, parameters: str) -> bytes:
    return strings(f"<{quote_local(address)}>", *parameters.split())


def _client(client: Client) -> str:
    forged = "" if client.name.lower() == client.reverse_name.lower() else " (may be forged)"
    return f"{client.reverse_name} [{client.address}]{forged}"


_VALUES: Final[Mapping[str, Callable[[Facts], str]]] = {
    "_": lambda facts: _client(facts.client),
    "i": lambda facts: facts.mail.queue_id,
    "client_connections": lambda facts: str(facts.client.connections),
    "client_addr": lambda facts: facts.client.address,
    "client_name": lambda facts: facts.client.name,
    "client_port": lambda facts: facts.client.port,
    "client_ptr": lambda facts: facts.client.reverse_name,
    "client_resolve": lambda facts: _RESOLVES[facts.client.name_status],
    "daemon_addr": lambda facts: facts.client.server_address,
    "daemon_port": lambda facts: facts.client.server_port,
    "if_addr": lambda facts: facts.client.server_address,
    "auth_authen": lambda facts: facts.sasl.username if facts.sasl else "",
    "auth_author": lambda facts: facts.sasl.sender if facts.sasl else "",
    "auth_type": lambda facts: facts.sasl.method if facts.sasl else "",
    "tls_version": lambda facts: facts.tls.agreed.protocol if facts.tls else "",
    "cipher": lambda facts: facts.tls.agreed.cipher if facts.tls else "",
    "cipher_bits": lambda facts: str(facts.tls.agreed.bits) if facts.tls else "",
    "cert_subject": lambda facts: facts.tls.subject if facts.tls else "",
    "cert_issuer": lambda facts: facts.tls.issuer if facts.tls else "",
}
"""Macros that client and session tell."""
