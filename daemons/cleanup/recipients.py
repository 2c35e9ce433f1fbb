"""The recipients of a message: completed, mapped, expanded, without duplicates."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from daemons.cleanup.mapping import ENVELOPE_RECIPIENT, ENVELOPE_SENDER, AddressMapper
from daemons.cleanup.params import CleanupParams
from daemons.cleanup.status import Refused, bad_recipient
from libmail.ipc.messages import (
    CleanupFlag,
    CleanupStatus,
    DsnNotify,
    QueueId,
    Recipient,
    Target,
)
from libmail.log import LOG
from libmail.smtp.address import address_fault, quote_local, xtext_encode
from libmail.tables.maps import Maps

__all__ = ["BccTables", "RecipientList", "map_sender"]

_DAEMON: Final = "mailer-daemon@"
# As plain integers, which are much cheaper to test than members of an IntFlag.
_BCC: Final = int(CleanupFlag.BCC)
_MAP: Final = int(CleanupFlag.MAP)
_SUCCESS: Final = int(DsnNotify.SUCCESS)
_NEVER: Final = int(DsnNotify.NEVER)


@dataclass(frozen=True, slots=True)
class BccTables:
    """The tables of the parameters with these names."""

    sender_bcc_maps: Maps
    recipient_bcc_maps: Maps


async def map_sender(mapper: AddressMapper, flags: int, queue_id: QueueId, sender: str) -> str:
    """The envelope sender in its final form. Raises Refused.

    Mail in the name of MAILER-DAEMON has no sender: nobody waits for a report there.
    """
    if not sender:
        return ""
    address = await mapper.rewrite("local", queue_id, quote_local(sender))
    if address.lower().startswith(_DAEMON):
        ours = await mapper.rewrite("local", queue_id, _DAEMON.removesuffix("@"))
        if address.lower() == ours.lower():
            return ""
    if flags & _MAP:
        address = await mapper.map_class(ENVELOPE_SENDER, queue_id, address)
    return address


class RecipientList:
    """Collects the recipients of one message. Everything raises Refused.

    recipients: the result. expanded: reports for senders who asked to be told of success, for
    recipients that became others (RFC 3461 §5.2.7). given: those of the client, before aliases make
    others of them. last: the one that the client gave last.
    redirected: an address that takes the place of all, "" for none.
    """

    __slots__ = ("_bcc", "_flags", "_local", "_mapper", "_params", "_queue_id", "_seen", "expanded",
                 "given", "last", "recipients", "redirected")  # fmt: skip

    def __init__(
        self, params: CleanupParams, mapper: AddressMapper, bcc: BccTables, flags: int,
        queue_id: QueueId, *, local: bool = False,
    ) -> None:  # fmt: skip
        """local: mail that did not come by SMTP, where the completed address is the original one
        (RFC 3461)."""
        self._params = params
        self._mapper = mapper
        self._bcc = bcc
        self._flags = flags
        self._queue_id = queue_id
        self._local = local
        self._seen: set[tuple[str, str, int, str]] = set()
        self.recipients: list[Recipient] = []
        self.redirected = ""
        self.expanded: list[Target] = []
        self.given: list[str] = []
        self.last = ""

    async def add_all(self, recipients: Iterable[Recipient], sender: str) -> None:
        """The client's recipients and the automatic ones. sender: in its final form."""
        bcc = self._flags & _BCC
        if bcc and sender and self._bcc.sender_bcc_maps:
            await self._add_found(self._bcc.sender_bcc_maps, sender)
        for recipient in recipients:
            address = self.last = await self._add(recipient)
            self.given.append(address)
            if bcc and self._bcc.recipient_bcc_maps:
                await self._add_found(self._bcc.recipient_bcc_maps, address)
        if bcc and self._params.always_bcc:
            await self.add_bcc(self._params.always_bcc)

    async def add_more(self, recipients: Iterable[Recipient]) -> None:
        """Recipients that were added later; they cause no automatic BCC recipients."""
        for recipient in recipients:
            await self._add(recipient)

    async def add_found(self, recipient: Recipient) -> None:
        """A recipient that a Milter adds: what it calls the address is not what a client said."""
        address = await self._mapper.rewrite(
            "local", self._queue_id, quote_local(recipient.address)
        )
        await self._add(recipient._replace(address=address, orig_rcpt=address))

    async def new_sender(self, address: str) -> str:
        """The final form of a sender that a Milter gives."""
        return await map_sender(self._mapper, self._flags, self._queue_id, address)

    def remove(self, address: str) -> None:
        """Remove the recipients that are this address, or were made of it by mapping."""
        folded = address.lower()
        self.recipients = [
            one
            for one in self.recipients
            if folded not in (one.address.lower(), one.orig_rcpt.lower())
        ]
        self._seen.clear()  # it may be added again

    async def redirect(self, address: str) -> None:
        """Have all that the message is for replaced by this address, by qmgr(8).

        It inherits the DSN options and original address of the first one, for logs and reports.
        """
        complete = await self._mapper.rewrite("local", self._queue_id, quote_local(address))
        self._check_found(complete)
        self.redirected = complete
        if not self.recipients:
            self.recipients = [Recipient(complete, address)]

    def _check_found(self, address: str) -> None:
        """An address of a table that no client may send is a configuration error, no bounce."""
        fault = address_fault(address)
        if fault:
            LOG.warning(f"{self._queue_id}: address mapping: {fault}: {address[:80]}")
            raise Refused(CleanupStatus.DEFER, "4.3.5", "Server configuration error")

    async def _add_found(self, maps: Maps, address: str) -> None:
        found = await self._mapper.find(maps, self._queue_id, address)
        if found is not None:
            await self.add_bcc(found)

    async def add_bcc(self, address: str) -> None:
        """A BCC recipient, for whom no report is sent: NOTIFY=NEVER."""
        self._check_found(address)
        complete = await self._mapper.rewrite("local", self._queue_id, quote_local(address))
        await self._add(Recipient(complete, complete, "", _NEVER))

    async def _add(self, recipient: Recipient) -> str:
        """Returns the address before its aliases are expanded."""
        mapper, queue_id = self._mapper, self._queue_id
        original = recipient.address or self._params.empty_address_recipient
        address = await mapper.rewrite("local", queue_id, quote_local(original))
        if address_fault(address):  # with the domain that was added
            raise bad_recipient()
        targets = [address]
        if self._flags & _MAP and mapper.maps_recipients:
            address = await mapper.map_class(ENVELOPE_RECIPIENT, queue_id, address)
            targets = await mapper.expand(queue_id, address)
            for target in targets:
                self._check_found(target)
        orig_rcpt = recipient.orig_rcpt or recipient.address
        dsn_orcpt, notify = recipient.dsn_orcpt, recipient.notify
        if self._local and not dsn_orcpt:
            changed = orig_rcpt != address or quote_local(address) != address
            if changed and address.isascii():
                dsn_orcpt = f"rfc822;{xtext_encode(address)}"
        if notify & _SUCCESS and targets != [address]:
            self._report_expansion(recipient, orig_rcpt, address)
            notify = (notify & ~_SUCCESS) or _NEVER
        for target in targets:
            self._append(Recipient(target, orig_rcpt, dsn_orcpt, notify))
        return address

    def _append(self, recipient: Recipient) -> None:
        address, orig_rcpt, dsn_orcpt, notify, _ = recipient
        if self._params.enable_original_recipient:
            key = (address.lower(), orig_rcpt.lower(), notify, dsn_orcpt.lower())
        else:
            key = (address.lower(), "", 0, "")
        if key in self._seen:
            return
        limit = self._params.duplicate_filter_limit
        if limit == 0 or len(self._seen) < limit:
            self._seen.add(key)
        self.recipients.append(recipient)

    def _report_expansion(self, recipient: Recipient, orig_rcpt: str, address: str) -> None:
        self.expanded.append(
            Target(
                address=address,
                orig_rcpt=orig_rcpt,
                dsn_orcpt=recipient.dsn_orcpt,
                notify=recipient.notify,
                offset=0,
                action="expanded",
                status="2.0.0",
                reason="alias expanded",
            )
        )
