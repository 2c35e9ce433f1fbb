"""The message header: unwanted fields are removed, addresses completed, missing fields added.

The header arrives and leaves in batches of fields, so that a large one is never in memory as a
whole. A field that needs no change is not touched: runs of such fields are copied as one piece, and
a batch without any change is not copied at all.
"""

import asyncio
import re
from typing import Final, NamedTuple

from daemons.cleanup.events import MessageId
from daemons.cleanup.inspection import Inspection
from daemons.cleanup.mapping import HEADER_RECIPIENT, HEADER_SENDER, AddressMapper
from daemons.cleanup.missing import REDISTRIBUTION, VISIBLE_RECIPIENTS, MissingFields
from daemons.cleanup.params import HeaderParams
from daemons.cleanup.status import Refused
from libmail.ipc.messages import CleanupStatus, Envelope, EnvelopeFlag, QueueId
from libmail.log import LOG
from libmail.message.addresses import RECIPIENT_FIELDS, SENDER_FIELDS, AddressField, complete
from libmail.message.headers import Field, HeaderReader, cut_field, fields
from libmail.smtp.address import quote_local
from libmail.smtp.reply import reply_text

__all__ = ["Header", "HeaderEdit", "HeaderEditor"]

_ADDRESSES: Final = SENDER_FIELDS | RECIPIENT_FIELDS
_MESSAGE_IDS: Final = frozenset((b"message-id", b"resent-message-id"))
_MIME: Final = frozenset((b"mime-version", b"content-type"))
_ENCODING: Final = b"content-transfer-encoding"
_TLS_REQUIRED: Final = b"tls-required"
_REQUIRE_TLS: Final = b"require-tls-esmtp"  # REQUIRETLS on its way through a content filter
_REQUIRED: Final = b"Require-TLS-ESMTP: yes\r\n"
_REQUIRETLS: Final = int(EnvelopeFlag.REQUIRETLS)
_TLS_OPTIONAL: Final = int(EnvelopeFlag.TLS_OPTIONAL)
# Fields whose presence matters at the end of the header.
_NOTED: Final = frozenset(
    (*REDISTRIBUTION, *VISIBLE_RECIPIENTS, *_MESSAGE_IDS, *_MIME, b"from", b"date")
)
_ENCODINGS: Final = {b"7bit": False, b"8bit": True, b"binary": True}
_COMPOSITE: Final = (b"multipart/", b"message/")
_FOLD: Final = re.compile(r"\r\n[ \t]*")
_AT_ONCE: Final = 1000  # fields, after which other sessions have their turn


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

    def __init__(self, params: HeaderParams, mapper: AddressMapper) -> None:
        self.params: Final = params
        self.mapper: Final = mapper
        self.missing: Final = MissingFields(params)
        self.requires_tls: Final = params.requiretls_enable and params.requiretls_esmtp_header
        self.drop: Final = frozenset(
            name.lower().rstrip(":").encode("utf-8", "surrogateescape")
            for name in params.message_drop_headers
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
    """One header: `edit` for each batch of fields, then `end`."""

    __slots__ = ("_composite", "_editor", "_eightbit", "_envelope", "_flags", "_hops", "_ids",
                 "_inspection", "_mapping", "_queue_id", "_seen")  # fmt: skip

    def __init__(
        self, editor: HeaderEditor, envelope: Envelope, queue_id: QueueId, mapping: bool,
        inspection: Inspection | None,
    ) -> None:  # fmt: skip
        self._editor = editor
        self._inspection = inspection
        self._envelope = envelope
        self._queue_id = queue_id
        self._mapping = mapping
        self._ids = _MessageIds(queue_id)
        self._seen: set[bytes] = set()
        self._hops = 0
        self._eightbit: bool | None = None
        self._composite = False
        self._flags = 0

    async def edit(self, data: bytes, found: list[Field], end: int) -> bytes:
        """The edited form of data[:end], whose fields are `found`. Raises Refused, Discarded."""
        inspected = self._inspection is not None
        pieces: list[bytes] = []
        kept = 0  # data up to here is in pieces
        for start in range(0, len(found), _AT_ONCE):
            if start:
                await asyncio.sleep(0)
            for field in found[start : start + _AT_ONCE]:
                if inspected:
                    changed = await self._inspected(data, field)
                elif field.name in _ADDRESSES:
                    changed = await self._field(data, field)
                else:
                    changed = self._without_addresses(data, field)
                if changed is not None:
                    pieces += (data[kept : field.start], changed)
                    kept = field.end
        if pieces:
            pieces.append(data[kept:end])
            return b"".join(pieces)
        return data if end == len(data) else data[:end]

    async def _inspected(self, data: bytes, field: Field) -> bytes | None:
        """As `_field`, after header_checks; fields that PREPEND adds are not edited."""
        assert self._inspection is not None
        before, instead = await self._inspection.field(data, field)
        if instead is None:
            changed = await self._field(data, field)
        elif found := fields(instead):
            changed = await self._field(instead, found[0]) or instead
        else:
            changed = instead
        self._inspection.field_done()
        if not before:
            return changed
        return before + (data[field.start : field.end] if changed is None else changed)

    async def _field(self, data: bytes, field: Field) -> bytes | None:
        """The field in its edited form; None if it stays as it is."""
        changed = self._without_addresses(data, field)
        if field.name not in _ADDRESSES or not self._envelope.rewrite_context or changed == b"":
            return changed
        if field.end - field.start > self._editor.params.header_size_limit:
            return changed  # its last address may be cut
        text = data[field.start : field.end] if changed is None else changed
        return await self._addresses(field.name, text) or changed

    def _without_addresses(self, data: bytes, field: Field) -> bytes | None:
        """The same, of a field whose addresses stay as they are."""
        name, start, value, after = field
        if name in _NOTED:
            self._seen.add(name)
        elif name == b"received":
            self._hops += 1
        editor = self._editor
        if name in editor.drop:
            return b""
        changed: bytes | None = None
        if after - start > editor.params.header_size_limit or value - start != len(name) + 1:
            changed = self._normal(data, field)
        if name in _MESSAGE_IDS:
            self._ids.see(data[value:after], resent=name != b"message-id")
        elif name == _ENCODING:
            self._eightbit = _ENCODINGS.get(data[value:after].strip().lower(), self._eightbit)
        elif name == _TLS_REQUIRED:
            if editor.params.tls_required_enable and data[value:after].strip().lower() == b"no":
                self._flags |= _TLS_OPTIONAL
        elif name == _REQUIRE_TLS:
            if editor.requires_tls and data[value:after].strip().lower() == b"yes":
                self._flags |= _REQUIRETLS
        elif name == b"content-type":
            self._composite = data[value:after].lstrip().lower().startswith(_COMPOSITE)
        return changed

    def _normal(self, data: bytes, field: Field) -> bytes:
        """The field without white space before its colon, cut at header_size_limit."""
        name = data[field.start : field.start + len(field.name)]
        text = name + b":" + data[field.value : field.end - 2]
        return cut_field(text, self._editor.params.header_size_limit) + b"\r\n"

    async def _addresses(self, name: bytes, text: bytes) -> bytes | None:
        """An address field with complete and mapped addresses; None if nothing changes."""
        mapper, queue_id = self._editor.mapper, self._queue_id
        kind = HEADER_SENDER if name in SENDER_FIELDS else HEADER_RECIPIENT
        mapping = self._mapping and mapper.maps_class(kind)
        head, _, value = text.partition(b":")
        if not mapping and complete(value):
            return None
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
                f" in {head.decode('ascii').strip()}: header are discarded"
            )
        return (field.render(head.decode("ascii")) + "\r\n").encode("utf-8", "surrogateescape")

    def end(self) -> Header:
        """The header is complete: hop count, missing fields. Raises Refused."""
        if self._hops > self._editor.params.hopcount_limit:
            LOG.warning(f"{self._queue_id}: message rejected: hopcount exceeded")
            raise Refused(CleanupStatus.HOPS, "5.4.0", "too many hops")
        seen, ids = self._seen, self._ids
        missing, added = self._editor.missing.make(seen, self._envelope, self._queue_id)
        if added:
            ids.see(added.encode("utf-8", "surrogateescape"), resent=bool(seen & REDISTRIBUTION))
        if not ids.any:
            LOG.event(MessageId(self._queue_id, "<>", resent=False))
        mime = not seen.isdisjoint(_MIME)
        if self._envelope.flags & ~self._flags & _REQUIRETLS and self._editor.requires_tls:
            missing += _REQUIRED
        return Header(missing, ids.value, mime, self._eightbit, self._composite, self._flags)


class _MessageIds:
    """The Message-Id fields of a header. value: of the last one; any: there was one."""

    __slots__ = ("_queue_id", "any", "value")

    def __init__(self, queue_id: QueueId) -> None:
        self._queue_id = queue_id
        self.value = ""
        self.any = False

    def see(self, text: bytes, *, resent: bool) -> None:
        """Log a Message-Id, and remember it unless it is Resent-. text: what follows the colon."""
        value = text.strip().decode("utf-8", "surrogateescape")
        if "\r" in value:
            value = _FOLD.sub(" ", value)
        LOG.event(MessageId(self._queue_id, value, resent))
        if not resent:
            self.value = reply_text(value)
            self.any = True
