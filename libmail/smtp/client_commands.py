"""The commands of a client: MAIL and RCPT with the parameters that the server understands.

Addresses come in internal form; they go out quoted, RFC 5321 §4.1.2. Anything that would end the
command early is refused: an address that holds a line end is no address.
"""

import re
from typing import Final, NamedTuple

from libmail.ipc.messages import DsnNotify, Recipient
from libmail.smtp.address import quote_local, xtext_encode
from libmail.smtp.client import Extensions

__all__ = ["Sender", "UnsafeAddress", "mail_command", "notify_text", "rcpt_command"]

_UNSAFE: Final = re.compile(r"[\x00\r\n]")
_NOT_A_VALUE: Final = re.compile(r"[\x00-\x20\x7f]")


class UnsafeAddress(ValueError):
    """The address cannot be sent: it holds a line end or NUL."""


class Sender(NamedTuple):
    """What MAIL says. address: internal form. body: "", "7BIT", "8BITMIME". ret: "FULL", "HDRS".

    size: None while it is not known what the server will get. auth: AUTH=<>, RFC 4954 §5: nobody
    vouches for the sender. requiretls: RFC 8689, within TLS.
    """

    address: str
    size: int | None = None
    body: str = ""
    smtputf8: bool = False
    envid: str = ""
    ret: str = ""
    auth: bool = False
    requiretls: bool = False


def _path(address: str, *, quote: bool) -> str:
    if _UNSAFE.search(address):
        raise UnsafeAddress(address)
    return quote_local(address) if quote else address


def mail_command(sender: Sender, offered: Extensions, *, quote: bool = True) -> bytes:
    """MAIL with its CRLF. quote: `smtp_quote_rfc821_envelope`. Raises UnsafeAddress."""
    text = f"MAIL FROM:<{_path(sender.address, quote=quote)}>"
    if offered.size_offered and sender.size is not None:
        text += f" SIZE={sender.size}"
    if offered.eightbit and sender.body:
        text += f" BODY={sender.body}"
    if offered.dsn:
        if sender.envid:
            text += f" ENVID={xtext_encode(sender.envid)}"
        if sender.ret:
            text += f" RET={sender.ret}"
    if offered.smtputf8 and sender.smtputf8:
        text += " SMTPUTF8"
    if sender.auth:
        text += " AUTH=<>"
    if sender.requiretls:
        text += " REQUIRETLS"
    return text.encode("utf-8", "surrogateescape") + b"\r\n"


def notify_text(notify: int) -> str:
    """The value of NOTIFY, RFC 3461 §4.1."""
    if notify & DsnNotify.NEVER:
        return "NEVER"
    words = [flag.name for flag in (DsnNotify.SUCCESS, DsnNotify.FAILURE, DsnNotify.DELAY)
             if notify & flag and flag.name]  # fmt: skip
    return ",".join(words)


def rcpt_command(
    address: str,
    recipient: Recipient,
    offered: Extensions,
    *,
    smtputf8: bool = False,
    quote: bool = True,
) -> bytes:
    """RCPT with its CRLF. address: of the recipient, as the server is told. Raises UnsafeAddress.

    Without dsn_orcpt, the original recipient is passed on as it was when the mail came in.
    """
    text = f"RCPT TO:<{_path(address, quote=quote)}>"
    if offered.dsn:
        orig_rcpt, orcpt, notify = recipient.orig_rcpt, recipient.dsn_orcpt, recipient.notify
        if orcpt:
            text += f" ORCPT={_NOT_A_VALUE.sub('?', orcpt)}"
        elif orig_rcpt:
            kind = "utf-8" if smtputf8 and not orig_rcpt.isascii() else "rfc822"
            text += f" ORCPT={kind};{xtext_encode(quote_local(orig_rcpt))}"
        if notify:
            text += f" NOTIFY={notify_text(notify)}"
    return text.encode("utf-8", "surrogateescape") + b"\r\n"
