"""The envelope for the queue file, with what is known only at the end of the message."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from daemons.cleanup.header import Header
from daemons.cleanup.params import CleanupParams
from libmail.ipc.messages import Envelope, EnvelopeFlag, Recipient
from libmail.queue.file import ContentFlag

__all__ = ["Findings", "final_envelope"]

_EIGHTBIT_HEADER: Final = int(ContentFlag.EIGHTBIT_HEADER)
_EIGHTBIT_BODY: Final = int(ContentFlag.EIGHTBIT_BODY)
_EIGHTBIT: Final = int(EnvelopeFlag.EIGHTBIT)
_EXPANDED: Final = int(EnvelopeFlag.EXPANDED)
_SMTPUTF8: Final = int(EnvelopeFlag.SMTPUTF8)
_REQUIRETLS: Final = int(EnvelopeFlag.REQUIRETLS)
_TLS_OPTIONAL: Final = int(EnvelopeFlag.TLS_OPTIONAL)


class Findings(NamedTuple):
    """What is known at the end of a message.

    content_flags: ContentFlag bits. expanded: aliases were expanded, and that was recorded for a
    report. autodetect: find out whether the message needs SMTPUTF8. redirect: an address that takes
    the place of all recipients, "" for none.
    """

    content_flags: int
    header: Header
    expanded: bool
    autodetect: bool
    redirect: str


def final_envelope(
    envelope: Envelope, recipients: Sequence[Recipient], params: CleanupParams, found: Findings
) -> Envelope:
    """The envelope with flags, Message-Id and the time of a delay notice."""
    flags = _flags(envelope.flags, params, found)
    if (
        found.autodetect
        and params.smtputf8_enable
        and (found.content_flags & _EIGHTBIT_HEADER or _is_international(envelope, recipients))
    ):
        flags |= _SMTPUTF8
    warn_time = envelope.warn_time
    if params.delay_warning_time and not warn_time:
        warn_time = envelope.arrival + params.delay_warning_time
    message_id, redirect = found.header.message_id, found.redirect
    return envelope._replace(
        flags=flags, message_id=message_id, warn_time=warn_time, redirect=redirect
    )


def _flags(flags: int, params: CleanupParams, found: Findings) -> int:
    if found.expanded:
        flags |= _EXPANDED
    header = found.header
    flags |= header.flags
    if flags & _REQUIRETLS:
        flags &= ~_TLS_OPTIONAL  # RFC 8689 §4.1
    if not params.detect_8bit_encoding_header:
        return flags
    if header.eightbit is not None:
        return flags | _EIGHTBIT if header.eightbit else flags & ~_EIGHTBIT
    if header.composite and found.content_flags & _EIGHTBIT_BODY:
        flags |= _EIGHTBIT  # one of the parts will have said so
    return flags


def _is_international(envelope: Envelope, recipients: Sequence[Recipient]) -> bool:
    """Whether some address is other than ASCII."""
    if not envelope.sender.isascii():
        return True
    return not all(recipient.address.isascii() for recipient in recipients)
