"""virtual(8): deliver to mailboxes that tables name, not the user database.

called by: qmgr. asks: virtual_mailbox_maps, virtual_uid_maps, virtual_gid_maps. writes: mailboxes,
the done mark. tells: bounce, defer, trace. needs: root, to act as the owners of mailboxes.

Deliveries go on side by side, each in a thread that acts as the owner of the mailbox, so that one
whose file system does not answer stops no other. What is not the owner's business, tables and
reports among it, is done by the event loop, which stays root.
"""

import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from libmail.agents.delivery import (
    Bounced,
    Deferred,
    Delivery,
    DeliveryParams,
    DeliveryServices,
    Outcome,
    Sent,
    delivery_handlers,
)
from libmail.agents.status_filter import StatusFilter, open_status_filter
from libmail.files.commit import Steps
from libmail.ipc.messages import Recipient
from libmail.log import LOG, Fatal
from libmail.mailbox.content import delivery_headers, maildir_content, mbox_content
from libmail.mailbox.maildir import MaildirWriter, warn_of_maildir
from libmail.mailbox.mbox import MboxLocking, NotOwner, append_to_mbox
from libmail.privileges import MAX_ID, Actor, Identity
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.service.workers import Job, Workers
from libmail.tables.maps import Maps
from libmail.tables.table import TableOptions, TableRetry
from libmail.text.quoting import header_address

__all__ = ["SERVICE", "MailboxDelivery", "prepare"]

_RELAY: Final = "virtual"
_DIGITS: Final = 10
_INTO_MAILDIR: Final = Sent("2.0.0", "delivered to maildir", _RELAY, "delivered")
_INTO_MBOX: Final = Sent("2.0.0", "delivered to mailbox", _RELAY, "delivered")


@dataclass(frozen=True, slots=True)
class VirtualParams:
    """Parameters of virtual(8)."""

    virtual_delivery_status_filter: tuple[str, ...]
    virtual_mailbox_maps: str
    virtual_mailbox_base: str
    virtual_mailbox_limit: int
    virtual_mailbox_lock: tuple[str, ...]
    virtual_uid_maps: str
    virtual_gid_maps: str
    virtual_minimum_uid: int
    enable_original_recipient: bool
    recipient_delimiter: str
    message_size_limit: int
    deliver_lock_attempts: int
    deliver_lock_delay: float
    stale_lock_time: float
    strict_mailbox_ownership: bool
    myhostname: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is opened before the jail."""

    params: VirtualParams
    delivery: DeliveryParams
    status_filter: StatusFilter
    mailboxes: Maps
    uids: Maps
    gids: Maps


class ConfigurationProblem(Exception):
    """A table gives something unusable; the text is for the log, the mail waits."""


def prepare(startup: Startup) -> Prepared:
    """For `Service`."""
    params = startup.config.load(VirtualParams)
    if params.virtual_mailbox_limit and params.virtual_mailbox_limit < params.message_size_limit:
        raise Fatal("configuration error: virtual_mailbox_limit is smaller than message_size_limit")
    options = TableOptions.of(startup.config, sensitive=True)
    status_filter = open_status_filter(
        startup.config, "virtual_delivery_status_filter", params.virtual_delivery_status_filter
    )
    return Prepared(
        params,
        startup.config.load(DeliveryParams),
        status_filter,
        Maps("virtual_mailbox_maps", params.virtual_mailbox_maps, options),
        Maps("virtual_uid_maps", params.virtual_uid_maps, options),
        Maps("virtual_gid_maps", params.virtual_gid_maps, options),
    )


class MailboxDelivery:
    """Delivers one recipient after the other into virtual mailboxes, many messages at a time."""

    def __init__(self, prepared: Prepared) -> None:
        self._workers = Workers.acting()
        self._params = prepared.params
        self._prepared = prepared
        self._only_owner = self._constant_owner()
        self._maildirs = MaildirWriter(prepared.params.myhostname)
        self._locking = MboxLocking(
            prepared.params.virtual_mailbox_lock,
            prepared.params.deliver_lock_attempts,
            prepared.params.deliver_lock_delay,
            prepared.params.stale_lock_time,
        )

    async def deliver(self, delivery: Delivery) -> None:
        """Serve a request."""
        for recipient in delivery.request.recipients:
            await delivery.finish(recipient, await self._outcome(delivery, recipient))

    async def _outcome(self, delivery: Delivery, recipient: Recipient) -> Outcome:
        address = recipient.address.lower()
        try:
            found = await self._prepared.mailboxes.find_address(
                address, self._params.recipient_delimiter
            )
            if found is None:
                return Bounced(
                    dsn="5.1.1", reason=f'unknown user: "{recipient.address}"', relay=_RELAY
                )
            base = self._base()
            owner = self._only_owner
            if owner is None or not address.isascii():
                owner = await self._owner(address, recipient.address)
        except TableRetry as err:
            LOG.warning(f"{delivery.request.queue_id}: {err}")
            return Deferred(dsn="4.3.5", reason="mail system configuration error", relay=_RELAY)
        except ConfigurationProblem as err:
            LOG.warning(str(err))
            return Deferred(dsn="4.3.5", reason="mail system configuration error", relay=_RELAY)
        path = f"{base}/{found.value}"
        if delivery.verify_only:
            kind = "maildir" if path.endswith("/") else "mailbox"
            return Sent(
                dsn="2.0.0", reason=f"delivers to {kind}", relay=_RELAY, action="deliverable"
            )
        return await self._write(delivery, recipient, path, owner)

    def _base(self) -> str:
        """The directory of all mailboxes. Raises ConfigurationProblem."""
        base = self._params.virtual_mailbox_base
        if base.startswith("/"):
            return base.rstrip("/")
        if not base:
            raise ConfigurationProblem("virtual_mailbox_base is empty")
        problem = "do not specify relative pathname"
        raise ConfigurationProblem(f"{problem}: virtual_mailbox_base = {base}")

    def _constant_owner(self) -> Identity | None:
        """The owner of all mailboxes, where main.cf says it without a table."""
        uid, gid = self._prepared.uids.constant, self._prepared.gids.constant
        if uid and gid and _is_id(uid, self._params.virtual_minimum_uid) and _is_id(gid, 1):
            return _identity(int(uid), int(gid))
        return None

    async def _owner(self, address: str, shown: str) -> Identity:
        """Whom to act as. Raises ConfigurationProblem, TableRetry."""
        numbers = []
        for title, maps, least in (
            ("virtual_uid_maps", self._prepared.uids, self._params.virtual_minimum_uid),
            ("virtual_gid_maps", self._prepared.gids, 1),
        ):
            found = await maps.find_address(address, self._params.recipient_delimiter)
            if found is None:
                raise ConfigurationProblem(f"recipient {shown}: not found in {title}")
            if not _is_id(found.value, least):
                problem = f"bad {title[8:11]} {found.value} in {title}"
                raise ConfigurationProblem(f"recipient {shown}: {problem}")
            numbers.append(int(found.value))
        return _identity(*numbers)

    async def _write(
        self, delivery: Delivery, recipient: Recipient, path: str, owner: Identity
    ) -> Outcome:
        original = recipient.orig_rcpt if self._params.enable_original_recipient else ""
        sender = header_address(delivery.request.sender)
        shown = header_address(recipient.address)
        headers = delivery_headers(
            sender=sender,
            orig_rcpt=shown if original == recipient.address else header_address(original),
            delivered_to=shown,
        )
        maildir = path.endswith("/")
        try:
            if maildir:
                await self._file(path, maildir_content(delivery.file, headers), owner)
            else:
                await self._append(path, mbox_content(delivery.file, sender, headers), owner)
        except OSError as err:
            return self._failure(err, path, owner, maildir=maildir)
        return _INTO_MAILDIR if maildir else _INTO_MBOX

    def _file(self, path: str, pieces: Iterator[bytes], owner: Identity) -> Job[None]:
        def work(actor: Actor) -> Steps[None]:
            actor.become(owner)
            return self._maildirs.deliver(path.rstrip("/"), pieces)

        return self._workers.write(work)

    def _append(self, path: str, pieces: Iterator[bytes], owner: Identity) -> Job[None]:
        params, began = self._params, time.monotonic()

        def work(actor: Actor) -> Steps[None]:
            actor.become(owner)
            return append_to_mbox(
                path,
                pieces,
                self._locking.since(began),
                size_limit=params.virtual_mailbox_limit,
                owner=owner.uid if params.strict_mailbox_ownership else None,
            )

        return self._workers.write(work, lane=path)

    @staticmethod
    def _failure(err: OSError, path: str, owner: Identity, *, maildir: bool) -> Outcome:
        text = err.strerror or str(err)
        if isinstance(err, NotOwner):
            LOG.warning(NotOwner.ADVICE)
        if maildir:
            if err.errno == errno.EACCES:
                warn_of_maildir(owner, text)
            reason = f"maildir delivery failed: {text}"
        else:
            reason = f"delivery failed to mailbox {path}: {text}"
        if err.errno == errno.EFBIG:
            return Bounced(dsn="5.2.2", reason=reason, relay=_RELAY)
        return Deferred(dsn="4.2.0", reason=reason, relay=_RELAY)


def _is_id(value: str, least: int) -> bool:
    """Whether it is a number that a user or group can have, and not less than `least`."""
    usual = value.isascii() and value.isdigit() and len(value) <= _DIGITS
    return usual and least <= int(value) <= MAX_ID


def _identity(uid: int, gid: int) -> Identity:
    return Identity(f"uid {uid}", uid, gid, (gid,))


async def _start(prepared: Prepared, runtime: Runtime) -> Handlers:
    agent = MailboxDelivery(prepared)
    services = DeliveryServices.of(prepared.delivery, prepared.status_filter)
    return delivery_handlers(runtime, agent.deliver, services)


SERVICE: Final = Service("virtual", prepare, _start, threads=True)
