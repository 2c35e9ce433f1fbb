"""The size of a queue file in Postfix: message_size_limit limits that, not the content.

In such a file each line, address and attribute is a record: its text and (up to 127 octets) two
octets more. For a line that equals its CRLF, so only the envelope has to be added to the content.
"""

from collections.abc import Sequence
from typing import Final

from libmail.ipc.messages import Envelope, QueueId, Recipient

__all__ = ["envelope_size", "exceeds"]

# Sizes, times, rewrite context, and the marks of the parts.
_MESSAGE: Final = 169
_RECORD: Final = 2
# Names of the attributes: of an SMTP client, for it and for the log; of a recipient.
_CLIENT: Final = 277
_ORIGINAL: Final = len("dsn_orig_rcpt=") + _RECORD
_NOTIFY: Final = len("notify_flags=1") + _RECORD
_ENVID: Final = len("dsn_envid=") + _RECORD
# More than the envelope takes: of a message, and of each of its recipients.
_MESSAGE_AT_MOST: Final = 1 << 13
_RECIPIENT_AT_MOST: Final = 1 << 11


def exceeds(
    limit: int,
    content: int,
    queue_id: QueueId,
    envelope: Envelope,
    recipients: Sequence[Recipient],
) -> bool:
    """Whether a message of `content` octets is larger than the limit."""
    if content + _MESSAGE_AT_MOST + _RECIPIENT_AT_MOST * len(recipients) <= limit:
        return False
    return content + envelope_size(queue_id, envelope, recipients) > limit


def envelope_size(queue_id: QueueId, envelope: Envelope, recipients: Sequence[Recipient]) -> int:
    """The octets that the envelope adds."""
    size = _MESSAGE + len(envelope.sender) + _RECORD
    if envelope.full_name:
        size += len(envelope.full_name) + _RECORD
    if envelope.dsn_envid:
        size += len(envelope.dsn_envid) + _ENVID
    if envelope.client_address:
        size += _client_size(queue_id, envelope)
    return size + sum(map(_recipient_size, recipients))


def _client_size(queue_id: QueueId, envelope: Envelope) -> int:
    thrice = len(envelope.client_name) + len(envelope.client_address)
    twice = len(envelope.client_port) + len(envelope.helo_name) + len(envelope.protocol_name)
    once = (
        len(envelope.reverse_client_name)
        + len(envelope.server_address)
        + len(envelope.server_port)
        + len(queue_id)
    )
    return _CLIENT + 3 * thrice + 2 * twice + once


def _recipient_size(recipient: Recipient) -> int:
    original = len(recipient.dsn_orcpt) or len("rfc822;") + len(recipient.orig_rcpt)
    addresses = len(recipient.address) + len(recipient.orig_rcpt) + 2 * _RECORD
    return original + _ORIGINAL + addresses + (_NOTIFY if recipient.notify else 0)
