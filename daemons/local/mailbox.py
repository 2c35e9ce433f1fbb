"""Appending a message to a user's mailbox, or to a file that an alias names: the part of threads.

Each function acts as whom it has to, whoever the thread acted as before.
"""

import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from daemons.local.outcomes import bounced, deferred, deliverable, delivered, misconfigured
from daemons.local.params import Settings
from daemons.local.stage import Stage
from daemons.local.user import ROOT, CannotAct, User, act_as
from libmail.agents.delivery import Bounced, Delivery, Outcome
from libmail.files.commit import Steps
from libmail.log import LOG
from libmail.mailbox.content import (
    delivery_headers,
    local_lines,
    maildir_content,
    mbox_content,
    mbox_from_line,
)
from libmail.mailbox.maildir import warn_of_maildir
from libmail.mailbox.mbox import LockTimeout, MailboxTooLarge, NotMailbox, NotOwner, append_to_mbox
from libmail.privileges import Actor, Identity
from libmail.text.quoting import header_address

__all__ = ["Appending", "Place", "command_content", "place_of"]

_FULL: Final = (errno.EFBIG, errno.EDQUOT)
# What is likely to be better later. A mailbox that cannot be opened is not: so it is in Postfix.
_BUSY: Final = frozenset(
    (errno.EAGAIN, errno.EDQUOT, errno.EINTR, errno.ENOLCK, errno.EPIPE, errno.ESTALE,
     errno.ETIMEDOUT)
)  # fmt: skip
_SYSTEM: Final = frozenset(
    (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS)
)
_BIFF_PORT: Final = 512
_INTO_MAILDIR: Final = delivered("delivered to maildir")
_INTO_MBOX: Final = delivered("delivered to mailbox")


def _headers(settings: Settings, stage: Stage, context: str) -> bytes:
    wanted = context in settings.params.prepend_delivered_header
    original = stage.recipient.orig_rcpt if settings.params.enable_original_recipient else ""
    return delivery_headers(
        sender=header_address(stage.sender),
        orig_rcpt=header_address(original),
        delivered_to=header_address(stage.delivered_to) if wanted else "",
    )


def command_content(settings: Settings, stage: Stage, delivery: Delivery) -> Iterator[bytes]:
    """The message as commands get it."""
    start = mbox_from_line(header_address(stage.sender), time.ctime())
    yield start + _headers(settings, stage, "command")
    yield from local_lines(delivery.file)


def _failure(err: OSError, prefix: str) -> Outcome:
    reason = prefix + (err.strerror or str(err))
    if isinstance(err, NotMailbox):
        return bounced("5.2.0", reason)
    if isinstance(err, MailboxTooLarge) or err.errno == errno.EFBIG:
        return bounced("5.2.2", reason)
    if isinstance(err, NotOwner):
        LOG.warning(NotOwner.ADVICE)
        return deferred(reason, "4.2.0")
    if isinstance(err, LockTimeout) or err.errno in _BUSY:
        full = err.errno in _FULL
        return deferred(reason, "4.2.2" if full else "4.2.0")
    if err.errno in _SYSTEM:
        return deferred(reason, "4.3.0")
    return bounced("5.2.0", reason)


class Place(NamedTuple):
    """A mailbox of a user. rights: those that it takes. new_owner: user and group id of a new one,

    where that is not who makes it. A path that ends in a slash is that of a Maildir.
    """

    path: str
    rights: Identity
    new_owner: tuple[int, int] | None = None


def place_of(settings: Settings, stage: Stage, user: User) -> Place:
    """home_mailbox or mail_spool_directory. To be called by a thread that acts as nobody."""
    params, me = settings.params, user.identity
    if params.home_mailbox:
        return Place(f"{user.home}/{params.home_mailbox}", me)
    directory = params.mail_spool_directory
    if directory.endswith("/"):
        return Place(f"{directory}{stage.user}/", me)
    path = f"{directory}/{stage.user}"
    if not settings.is_root:
        return Place(path, me)
    return _in_spool(path, directory, me)


def _in_spool(path: str, directory: str, me: Identity) -> Place:
    """As the directory is made: everybody's, a group's (mail), or nobody's but root's."""
    try:
        status = os.stat(directory)
    except OSError:
        return Place(path, ROOT)  # the lock or the mailbox says what is wrong
    if status.st_mode & stat.S_IWOTH:
        return Place(path, me)
    if status.st_mode & stat.S_IWGRP:
        group = status.st_gid
        return Place(path, Identity(me.name, me.uid, group, (group,)))
    return Place(path, ROOT, (me.uid, me.gid))


class Appending(NamedTuple):
    """A message that is to be appended to something. began: see `MboxLocking.since`."""

    settings: Settings
    stage: Stage
    delivery: Delivery
    began: float

    def to_user(self, actor: Actor, user: User, place: Place) -> Steps[Outcome]:
        """The mailbox of a user. Blocks while it is locked."""
        params = self.settings.params
        try:
            if place.path.endswith("/"):
                outcome = yield from self._to_maildir(actor, place.path, place.rights)
            else:
                outcome = yield from self._to_mbox(actor, user, place)
        except CannotAct as err:
            return misconfigured(str(err))
        if isinstance(outcome, Bounced) and not params.home_mailbox:
            actor.restore()
            return _unless_no_spool(outcome, params.mail_spool_directory)
        return outcome

    def to_file(self, actor: Actor, path: str) -> Steps[Outcome]:
        """A file, device, or (with a slash at the end) Maildir that an alias or .forward names."""
        settings, stage = self.settings, self.stage
        if stage.origin.value not in settings.params.allow_mail_to_files:
            return bounced("5.7.1", "mail to file is restricted")
        rights = settings.rights_of(stage).identity
        try:
            if self.delivery.verify_only:
                return deliverable(f"delivers to file: {path}")
            if path.endswith("/"):
                return (yield from self._to_maildir(actor, path, rights))
            act_as(actor, rights)
            if _executable(path):
                reason = f"cannot append message to file {path}: file is executable"
                return bounced("5.7.1", reason)
            yield from append_to_mbox(
                path,
                self._mbox_content(),
                settings.locking.since(self.began),
                size_limit=settings.params.mailbox_size_limit,
                special=True,
            )
        except CannotAct as err:
            return misconfigured(str(err))
        except OSError as err:
            return _failure(err, f"cannot append message to file {path}: ")
        return delivered(f"delivered to file: {path}")

    def _to_maildir(self, actor: Actor, path: str, rights: Identity) -> Steps[Outcome]:
        delivery, settings = self.delivery, self.settings
        if delivery.verify_only:
            return deliverable("delivers to maildir")
        pieces = maildir_content(delivery.file, _headers(settings, self.stage, "file"))
        act_as(actor, rights)
        try:
            yield from settings.maildirs.deliver(path.rstrip("/"), pieces)
        except OSError as err:
            if err.errno == errno.EACCES:
                warn_of_maildir(rights, str(err.strerror))
            return _failure(err, "maildir delivery failed: ")
        return _INTO_MAILDIR

    def _to_mbox(self, actor: Actor, user: User, place: Place) -> Steps[Outcome]:
        if self.delivery.verify_only:
            return deliverable("delivers to mailbox")
        params, name = self.settings.params, self.stage.user
        act_as(actor, place.rights)
        try:
            yield from append_to_mbox(
                place.path,
                self._mbox_content(),
                self.settings.locking.since(self.began),
                size_limit=params.mailbox_size_limit,
                owner=user.identity.uid if params.strict_mailbox_ownership else None,
                new_owner=place.new_owner,
            )
        except OSError as err:
            return _failure(err, f"cannot update mailbox {place.path} for user {name}. ")
        if params.biff:
            _notify(name, place.path)
        return _INTO_MBOX

    def _mbox_content(self) -> Iterator[bytes]:
        headers = _headers(self.settings, self.stage, "file")
        return mbox_content(self.delivery.file, header_address(self.stage.sender), headers)


def _unless_no_spool(outcome: Bounced, directory: str) -> Outcome:
    """DIFFERS: from Postfix, which returns the mail of all users when the directory of their
    mailboxes is not there, or not mounted."""
    if os.path.isdir(directory):
        return outcome
    LOG.warning(f"mail_spool_directory {directory} is not there")
    return deferred(outcome.reason, "4.3.5")


def _executable(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)


def _notify(name: str, path: str) -> None:
    """Tell comsat(8) of new mail: "user@offset", a datagram to this host."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as biff:
        # No reader, no harm: nothing tells us whether anybody listens.
        biff.sendto(f"{name}@{os.stat(path).st_size}".encode(), ("127.0.0.1", _BIFF_PORT))
