"""Facts: what restrictions know about a session. Verdict: what they decide."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Literal, NamedTuple, TypeAlias

from libmail.smtp.reply import Reply
from libmail.tls.facts import Agreed, Trust

__all__ = [
    "CCERT",
    "CLIENT",
    "DATA",
    "DUNNO",
    "END_OF_DATA",
    "END_OF_MESSAGE",
    "ETRN",
    "HELO",
    "PERMIT",
    "RECIPIENT",
    "REVERSE_CLIENT",
    "SASL",
    "SENDER",
    "Answer",
    "Client",
    "Effect",
    "ErrorClass",
    "Facts",
    "Mail",
    "NameStatus",
    "Outcome",
    "Sasl",
    "Subject",
    "Tls",
    "Verdict",
    "named",
]

END_OF_MESSAGE: Final = "END-OF-MESSAGE"
"""Where a session is behind the content of a message, as the log names it."""


class NameStatus(Enum):
    """How the lookup of a client's name ended."""

    OK = auto()
    NOT_FOUND = auto()
    FORGED = auto()  # the name has addresses, but not this one
    TRY_AGAIN = auto()


class Client(NamedTuple):
    """Who is connected to whom, as text: of the socket, or what PROXY, XCLIENT, postscreen say.

    name: verified, "unknown" without. reverse_name: what the address leads to, not verified.
    connections: that it has to this service; 0 where they are not counted.
    """

    address: str = ""
    port: str = ""
    name: str = "unknown"
    reverse_name: str = "unknown"
    name_status: NameStatus = NameStatus.OK
    reverse_status: NameStatus = NameStatus.OK
    server_address: str = ""
    server_port: str = ""
    connections: int = 0

    @property
    def shown(self) -> str:
        """As replies and log lines name it: `name[address]`."""
        return f"{self.name}[{self.address}]"


@dataclass(frozen=True, slots=True)
class Tls:
    """The result of the TLS handshake with the client.

    subject, issuer: common names of its certificate. fingerprint: of the certificate, key: of its
    public key; "" where it has shown none. sni: the name that the client called us by.
    """

    agreed: Agreed
    trust: Trust
    subject: str = ""
    issuer: str = ""
    fingerprint: str = ""
    key: str = ""
    sni: str = ""


@dataclass(frozen=True, slots=True)
class Sasl:
    """The login of an authenticated client. sender: the AUTH parameter of MAIL."""

    method: str
    username: str
    sender: str = ""


class Mail:
    """The transaction at hand. Addresses are in internal form, None: not given yet.

    An instance holds what is other than here: one is made for each message, and for each EHLO.

    size: octets, as MAIL announced; when the content is complete, as they are. queue_id: "" before
    there is one. instance: the same for all that is asked about one message, "" until MAIL is over.
    """

    sender: str | None = None
    recipient: str | None = None
    recipient_count: int = 0
    size: int = 0
    queue_id: str = ""
    instance: str = ""


@dataclass(slots=True)
class Facts:
    """What is known of a session; attributes of policies and log lines are views of it.

    tls, sasl: None for none. where: the command at hand, as the log names it. improper_pipelining:
    the client has sent more than it may at some point. deferrals: what a stage that was decided
    early (CLIENT, HELO or SENDER, without smtpd_delay_reject) wants a permit to become later.
    """

    client: Client = field(default_factory=Client)
    tls: Tls | None = None
    sasl: Sasl | None = None
    mail: Mail = field(default_factory=Mail)
    helo_name: str = ""
    protocol: str = "SMTP"
    where: str = "CONNECT"
    improper_pipelining: bool = False
    deferrals: "dict[Subject, Reply]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a restriction is about: the words for it. `named` takes it from the facts."""

    words: str


CLIENT: Final = Subject("Client host")
REVERSE_CLIENT: Final = Subject("Unverified Client host")
HELO: Final = Subject("Helo command")
SENDER: Final = Subject("Sender address")
SASL: Final = Subject("SASL login name")
CCERT: Final = Subject("Client certificate")
RECIPIENT: Final = Subject("Recipient address")
ETRN: Final = Subject("Etrn command")
DATA: Final = Subject("Data command")
END_OF_DATA: Final = Subject("End-of-data")


def named(facts: Facts, subject: Subject) -> str:
    """The host name or address that a restriction about this subject looks at; "" for none."""
    if subject is CLIENT:
        return facts.client.name
    if subject is REVERSE_CLIENT:
        return facts.client.reverse_name
    if subject is HELO:
        return facts.helo_name
    if subject is SASL:
        return "" if facts.sasl is None else facts.sasl.username
    if subject is CCERT:
        return "" if facts.tls is None else facts.tls.subject
    return (facts.mail.sender if subject is SENDER else facts.mail.recipient) or ""


class Answer(Enum):
    """A restriction that does not refuse."""

    PERMIT = auto()  # ends the list
    DUNNO = auto()  # the next one decides


PERMIT: Final = Answer.PERMIT
DUNNO: Final = Answer.DUNNO
Outcome: TypeAlias = Answer | Reply
ErrorClass: TypeAlias = Literal["bounce", "data", "policy", "software"]


@dataclass(frozen=True, slots=True)
class Effect:
    """An action of a restriction besides its reply, to be logged or carried out.

    action: "reject", "warn", "info", "hold", "discard", "filter", "redirect", "bcc", "prepend",
    "permit", "reject_warning"; "warning", "mapping" (of a status) and "deprecated" are log lines
    that are not about the message.
    text: for the log, "" for nothing. argument: of the action.
    """

    action: str
    text: str = ""
    argument: str = ""


@dataclass(slots=True)
class Verdict:
    """What was decided: reply (None: go on), what else to do or to log, and what decided.

    errors: the notify_classes of what was refused, or would have been without warn_if_reject.
    """

    reply: Reply | None = None
    effects: list[Effect] = field(default_factory=list)
    decided_by: str = ""
    errors: tuple[ErrorClass, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Warnings for the log."""
        return [e.text for e in self.effects if e.action in ("warning", "deprecated")]
