"""Composing delivery status notifications (RFC 3464, RFC 6533), without I/O.

A notification is a multipart/report: text for people, fields for programs, and the message or its
header. The original's bytes are spliced in unchanged.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from libmail.ipc.messages import QueueId, Target
from libmail.log import printable
from libmail.message.dates import rfc5322_date
from libmail.smtp.address import XtextError, quote_local, xtext_decode

__all__ = ["Notice", "Original", "compose"]

_WIDTH: Final = 79
# EmbeddedUnicodeChar = "\x{" HEXPOINT "}"       RFC 6533 §3
_EMBEDDED: Final = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")


@dataclass(frozen=True, slots=True)
class Original:
    """The message that a notification is about. sender: internal form; times of the epoch."""

    queue_id: QueueId
    sender: str
    arrival: float
    envid: str
    utf8: bool
    eightbit: bool
    header: bytes
    body: bytes | None  # None: only the header is returned
    tls_optional: bool = False  # TLS-Required: no
    requires_tls: bool = False  # REQUIRETLS, for the notification, too


@dataclass(frozen=True, slots=True)
class Notice:
    """One notification.

    sender: value of From:. recipient: internal form. text: already expanded, "" for copies to the
    postmaster. eightbit: parts are said to be 8bit. action: overrides that of the targets, or "".
    retry_until: for delays, 0 otherwise.
    returned: Content-Description of the third part. via: name the relay in the text (reports that
    were asked for). thread: value of References:, "" for none. origin: the domain of addresses
    without one.
    """

    sender: str
    subject: str
    recipient: str
    text: str
    charset: str
    eightbit: bool
    automatic: str
    action: str
    retry_until: float
    returned: str
    via: bool
    thread: str
    now: float
    host: str
    mail_name: str
    queue_id: QueueId
    origin: str


def _wrap(text: str) -> str:
    """Folded at white space, continuation lines indented by four. Octets count."""
    lines = textwrap.wrap(
        printable(text).encode().decode("latin-1"),
        _WIDTH,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "".join(f"{line}\n" for line in lines).encode("latin-1").decode()


def _field(text: str) -> str:
    """One line of fields for programs: what comes from elsewhere cannot make it two."""
    return f"{printable(text)}\n"


def _decoded(orcpt: str) -> str:
    """The client's ORCPT, "type;xtext", without its encoding (RFC 3461 §4.2, RFC 6533 §3)."""
    kind, _, text = orcpt.partition(";")
    if kind.lower() == "utf-8":
        return f"{kind};{_EMBEDDED.sub(_embedded, text)}"
    try:
        return f"{kind};{xtext_decode(text)}"
    except XtextError:
        return orcpt


def _embedded(match: "re.Match[str]") -> str:
    code = int(match[1], 16)
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else match[0]


def _reason(notice: Notice, target: Target) -> str:
    named = notice.via and target.relay not in ("", "none")
    return f"delivery via {target.relay}: {target.reason}" if named else target.reason


def _for_people(notice: Notice, targets: Sequence[Target]) -> str:
    parts = [notice.text]
    for target in targets:
        orig = ""
        if target.orig_rcpt and target.orig_rcpt != target.address:
            orig = f" (expanded from <{quote_local(target.orig_rcpt)}>)"
        reason = _reason(notice, target)
        parts.append("\n" + _wrap(f"<{quote_local(target.address)}>{orig}: {reason}"))
    return "".join(parts)


def _recipient_fields(notice: Notice, original: Original, target: Target) -> str:
    kind = "utf-8" if original.utf8 and not target.address.isascii() else "rfc822"
    lines = [_field(f"Final-Recipient: {kind}; {quote_local(target.address)}")]
    if target.dsn_orcpt:
        lines.append(_field(f"Original-Recipient: {_decoded(target.dsn_orcpt)}"))
    elif target.orig_rcpt:
        orig = quote_local(target.orig_rcpt)
        orig = orig if "@" in orig else f"{orig}@{notice.origin}"
        lines.append(_field(f"Original-Recipient: rfc822;{orig}"))
    lines.append(_field(f"Action: {notice.action or target.action}"))
    lines.append(_field(f"Status: {target.status}"))
    if target.mta:
        lines.append(_field(f"Remote-MTA: dns; {target.mta}"))
    if target.diag_type:
        lines.append(_wrap(f"Diagnostic-Code: {target.diag_type}; {target.diag_text}"))
    else:
        lines.append(_wrap(f"Diagnostic-Code: X-{notice.mail_name}; {_reason(notice, target)}"))
    if notice.retry_until:
        lines.append(f"Will-Retry-Until: {rfc5322_date(notice.retry_until)}\n")
    return "".join(lines)


def _sender(notice: Notice, original: Original) -> str:
    """In external form; that of a notification is shown as its From: address."""
    return quote_local(original.sender or f"MAILER-DAEMON@{notice.host}")


def _message_fields(notice: Notice, original: Original) -> str:
    kind = "utf-8" if original.utf8 and not original.sender.isascii() else "rfc822"
    sender = _sender(notice, original)
    envid = _field(f"Original-Envelope-Id: {original.envid}") if original.envid else ""
    name = notice.mail_name
    return (
        f"Reporting-MTA: dns; {notice.host}\n{envid}"
        f"X-{name}-Queue-ID: {original.queue_id}\n"
        + _field(f"X-{name}-Sender: {kind}; {sender}")
        + f"Arrival-Date: {rfc5322_date(original.arrival)}\n"
    )


def _header(notice: Notice, boundary: str, *, tls_optional: bool) -> str:
    thread = f"References: {notice.thread}\nIn-Reply-To: {notice.thread}\n" if notice.thread else ""
    optional = "TLS-Required: no\n" if tls_optional else ""
    return (
        f"Received: by {notice.host} ({notice.mail_name})\n"
        f"\tid {notice.queue_id}; {rfc5322_date(notice.now)}\n"
        f"Date: {rfc5322_date(notice.now)}\n"
        f"From: {notice.sender}\n"
        f"Subject: {notice.subject}\n"
        f"To: {quote_local(notice.recipient)}\n"
        f"{thread}"
        f"Auto-Submitted: {notice.automatic}\n"
        f"{optional}"
        "MIME-Version: 1.0\n"
        "Content-Type: multipart/report; report-type=delivery-status;\n"
        f'\tboundary="{boundary}"\n'
        f"{_encoding(notice.eightbit)}"
    )


def _encoding(eightbit: bool) -> str:
    return "Content-Transfer-Encoding: 8bit\n" if eightbit else ""


def _part(boundary: str, description: str, kind: str, *, eightbit: bool) -> str:
    encoding = _encoding(eightbit)
    return f"--{boundary}\nContent-Description: {description}\nContent-Type: {kind}\n{encoding}\n"


def compose(notice: Notice, original: Original, targets: Sequence[Target]) -> bytes:
    """The whole notification in wire form (CRLF)."""
    boundary = f"{original.queue_id}.{int(notice.now)}/{notice.host}"
    utf8 = original.utf8
    status = "message/global-delivery-status" if utf8 else "message/delivery-status"
    if original.body is None:
        kind = "message/global-headers" if utf8 else "text/rfc822-headers"
        description = f"{notice.returned} Headers".lstrip()
    else:
        kind = "message/global" if utf8 else "message/rfc822"
        description = notice.returned
    fields = "\n".join(
        (
            _message_fields(notice, original),
            *(_recipient_fields(notice, original, target) for target in targets),
        )
    )
    eightbit = notice.eightbit
    text = (
        _header(notice, boundary, tls_optional=original.tls_optional)
        + "\nThis is a MIME-encapsulated message.\n\n"
        + _part(
            boundary, "Notification", f"text/plain; charset={notice.charset}", eightbit=eightbit
        )
        + _for_people(notice, targets)
        + "\n"
        + _part(boundary, "Delivery report", status, eightbit=utf8)
        + fields
        + "\n"
        + _part(boundary, description, kind, eightbit=eightbit)
        + _field(f"Return-Path: <{_sender(notice, original)}>")
    )
    head = text.replace("\n", "\r\n").encode("utf-8", "surrogateescape")
    body = b"\r\n" if original.body is None else original.body + b"\r\n"
    return head + original.header + body + f"--{boundary}--\r\n".encode()
