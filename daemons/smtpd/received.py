"""The Received: header that smtpd(8) puts in front of a message, RFC 5321 §4.4."""

from libmail.lookup.facts import Facts
from libmail.text.quoting import header_address

__all__ = ["literal", "received"]


def literal(address: str) -> str:
    """An address as it stands in an address literal, without brackets."""
    return f"IPv6:{address}" if ":" in address else address


def received(
    facts: Facts,
    *,
    hostname: str,
    mail_name: str,
    smtputf8: bool,
    queue_id: str,
    recipient: str | None,
    date: str,
    hide_client: bool,
) -> bytes:
    """The header in wire form. recipient: the only one, internal form; None: several."""
    client = facts.client
    protocol = "UTF8SMTP" if smtputf8 else facts.protocol
    lines = []
    if hide_client:
        lines.append(f"Received: by {hostname} ({mail_name}) with {protocol} id {queue_id}")
    else:
        helo = facts.helo_name or client.name
        lines.append(f"Received: from {helo} ({client.name} [{literal(client.address)}])")
        lines.append(f"\tby {hostname} ({mail_name}) with {protocol} id {queue_id}")
    return _finished(lines, recipient, date)


def _finished(lines: list[str], recipient: str | None, date: str) -> bytes:
    if recipient:
        lines.append(f"\tfor <{header_address(recipient)}>; {date}")
    else:
        lines[-1] += ";"
        lines.append(f"\t{date}")
    return "".join([f"{line}\r\n" for line in lines]).encode("utf-8", "surrogateescape")
