"""What is in the queue: for showq(8), and for postqueue(1) while the mail system is down."""

import os
import stat
from collections.abc import Iterator
from typing import Final

from libmail.ipc.messages import Envelope, QueueId, Recipient, Target
from libmail.log import LOG
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import FORCED_EXPIRY, QueueFile, QueueFileCorrupt
from libmail.queue.queued import QueuedMessage, QueuedRecipient
from libmail.queue.reasons import ReasonLog
from libmail.text.quoting import shown_address

__all__ = ["LISTED_QUEUES", "QueuedMessage", "QueuedRecipient", "list_queue"]

LISTED_QUEUES: Final = ("maildrop", "incoming", "active", "deferred", "hold")
_ENVELOPE_SIZE: Final = 40  # octets, of time stamps and the like


def _recipients(file: QueueFile, delayed: list[Target]) -> tuple[QueuedRecipient, ...]:
    """What is delayed, which may be what an alias names, then the rest of those to do."""
    known = {target.address for target in delayed}
    found = [_recipient(target, target.reason) for target in delayed]
    found += [
        _recipient(recipient) for recipient in file.recipients() if recipient.address not in known
    ]
    return tuple(found)


def _recipient(of: Target | Recipient, reason: str = "") -> QueuedRecipient:
    original = of.orig_rcpt if of.orig_rcpt != of.address else ""
    return QueuedRecipient(shown_address(of.address), reason, shown_address(original))


def _delayed(queue_id: QueueId, log: ReasonLog) -> list[Target]:
    """What is known of earlier tries; a message is listed whether or not that can be read."""
    try:
        return log.read(queue_id)
    except OSError as err:
        LOG.warning(f"{queue_id}: read defer log: {err.strerror}")
        return []


def _message(queue_name: str, path: str, queue_id: QueueId, log: ReasonLog) -> QueuedMessage:
    delayed = _delayed(queue_id, log) if queue_name in ("deferred", "hold", "active") else []
    with QueueFile(path) as file:
        envelope, recipients = file.envelope(), _recipients(file, delayed)
        size = file.preamble.size
        if queue_name == "maildrop":
            size += _envelope_size(envelope, recipients)
        return QueuedMessage(
            queue_name,
            queue_id,
            time=int(file.preamble.arrival or os.fstat(file.fd).st_mtime),
            size=size,
            forced_expire=bool(os.fstat(file.fd).st_mode & FORCED_EXPIRY),
            sender=shown_address(envelope.sender),
            recipients=recipients,
        )


def _envelope_size(envelope: Envelope, recipients: tuple[QueuedRecipient, ...]) -> int:
    """Octets of the envelope: before cleanup(8) the size is that of the whole submission."""
    texts = (envelope.sender, envelope.full_name, envelope.rewrite_context, *(
        recipient.address for recipient in recipients
    ))  # fmt: skip
    return _ENVELOPE_SIZE + sum(len(text) + 2 for text in texts)


def list_queue(directory: QueueDirectory) -> Iterator[QueuedMessage]:
    """Every complete message, queue by queue. Files that vanish meanwhile are left out.

    Addresses are in external form.
    """
    log = ReasonLog(directory, "defer")
    for queue_name in LISTED_QUEUES:
        for entry in directory.scan(queue_name):
            queue_id = QueueId(entry.name)
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
                if not mode & stat.S_IXUSR:
                    continue  # still being written
                if not stat.S_ISREG(mode):
                    raise QueueFileCorrupt("not a regular file")
                yield _message(queue_name, entry.path, queue_id, log)
            except FileNotFoundError:
                continue
            except (OSError, QueueFileCorrupt) as err:
                LOG.warning(f"open {entry.path}: {err}")
