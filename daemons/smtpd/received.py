"""The Received: header that smtpd(8) puts in front of a message, RFC 5321 §4.4."""

from libmail.quoting import header_address

__all__ = ["literal", "received"]


def literal(address: str) -> str:
    """An address as it stands in an address literal, without brackets."""
    return f"IPv6:{address}" if ":" in address else address


def received(
    *,
    helo_name: str,
    client_name: str,
    client_address: str,
    hostname: str,
    mail_name: str,
    protocol: str,
    queue_id: str,
    recipient: str | None,
    date: str,
    hide_client: bool,
) -> bytes:
    """The header in wire form. recipient: the only one, internal form; None: several."""
    lines = []
    if hide_client:
        lines.append(f"Received: by {hostname} ({mail_name}) with {protocol} id {queue_id}")
    else:
        helo = helo_name or client_name
        lines.append(f"Received: from {helo} ({client_name} [{literal(client_address)}])")
        lines.append(f"\tby {hostname} ({mail_name}) with {protocol} id {queue_id}")
    return _finished(lines, recipient, date)


def _finished(lines: list[str], recipient: str | None, date: str) -> bytes:
    if recipient:
        lines.append(f"\tfor <{header_address(recipient)}>; {date}")
    else:
        lines[-1] += ";"
        lines.append(f"\t{date}")
    return "".join([f"{line}\r\n" for line in lines]).encode("utf-8", "surrogateescape")
