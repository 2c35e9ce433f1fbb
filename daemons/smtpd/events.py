"""The log lines of smtpd(8) that log analysers read."""

from functools import lru_cache
from typing import Final, Literal, NamedTuple

from libmail.log import LOG
from libmail.lookup.facts import Effect, Facts, Sasl
from libmail.lookup.xclient import UNKNOWN, Forwarded
from libmail.smtp.reply import Reply

__all__ = [
    "LINES",
    "ClientLine",
    "DisconnectLine",
    "EtrnRefused",
    "ImproperPipelining",
    "LimitExceeded",
    "LoginAborted",
    "LoginFailed",
    "SessionLine",
    "SessionLost",
    "say",
]


class DisconnectLine(NamedTuple):
    """A session is over. commands: (name, successes, total) of those that were used."""

    client: str
    commands: tuple[tuple[str, int, int], ...]

    def text(self) -> str:
        """`disconnect from host[1.2.3.4] ehlo=1 mail=0/1 commands=1/2`."""
        return f"disconnect from {self.client}{_counted(self.commands)}"


@lru_cache(64)  # most sessions have the same commands
def _counted(commands: tuple[tuple[str, int, int], ...]) -> str:
    text, successes, all_of_them = "", 0, 0
    for name, good, total in commands:
        text += f" {name}={good}" if good == total else f" {name}={good}/{total}"
        successes += good
        all_of_them += total
    if successes == all_of_them and all_of_them:
        return f"{text} commands={all_of_them}"
    return f"{text} commands={successes}/{all_of_them}"


class SessionLost(NamedTuple):
    """A session ended in another way than with QUIT.

    queue_id: of the message at hand, "" for none. octets: of content, where in content.
    """

    queue_id: str
    reason: Literal["lost connection", "timeout", "too many errors"]
    where: str
    client: str
    octets: int | None = None

    def text(self) -> str:
        """`ID: lost connection after DATA (512 bytes) from host[1.2.3.4]`."""
        octets = "" if self.octets is None else f" ({self.octets} bytes)"
        queue_id = self.queue_id or "NOQUEUE"
        return f"{queue_id}: {self.reason} after {self.where}{octets} from {self.client}"


class EtrnRefused(NamedTuple):
    """A client asked for the mail of a site whose mail cannot be asked for."""

    site: str
    client: str

    def text(self) -> str:
        """`reject: ETRN example.com... from host[1.2.3.4]`."""
        return f"reject: ETRN {self.site}... from {self.client}"


class LimitExceeded(NamedTuple):
    """A client does more than it may. what: of which it is too much. service: of master.cf."""

    what: str
    number: int
    client: str
    service: str

    def text(self) -> str:
        """`Connection rate limit exceeded: 51 from host[1.2.3.4] for service smtp`."""
        return f"{self.what}: {self.number} from {self.client} for service {self.service}"


class ImproperPipelining(NamedTuple):
    """The client sent more than it may. data: the beginning of it, escaped."""

    where: str
    client: str
    data: str

    def text(self) -> str:
        r"""`improper command pipelining after EHLO from host[1.2.3.4]: MAIL ...\r\n`."""
        return f"improper command pipelining after {self.where} from {self.client}: {self.data}"


class LoginFailed(NamedTuple):
    """A client could not log in. username: under which it tried, None where that is not known."""

    client: str
    method: str
    reason: str
    username: str | None

    def text(self) -> str:
        """`host[1.2.3.4]: SASL PLAIN authentication failed: reason, sasl_username=user`."""
        name = "(unavailable)" if self.username is None else self.username
        what = f"SASL {self.method} authentication failed"
        return f"{self.client}: {what}: {self.reason}, sasl_username={name}"


class LoginAborted(NamedTuple):
    """A client has given up to log in."""

    client: str
    method: str

    def text(self) -> str:
        """`host[1.2.3.4]: SASL PLAIN authentication aborted`."""
        return f"{self.client}: SASL {self.method} authentication aborted"


class ClientLine(NamedTuple):
    """A message begins. orig_queue_id, orig_client: where XFORWARD says that it comes from.

    sasl: as whom the client has logged in.
    """

    queue_id: str
    client: str
    orig_queue_id: str = ""
    orig_client: str = ""
    sasl: Sasl | None = None

    @classmethod
    def of(
        cls, queue_id: str, client: str, forwarded: Forwarded | None, sasl: Sasl | None
    ) -> "ClientLine":
        """Of a message that is, or is not, forwarded by the client."""
        if forwarded is None:
            return cls(queue_id, client, sasl=sasl)
        known, address = forwarded.name, forwarded.address
        if address not in ("", UNKNOWN):
            known += f"[{address}]"
        return cls(queue_id, client, forwarded.ident, known, sasl)

    def text(self) -> str:
        """`ID: client=host[1.2.3.4], sasl_method=PLAIN, sasl_username=user, orig_queue_id=ID`."""
        text = f"{self.queue_id}: client={self.client}"
        if self.sasl is not None:
            text += f", sasl_method={self.sasl.method}, sasl_username={self.sasl.username}"
            if self.sasl.sender:
                text += f", sasl_sender={self.sasl.sender}"
        if self.orig_queue_id:
            text += f", orig_queue_id={self.orig_queue_id}"
        return f"{text}, orig_client={self.orig_client}" if self.orig_client else text


class SessionLine(NamedTuple):
    """A restriction did something: action reject, warn, hold, ... sender, recipient: None: none.

    queue_id: "" before the first recipient. what: reply or explanation.
    """

    queue_id: str
    action: str
    where: str
    client: str
    what: str
    sender: str | None
    recipient: str | None
    protocol: str
    helo_name: str

    @classmethod
    def of(cls, facts: Facts, queue_id: str, client: str, action: str, what: str) -> "SessionLine":
        """What was done about the session that these are the facts of."""
        mail = facts.mail
        return cls(
            queue_id=queue_id,
            action=action,
            where=facts.where,
            client=client,
            what=what,
            sender=mail.sender,
            recipient=mail.recipient,
            protocol=facts.protocol,
            helo_name=facts.helo_name,
        )

    def text(self) -> str:
        """`NOQUEUE: reject: RCPT from h[1.2.3.4]: 554 5.7.1 ...; from=<a> to=<b> proto=ESMTP`."""
        about = f"{self.queue_id or 'NOQUEUE'}: {self.action}: {self.where} from {self.client}:"
        what = self.what.replace("\n", " ")
        mail = _mail(self.sender, self.recipient, self.protocol, self.helo_name)
        return f"{about} {what}; {mail}"


class FilterLine(NamedTuple):
    """The before-queue filter was given a message. action: accept, reject. what: its reply."""

    action: str
    where: str
    what: str
    sender: str | None
    recipient: str | None
    protocol: str
    helo_name: str

    @classmethod
    def of(cls, facts: Facts, reply: Reply, recipient: str | None) -> "FilterLine":
        """recipient: the first one."""
        return cls(
            action="accept" if reply.code < 300 else "reject",
            where=facts.where,
            what=reply.wire().decode("utf-8", "surrogateescape").rstrip().replace("\r\n", "??"),
            sender=facts.mail.sender,
            recipient=recipient,
            protocol=facts.protocol,
            helo_name=facts.helo_name,
        )

    def text(self) -> str:
        """`proxy-accept: END-OF-MESSAGE: 250 2.0.0 Ok; from=<a> to=<b> proto=ESMTP helo=<h>`."""
        mail = _mail(self.sender, self.recipient, self.protocol, self.helo_name)
        return f"proxy-{self.action}: {self.where}: {self.what}; {mail}"


def _mail(sender: str | None, recipient: str | None, protocol: str, helo_name: str) -> str:
    parts = []
    if sender is not None:
        parts.append(f"from=<{LOG.address(sender)}>")
    if recipient is not None:
        parts.append(f"to=<{LOG.address(recipient)}>")
    parts.append(f"proto={protocol}")
    if helo_name:
        parts.append(f"helo=<{helo_name}>")
    return " ".join(parts)


LINES: Final = frozenset({"warning", "mapping", "deprecated"})
"""The effects of a verdict that are log lines, and no more."""


def say(effect: Effect) -> None:
    """Log such an effect."""
    if effect.action == "mapping":
        LOG.info(f"mapping DSN status {effect.text}")
    elif effect.action == "warning":
        LOG.warning(effect.text)
    else:
        _once(effect.text)


@lru_cache(64)
def _once(text: str) -> None:
    LOG.warning(text)
