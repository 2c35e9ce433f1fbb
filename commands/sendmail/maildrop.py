"""Leaving a message in the maildrop directory while the mail system is down.

The directory's group is the mail system's and is inherited by its files, so that pickup(8) may read
a file that belongs to the user, and no other user may.
"""

import os
import pwd
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

from commands.sendmail.content import read_header, split_header
from libmail.ipc.messages import Envelope, EnvelopeFlag, Recipient
from libmail.lookup.authorization import open_local_senders
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFileWriter
from libmail.tables.match import StringList
from libmail.tables.table import TableError, run_now

if TYPE_CHECKING:
    from commands.sendmail import Message
    from libmail.config import Config

__all__ = ["NotAllowed", "TooBig", "check_user", "leave_in_maildrop"]

_READABLE_BY_PICKUP: Final = 0o740


class NotAllowed(Exception):
    """authorized_submit_users does not list the caller, or local_login_sender_maps his sender."""


class TooBig(Exception):
    """The message is larger than message_size_limit."""


def check_user(config: "Config", sender: str) -> None:
    """Raises NotAllowed."""
    _check_submitter(config)
    try:
        refusal = run_now(open_local_senders(config).refusal(os.getuid(), sender))
    except TableError as err:
        raise NotAllowed(str(err)) from err
    if refusal:
        raise NotAllowed(refusal)


def _check_submitter(config: "Config") -> None:
    """Raises NotAllowed."""
    users = config.text("authorized_submit_users")
    uid = os.getuid()
    if uid == 0 or users == "static:anyone":
        return
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = "unknown"
    try:
        allowed = run_now(StringList("authorized_submit_users", users).match(name))
    except TableError as err:
        raise NotAllowed(str(err)) from err
    if not allowed:
        raise NotAllowed(f"User {name}({uid}) is not allowed to submit mail")


def leave_in_maildrop(config: "Config", message: "Message") -> None:
    """Write a queue file, durable after return. Raises OSError, NotAllowed, TooBig."""
    os.chdir(config.text("queue_directory"))
    options = message.options
    envelope = Envelope(
        sender=message.sender,
        flags=options.flags | EnvelopeFlag.LOCAL,
        full_name=message.full_name,
        dsn_envid=options.envid,
        verp_delims=message.verp,
    )
    recipients = [Recipient(address, address, "", options.notify) for address in message.recipients]
    writer = QueueFileWriter(QueueDirectory(frozenset()), "maildrop", long_ids=False)
    try:
        _write_content(writer, message.pieces, config.size("message_size_limit"))
        writer.complete(envelope, recipients, ContentFlag(0), _READABLE_BY_PICKUP)
        os.fsync(writer.fd)
    except ValueError as err:  # an address that no queue file can hold
        writer.discard()
        raise NotAllowed(str(err)) from err
    except BaseException:
        writer.discard()
        raise
    writer.close()


def _write_content(writer: QueueFileWriter, pieces: Iterator[bytes], limit: int) -> None:
    """Split the content into header and body. limit: octets, 0 for none. Raises TooBig."""
    header, body = split_header(read_header(pieces))
    writer.write_header(header)
    writer.write_body(body)
    size = len(header) + len(body)
    for piece in chain((b"",), pieces):
        writer.write_body(piece)
        size += len(piece)
        if limit and size > limit:
            raise TooBig
