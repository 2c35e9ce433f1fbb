"""The message header: unwanted fields are removed, addresses completed, missing fields added.

The header arrives and leaves in batches of fields, so that a large one is never in memory as a
whole. A field that needs no change is not touched: runs of such fields are copied as one piece, and
a batch without any change is not copied at all.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from daemons.cleanup.events import MessageId
from daemons.cleanup.inspection import Inspection
from daemons.cleanup.mapping import HEADER_RECIPIENT, HEADER_SENDER, AddressMapper
from daemons.cleanup.missing import REDISTRIBUTION, VISIBLE_RECIPIENTS, MissingFields
from daemons.cleanup.params import HeaderParams
from daemons.cleanup.parts import PartHeaders
from daemons.cleanup.status import Refused
from libmail.ipc.messages import CleanupStatus, Envelope, EnvelopeFlag, QueueId
from libmail.log import LOG
from libmail.message.addresses import RECIPIENT_FIELDS, SENDER_FIELDS, AddressField, complete
from libmail.message.headers import Field, HeaderReader, cut_field, fields
from libmail.message.mime import MimeLimits
from libmail.smtp.address import quote_local
from libmail.smtp.reply import reply_text

__all__ = ["Header", "HeaderEdit", "HeaderEditor"]

_RECEIVED: Final = b"received"
_ADDRESSES: Final = SENDER_FIELDS | RECIPIENT_FIELDS
_MIME: Final = frozenset((b"mime-version", b"content-type"))
_REQUIRED: Final = b"Require-TLS-ESMTP: yes\r\n"
_REQUIRETLS: Final = int(EnvelopeFlag.REQUIRETLS)
_TLS_OPTIONAL: Final = int(EnvelopeFlag.TLS_OPTIONAL)
# Fields whose presence matters at the end of the header.
_NOTED: Final = frozenset(
    (*REDISTRIBUTION, *VISIBLE_RECIPIENTS, *_MIME, b"message-id", b"from", b"date")
)
_ENCODINGS: Final = {b"7bit": False, b"8bit": True, b"binary": True}
_COMPOSITE: Final = (b"multipart/", b"message/")
_AT_ONCE: Final = 1000  # fields, after which other sessions have their turn
_name: Final = itemgetter(0)  # of a field


class Header(NamedTuple):
    """The result of editing a header.

    data: the missing fields, to be appended to it. message_id: "" for none. mime: there are MIME
    fields. eightbit: whether Content-Transfer-Encoding declares 8-bit content, None if it does not
    say. composite: the message has parts, with encodings of their own. flags: EnvelopeFlag bits of
    what it says about protection: REQUIRETLS, TLS_OPTIONAL (RFC 8689).
    """

    data: bytes
    message_id: str
    mime: bool
    eightbit: bool | None = None
    composite: bool = False
    flags: int = 0


class HeaderEditor:
    """The parameters and tables for editing headers; `begin` edits that of one message."""

    def __init__(
        self, params: HeaderParams, mapper: AddressMapper, parts: MimeLimits | None = None
    ) -> None:
        """parts: how far parts are followed, None if they are not."""
        self.params: Final = params
        self.parts: Final = parts
        self.mapper: Final = mapper
        self.missing: Final = MissingFields(params)
        self.requires_tls: Final = params.requiretls_enable and params.requiretls_esmtp_header
        self.drop: Final = frozenset(
            name.lower().rstrip(":").encode("utf-8", "surrogateescape")
            for name in params.message_drop_headers
        )
        self.examined: Final = self.drop | _ADDRESSES | _READERS.keys()
        self.mapped: Final = frozenset(
            (SENDER_FIELDS if mapper.maps_class(HEADER_SENDER) else frozenset())
            | (RECIPIENT_FIELDS if mapper.maps_class(HEADER_RECIPIENT) else frozenset())
        )

    def begin(
        self, envelope: Envelope, queue_id: QueueId, *, mapping: bool,
        inspection: Inspection | None = None,
    ) -> "HeaderEdit":  # fmt: skip
        """The editor of one message's header.

        envelope: with the final sender. mapping: canonical tables and masquerading apply.
        inspection: header_checks, which see each field before it is edited.
        """
        return HeaderEdit(self, envelope, queue_id, mapping, inspection)

    def reader(self) -> HeaderReader:
        """The parser for the header of one message."""
        return HeaderReader(self.params.header_size_limit)

    def non_empty_end(self) -> bytes:
        """What to append to a header that no empty line ends (non_empty_end_of_header_action).

        Raises Refused.
        """
        action = self.params.non_empty_end_of_header_action
        if action == "reject":
            raise Refused(CleanupStatus.CONTENT, "5.6.0", "non-empty end of header")
        return b"MIME-Error: non-empty end of header\r\n" if action == "add_header" else b""


class HeaderEdit:
    """One header: `edit` for each batch of fields, then `end`.

    own: the first Received: field, which is that of this system, as header_checks left it; b"" for
    none. Milters do not see it.
    """

    __slots__ = ("_composite", "_editor", "_eightbit", "_envelope", "_flags", "_hops",
                 "_inspection", "_mapping", "_message_id", "_parts", "_queue_id",
                 "_seen", "own")  # fmt: skip

    def __init__(
        self, editor: HeaderEditor, envelope: Envelope, queue_id: QueueId, mapping: bool,
        inspection: Inspection | None,
    ) -> None:  # fmt: skip
        self._editor = editor
        self._inspection = inspection
        self._envelope = envelope
        self._queue_id = queue_id
        self._mapping = mapping
        self._seen: set[bytes] = set()
        self._hops = 0
        self._message_id: str | None = None
        self._eightbit: bool | None = None
        self._composite = False
        self._parts: PartHeaders | None = None
        self._flags = 0
        self.own = b""

    async def edit(self, data: bytes, found: list[Field], end: int) -> bytes:
        """The edited form of data[:end], whose fields are `found`. Raises Refused, Discarded."""
        inspection = self._inspection
        inspected = () if inspection is None else frozenset(inspection.worthwhile(data, found))
        first = next((f for f in found if f.name == _RECEIVED), None) if not self._hops else None
        if first is not None:
            self.own = data[first.start : first.end]
        self._note([field for field in found if field not in inspected] if inspected else found)
        pieces: list[bytes] = []
        kept = 0  # data up to here is in pieces
        for number, field in enumerate(self._examined(found, inspected), 1):
            if inspection is not None and field in inspected:
                changed = await self._inspected(inspection, data, field)
            else:
                changed = await self._field(data, field)
            if changed is not None:
                pieces += (data[kept : field.start], changed)
                kept = field.end
                if field is first and not changed.endswith(self.own):
                    self.own = changed
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        if pieces:
            pieces.append(data[kept:end])
            return b"".join(pieces)
        return data if end == len(data) else data[:end]

    def _examined(self, found: list[Field], inspected: Collection[Field]) -> list[Field]:
        """Those of which more counts than their names, or that are inspected."""
        names, limit = self._editor.examined, self._editor.params.header_size_limit
        return [
            field for field in found if (name := field[0]) in names
            or field[2] - field[1] != len(name) + 1 or field[3] - field[1] > limit
            or field in inspected
        ]  # fmt: skip

    def _note(self, found: Sequence[Field]) -> None:
        """Which fields there are; those that are dropped count, too."""
        names = [*map(_name, found)]
        self._seen |= _NOTED.intersection(names)
        self._hops += names.count(_RECEIVED)

    async def _inspected(self, inspection: Inspection, data: bytes, field: Field) -> bytes | None:
        """As `_field`, after header_checks; fields that PREPEND adds are not edited."""
        before, instead = await inspection.field(data, field)
        changed = instead
        text, left = (data, [field]) if instead is None else (instead, fields(instead)[:1])
        if left:
            self._note(left)
            edited = await self._field(text, left[0])
            changed = instead if edited is None else edited
        inspection.field_done()
        if not before:
            return changed
        return before + (data[field.start : field.end] if changed is None else changed)

    async def _field(self, data: bytes, field: Field) -> bytes | None:
        """The field in its edited form; None if it stays as it is."""
        name, start, value, after = field
        if name in self._editor.drop:
            return b""
        changed: bytes | None = None
        whole = after - start <= self._editor.params.header_size_limit
        if not whole or value - start != len(name) + 1:
            changed = self._normal(data, field)
        if name not in _ADDRESSES:
            read = _READERS.get(name)
            if read is not None:
                read(self, data[value:after])
        elif whole and self._envelope.rewrite_context:  # else its last address may be cut
            return await self._addresses(data, field) or changed
        return changed

    def _normal(self, data: bytes, field: Field) -> bytes:
        """The field without white space before its colon, cut at header_size_limit."""
        name = data[field.start : field.start + len(field.name)]
        text = name + b":" + data[field.value : field.end - 2]
        return cut_field(text, self._editor.params.header_size_limit) + b"\r\n"

    async def _addresses(self, data: bytes, place: Field) -> bytes | None:
        """An address field with complete and mapped addresses; None if nothing changes."""
        value = data[place.value : place.end]
        mapping = self._mapping and place.name in self._editor.mapped
        if not mapping and complete(value):
            return None
        mapper, queue_id = self._editor.mapper, self._queue_id
        head = data[place.start : place.start + len(place.name)].decode("ascii")
        kind = HEADER_SENDER if place.name in SENDER_FIELDS else HEADER_RECIPIENT
        context = "local" if self._envelope.rewrite_context == "local" else "remote"
        limit = self._editor.params.header_address_token_limit
        field = AddressField(value.decode("utf-8", "surrogateescape"), limit)
        changed = False
        for mailbox in field.mailboxes:
            if not mailbox.plain:
                continue
            if mailbox.address == "@":
                mailbox.address, changed = '""', True  # a route to nowhere
                continue
            address = await mapper.rewrite(context, queue_id, mailbox.address)
            if mapping:
                address = await mapper.map_class(kind, queue_id, address)
            new = quote_local(address)
            if new != mailbox.address:
                mailbox.address = new
                changed = True
        if not changed:
            return None
        if field.truncated:
            LOG.warning(
                f"{queue_id}: header_address_token_limit: addresses beyond {limit} tokens"
                f" in {head}: header are discarded"
            )
        return (field.render(head) + "\r\n").encode("utf-8", "surrogateescape")

    # fields that say something

    def _note_id(self, text: bytes) -> None:
        """The last Message-Id counts."""
        self._message_id = reply_text(self._log_id(text))

    def _note_resent_id(self, text: bytes) -> None:
        self._log_id(text, resent=True)

    def _log_id(self, text: bytes, *, resent: bool = False) -> str:
        value = text.lstrip().removesuffix(b"\r\n").decode("utf-8", "surrogateescape")
        if "\r" in value:
            value = value.replace("\r\n", "\n")
        LOG.event(MessageId(self._queue_id, value, resent))
        return value

    def _note_encoding(self, text: bytes) -> None:
        self._eightbit = _ENCODINGS.get(text.strip().lower(), self._eightbit)

    def _note_type(self, text: bytes) -> None:
        folded = text.lower()
        self._composite = folded.lstrip().startswith(_COMPOSITE)
        limits = self._editor.parts
        if limits is None or self._inspection is not None:  # which follows them
            return
        if self._parts is None and (b"multipart" in folded or b"message" in folded):
            self._parts = PartHeaders(limits)
        if self._parts is not None:
            self._parts.note_type(text)

    def end_of_fields(self) -> PartHeaders | None:
        """What edits the headers of parts, if there may be some."""
        parts = self._parts
        return parts if parts is not None and parts.end_header() else None

    def _note_tls_required(self, text: bytes) -> None:
        if self._editor.params.tls_required_enable and text.strip().lower() == b"no":
            self._flags |= _TLS_OPTIONAL

    def _note_require_tls(self, text: bytes) -> None:
        """REQUIRETLS on its way through a content filter."""
        if self._editor.requires_tls and text.strip().lower() == b"yes":
            self._flags |= _REQUIRETLS

    def end(self) -> Header:
        """The header is complete: hop count, missing fields. Raises Refused."""
        if self._hops >= self._editor.params.hopcount_limit:
            LOG.warning(f"{self._queue_id}: message rejected: hopcount exceeded")
            raise Refused(CleanupStatus.HOPS, "5.4.0", "too many hops")
        seen = self._seen
        missing, added = self._editor.missing.make(seen, self._envelope, self._queue_id)
        if added:
            note = self._note_id if seen.isdisjoint(REDISTRIBUTION) else self._note_resent_id
            note(added.encode("utf-8", "surrogateescape"))
        if self._message_id is None:
            LOG.event(MessageId(self._queue_id, "<>", resent=False))
        if self._envelope.flags & ~self._flags & _REQUIRETLS and self._editor.requires_tls:
            missing += _REQUIRED
        mime = not seen.isdisjoint(_MIME)
        message_id = self._message_id or ""
        return Header(missing, message_id, mime, self._eightbit, self._composite, self._flags)


_READERS: Final[Mapping[bytes, Callable[[HeaderEdit, bytes], None]]] = {
    b"message-id": HeaderEdit._note_id,
    b"resent-message-id": HeaderEdit._note_resent_id,
    b"content-transfer-encoding": HeaderEdit._note_encoding,
    b"content-type": HeaderEdit._note_type,
    b"tls-required": HeaderEdit._note_tls_required,
    b"require-tls-esmtp": HeaderEdit._note_require_tls,
}
"""What becomes of the text behind the colon."""
