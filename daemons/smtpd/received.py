"""The Received: header that smtpd(8) puts in front of a message, RFC 5321 §4.4."""

from typing import NamedTuple

from daemons.smtpd.tls_setup import TlsSetup
from libmail.lookup.facts import Facts, Tls
from libmail.net.ends import address_literal
from libmail.text.printable import printable_octets
from libmail.text.quoting import header_address
from libmail.tls.facts import client_comment

__all__ = ["Station", "received"]


class Station(NamedTuple):
    """What the header says of us, and how much it tells of clients.

    name_sender: as whom a client has logged in. tls: says whether what was agreed upon is told.
    """

    hostname: str
    mail_name: str
    hide_client: bool
    name_sender: bool
    tls: TlsSetup


def received(
    station: Station,
    facts: Facts,
    *,
    smtputf8: bool,
    queue_id: str,
    recipient: str | None,
    date: str,
) -> bytes:
    """The header in wire form. queue_id: "" for a message that has none. recipient: the only one,
    internal form; None: several.
    """
    client, (hostname, mail_name, hide_client, name_sender, tls) = facts.client, station
    ident = f" id {queue_id}" if queue_id else ""
    protocol = _protocol(facts, smtputf8=smtputf8)
    lines = []
    if hide_client:
        lines.append(f"Received: by {hostname} ({mail_name}) with {protocol}{ident}")
    else:
        helo = facts.helo_name or client.name
        lines.append(f"Received: from {helo} ({client.name} [{address_literal(client.address)}])")
        if facts.tls is not None and tls.told:
            lines += _encryption(facts.tls, asked=tls.asks)
        if name_sender and facts.sasl is not None:
            lines.append(f"\t(Authenticated sender: {_comment(facts.sasl.username)})")
        lines.append(f"\tby {hostname} ({mail_name}) with {protocol}{ident}")
    return _finished(lines, recipient, date)


def _protocol(facts: Facts, *, smtputf8: bool) -> str:
    """RFC 3848, RFC 6531 §4.3."""
    protocol = "UTF8SMTP" if smtputf8 else facts.protocol
    if protocol == "SMTP":
        return protocol
    return f"{protocol}{'S' if facts.tls else ''}{'A' if facts.sasl else ''}"


def _encryption(tls: Tls, *, asked: bool) -> list[str]:
    """asked: clients are asked for a certificate."""
    comment = client_comment(tls.trust, tls.subject, tls.issuer, asked=asked)
    return ["\t" + tls.agreed.received().replace("\n", "\r\n"), "\t" + comment]


def _comment(text: str) -> str:
    """Untrusted text for a comment, in which it must not close the comment; as ASCII."""
    found, depth = [], 0
    for char in printable_octets(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        found.append("?" if char == "\\" or depth < 0 else char)
        depth = max(depth, 0)
    return "".join(found) + ")" * depth


def _finished(lines: list[str], recipient: str | None, date: str) -> bytes:
    if recipient:
        lines.append(f"\tfor <{header_address(recipient)}>; {date}")
    else:
        lines[-1] += ";"
        lines.append(f"\t{date}")
    return "".join([f"{line}\r\n" for line in lines]).encode("utf-8", "surrogateescape")
