"""Limits of an envelope that cleanup(8) accepts; every later record relies on them.

Clients check the same earlier, with better error messages; this check protects the queue.
"""

from operator import itemgetter
from typing import Final, get_type_hints

from daemons.cleanup.status import Refused, bad_sender
from libmail.ipc.messages import CleanupStatus, Envelope, Recipient
from libmail.smtp.address import MAX_ADDRESS, address_fault

__all__ = ["envelope_fault", "recipient_fault"]

_MAX_ORCPT: Final = 4 * MAX_ADDRESS  # octets, as each of an address may become three in xtext
_MAX_ATTRIBUTES: Final = 1 << 16  # octets of everything but recipients, all together
_USUAL: Final = 1024  # characters up to which the octets need not be counted
_MAX_NOTIFY: Final = 15
_LATEST: Final = 2.0**36  # seconds since the epoch, the year 4147
_TEXTS: Final = itemgetter(
    *(at for at, hint in enumerate(get_type_hints(Envelope).values()) if hint is str)
)


def recipient_fault(recipient: Recipient) -> bool:
    """Whether a recipient cannot be stored in a queue file."""
    address, orig_rcpt, dsn_orcpt, notify, _ = recipient
    if address_fault(address) or (orig_rcpt != address and address_fault(orig_rcpt)):
        return True
    if not 0 <= notify <= _MAX_NOTIFY:
        return True
    octets = dsn_orcpt if dsn_orcpt.isascii() else dsn_orcpt.encode("utf-8", "surrogateescape")
    return len(octets) > _MAX_ORCPT or "\n" in dsn_orcpt


def envelope_fault(envelope: Envelope) -> Refused | None:
    """Why the message is refused for its envelope."""
    if address_fault(envelope.sender):
        return bad_sender()
    if envelope.redirect and address_fault(envelope.redirect):
        return Refused(CleanupStatus.DEFER, "4.3.5", "Server configuration error")
    if not (0 <= envelope.arrival < _LATEST and -_LATEST < envelope.warn_time < _LATEST):
        return Refused(CleanupStatus.BAD, "4.3.0", "internal protocol error")
    text = "".join(_TEXTS(envelope))
    if len(text) > _USUAL and len(text.encode("utf-8", "surrogateescape")) > _MAX_ATTRIBUTES:
        return Refused(CleanupStatus.CONTENT, "5.3.4", "message envelope too large")
    return None
