"""One message on its way into the queue: from the file's creation to the answer.

The order of writes: the file is created with mode 0600 in incoming, its content and envelope are
written, it gets mode 0700, fsync; only then the client is told and qmgr may see it. Whatever fails
before that removes the file. What need not wait for the disk is done
`meanwhile`: the file of the client's next message.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from daemons.cleanup.envelope_limits import envelope_fault, recipient_fault
from daemons.cleanup.final import Findings, final_envelope
from daemons.cleanup.header import Header, HeaderEdit, HeaderEditor
from daemons.cleanup.inspection import Discarded, Inspection, Inspector, RequestedActions
from daemons.cleanup.mapping import AddressMapper
from daemons.cleanup.milters import FileContent, MilterSelection
from daemons.cleanup.params import CleanupParams
from daemons.cleanup.parts import PartHeaders
from daemons.cleanup.raw import RawRules, Stage
from daemons.cleanup.recipients import BccTables, RecipientList, map_sender
from daemons.cleanup.reports import Reports
from daemons.cleanup.size import exceeds
from daemons.cleanup.status import (
    Refused,
    bad_recipient,
    bad_sender,
    not_returned,
    refused_by_system,
)
from libmail.clients.milter import MilterLink
from libmail.files.commit import GroupCommit
from libmail.ipc.messages import (
    CleanupAmend,
    CleanupFlag,
    CleanupResult,
    CleanupStatus,
    Envelope,
    EnvelopeFlag,
    QueueId,
    Recipient,
)
from libmail.log import LOG
from libmail.log.events import QueueRemoved
from libmail.message.content import ContentScan
from libmail.message.headers import Batch
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFileWriter
from libmail.queue.spare import SpareSupply
from libmail.smtp.address import address_fault

__all__ = ["Message", "Shared"]

# As plain integers, which are much cheaper to test than members of an IntFlag.
_BOUNCE: Final = int(CleanupFlag.BOUNCE)
_DISCARD: Final = int(CleanupFlag.DISCARD)
_HOLD: Final = int(CleanupFlag.HOLD)
_MAP: Final = int(CleanupFlag.MAP)
_UNLIMITED: Final = int(CleanupFlag.UNLIMITED)
_SMTPUTF8_AUTODETECT: Final = int(CleanupFlag.SMTPUTF8_AUTODETECT)
_EIGHTBIT_HEADER: Final = int(ContentFlag.EIGHTBIT_HEADER)
_EIGHTBIT_BODY: Final = int(ContentFlag.EIGHTBIT_BODY)
_LONG_LINES: Final = int(ContentFlag.LONG_LINES)
_DOT_LINES: Final = int(ContentFlag.DOT_LINES)
_MIME_CONTENT: Final = int(ContentFlag.MIME_CONTENT)
_DSN_HEADERS: Final = int(EnvelopeFlag.DSN_HEADERS)
_LOCAL: Final = int(EnvelopeFlag.LOCAL)

_MAX_RECIPIENTS: Final = 1_000_000
# Reasons for which the sender gets the message back, where the client asks for that.
_BOUNCED: Final = (
    CleanupStatus.SIZE | CleanupStatus.CONTENT | CleanupStatus.HOPS | CleanupStatus.RECIPIENTS
)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all messages of the process share: parameters, tables, clients of other services."""

    params: CleanupParams
    directory: QueueDirectory
    supply: SpareSupply
    mapper: AddressMapper
    editor: HeaderEditor
    inspector: Inspector
    raw: RawRules
    bcc: BccTables
    commit: GroupCommit
    reports: Reports
    milters: MilterSelection


def new_file(shared: Shared) -> QueueFileWriter:
    """An empty file in the incoming queue. Raises OSError."""
    return QueueFileWriter(
        shared.directory,
        "incoming",
        long_ids=shared.params.enable_long_queue_ids,
        supply=shared.supply,
    )


class _Stages(NamedTuple):
    """What the content goes through on its way into the file."""

    raw: Stage
    inspection: Inspection | None
    edit: HeaderEdit


def _passed(stages: _Stages | None) -> bool:
    """Whether a table wants nothing more to be checked, by Milters neither."""
    return bool(stages and stages.inspection and stages.inspection.actions.passed)


def _own_field(stages: _Stages | None) -> bytes:
    """The Received: field of this system, b"" if there is none."""
    return stages.edit.own if stages else b""


class Message:
    """One message on its way into the queue. `finish` or `discard` ends it.

    The first problem is remembered, not raised: the client hears of it at the end of the content.
    """

    def __init__(self, shared: Shared, flags: int, writer: QueueFileWriter) -> None:
        """writer: of a new file, which is the message's from now on."""
        self._shared = shared
        self._flags = flags
        self._writer = writer
        # Called while fsync is under way; gives the queue id of the client's next message.
        self.meanwhile: Callable[[], QueueId] | None = None
        self._next_id = QueueId("")
        self.queue_id = writer.queue_id
        self._open = True
        self.queued = False  # durable, and in the incoming queue
        self._envelope: Envelope | None = None
        self._recipients: list[Recipient] = []
        self._expanded: RecipientList | None = None
        self._refused: Refused | None = None
        self._size = 0
        self._limit = 0 if flags & _UNLIMITED else shared.params.message_size_limit
        # of the content: its header until that is complete, then the last octets of the body
        self._stages: _Stages | None = None
        self._scan = ContentScan()
        self._reader = shared.editor.reader()
        self._header: Header | None = None
        self._body_inspection: Inspection | PartHeaders | None = None
        self._tail = b""
        self._content_flags = 0
        self.links: list[MilterLink] = []  # Milters of the session

    async def envelope(self, envelope: Envelope) -> None:
        """The envelope, before recipients and content."""
        self._flags |= envelope.cleanup_flags
        if not envelope.arrival:
            envelope = envelope._replace(arrival=time.time())
        self._envelope = envelope
        fault = envelope_fault(envelope)
        if fault is not None:
            self._flags &= ~_BOUNCE  # there is no sender to return it to
            self.refuse(fault)
            return
        try:
            sender = await map_sender(
                self._shared.mapper, self._flags, self.queue_id, envelope.sender
            )
            if sender != envelope.sender and address_fault(sender):  # a domain was added
                raise bad_sender()
        except Refused as err:
            if err.status is CleanupStatus.CONTENT:
                self._flags &= ~_BOUNCE
            self.refuse(err)
        else:
            if envelope.verp_delims and not sender:
                LOG.warning(f"{self.queue_id}: ignoring VERP request for null sender")
                self._envelope = envelope = envelope._replace(verp_delims="")
            if sender != envelope.sender:
                self._envelope = envelope._replace(sender=sender)

    def recipients(self, recipients: tuple[Recipient, ...]) -> None:
        """More recipients, between the envelope and the content."""
        if len(self._recipients) + len(recipients) > _MAX_RECIPIENTS:
            self.refuse(Refused(CleanupStatus.BAD, "4.5.3", "too many recipients"))
        elif any(map(recipient_fault, recipients)):
            self.refuse(bad_recipient())
        elif self._refused is None or self._flags & _BOUNCE:
            self._recipients += recipients

    async def amend(self, amendment: CleanupAmend) -> None:
        """A change that the client decided on after it had sent the envelope and the content."""
        self._flags |= amendment.cleanup_flags
        if self._refused is not None or self._flags & _DISCARD:
            return
        try:
            envelope = self._require_envelope()
            found = self._expanded or await self._expand_recipients(envelope)
            await found.add_more(amendment.recipients)
            if amendment.redirect:
                await found.redirect(amendment.redirect)
        except Refused as err:
            self.refuse(err)
            return
        if amendment.content_filter:
            self._envelope = envelope._replace(content_filter=amendment.content_filter)

    def refuse(self, err: Refused) -> None:
        """Remember the first problem; later content is ignored."""
        if self._refused is None:
            self._refused = err

    # content

    async def content(self, data: bytes) -> None:
        """A piece of content."""
        if self._refused is not None or self._flags & _DISCARD:
            return
        self._size += len(data)
        try:
            stages = self._stages or await self._begin_content()
            await self._take(stages, stages.raw.feed(data))
            if self._limit and self._size > self._limit:
                raise self._too_large()
        except Discarded:
            self._flags |= _DISCARD
        except Refused as err:
            self.refuse(err)
        except OSError as err:
            LOG.warning(f"{self.queue_id}: write queue file: {err.strerror}")
            self.refuse(refused_by_system(err))

    async def _begin_content(self) -> _Stages:
        envelope, shared = self._require_envelope(), self._shared
        found = self._expanded or await self._expand_recipients(envelope)
        flags, last, queue_id = self._flags, found.last, self.queue_id
        inspection = shared.inspector.begin(flags, envelope, last, queue_id)
        mapping = bool(flags & _MAP)
        edit = shared.editor.begin(envelope, queue_id, mapping=mapping, inspection=inspection)
        raw = shared.raw.begin(flags, envelope, last, queue_id)
        self._stages = _Stages(raw, inspection, edit)
        return self._stages

    def _too_large(self) -> Refused:
        LOG.warning(f"{self.queue_id}: queue file size limit exceeded")
        return Refused(CleanupStatus.SIZE, "5.3.4", "message file too big")

    async def _take(self, stages: _Stages, data: bytes) -> None:
        if self._header is None:
            await self._take_header(stages, self._reader.feed(data))
        else:
            await self._body(data)

    async def _take_header(self, stages: _Stages, batch: Batch) -> None:
        """More of the header, perhaps with its end and the beginning of the body."""
        data, found, end, complete = batch
        if found:
            try:
                edited = await stages.edit.edit(data, found, end)
            except Refused:
                self._writer.write_header(data[:end])  # for the report to the sender
                raise
            self._write_header(edited)
        if complete:
            rest = data[end:]
            extra = b""
            if rest and not rest.startswith(b"\r\n"):
                extra = self._shared.editor.non_empty_end()
                rest = b"\r\n" + rest
            self._end_header(stages.edit.end(), extra)
            if stages.inspection is None:
                self._body_inspection = stages.edit.end_of_fields()
            elif await stages.inspection.end_header():
                self._body_inspection = stages.inspection
            await self._body(rest)

    def _write_header(self, data: bytes) -> None:
        self._scan.feed(data)
        self._writer.write_header(data)

    def _end_header(self, header: Header, extra: bytes) -> None:
        self._header = header
        if header.data or extra:
            self._write_header(header.data + extra)
        if self._scan.eightbit:
            self._content_flags |= _EIGHTBIT_HEADER
            self._scan.eightbit = False
        if header.mime:
            self._content_flags |= _MIME_CONTENT

    async def _body(self, data: bytes) -> None:
        if data:
            self._tail = data[-2:] if len(data) > 1 else (self._tail + data)[-2:]
            if self._body_inspection is not None:
                data = await self._body_inspection.body(data)
            self._write_body(data)

    def _write_body(self, data: bytes) -> None:
        if data:
            self._scan.feed(data)
            self._writer.write_body(data)

    async def _end_content(self) -> None:
        stages = self._stages or await self._begin_content()
        rest = stages.raw.end()
        if rest:
            await self._take(stages, rest)
        if self._header is None:
            await self._take_header(stages, self._reader.end())
        elif self._tail and self._tail != b"\r\n":
            await self._body(b"\r\n")
        if self._body_inspection is not None:
            self._write_body(await self._body_inspection.end())
        scan = self._scan
        self._content_flags |= _EIGHTBIT_BODY * scan.eightbit | _LONG_LINES * scan.long_lines
        self._content_flags |= _DOT_LINES * scan.dots
        if stages.inspection is not None:
            await self._apply(stages.inspection.actions)

    async def _apply(self, actions: RequestedActions) -> None:
        """What tables want done with the whole message."""
        envelope = self._require_envelope()
        await actions.apply(self._expanded or await self._expand_recipients(envelope))
        if actions.hold:
            self._flags |= _HOLD
        if actions.content_filter:
            self._envelope = envelope._replace(content_filter=actions.content_filter)

    def _require_envelope(self) -> Envelope:
        if self._envelope is None:
            raise Refused(CleanupStatus.BAD, "4.3.0", "internal protocol error")
        return self._envelope

    # the end

    async def finish(self) -> CleanupResult:
        """The content is complete: make the message durable, or say why not.

        Afterwards the file is closed; with status 0 it stays, unless it was to be discarded.
        """
        try:
            if self._refused is None and not self._flags & _DISCARD:
                await self._end_content()
                if (self.links or self._shared.milters.others) and not _passed(self._stages):
                    await self._show_to_milters()
            if self._flags & _DISCARD:
                self.discard("discarded")
            elif self._refused is None:
                await self._commit()
        except Discarded:
            self.discard("discarded")
        except Refused as err:
            self.refuse(err)
        except OSError as err:
            LOG.warning(f"{self.queue_id}: write queue file: {err.strerror}")
            self.refuse(refused_by_system(err))
        refused = self._refused
        if refused is not None and self._returns(refused):
            refused = None if await self._bounce(refused) else not_returned()
        if refused is None:
            return CleanupResult(0, "", "", self.queue_id, 0, self._next_id)
        self.discard()
        status, dsn, reason, code = refused.status, refused.dsn, refused.reason, refused.code
        return CleanupResult(int(status), dsn, reason, self.queue_id, code, self._next_id)

    async def _show_to_milters(self) -> None:
        """Milters inspect the complete message, and may change it."""
        milters = await self._shared.milters.for_message(self.links, self._flags)
        if milters is None:
            return
        self.links = []
        content = FileContent(self._writer, self._content_flags, _own_field(self._stages))
        envelope, held = self._require_envelope(), bool(self._flags & _HOLD)
        found = self._expanded or await self._expand_recipients(envelope)
        outcome = await milters.inspect(self.queue_id, envelope, content, found, held=held)
        self._content_flags = content.flags
        self._flags |= _HOLD * outcome.hold
        self._envelope = envelope._replace(sender=outcome.sender)
        if outcome.actions is not None:
            await self._apply(outcome.actions)

    async def _expand_recipients(self, envelope: Envelope) -> RecipientList:
        """Map and expand the recipients, when all are known: at the begin of the content."""
        shared = self._shared
        local = bool(envelope.flags & _LOCAL)
        found = RecipientList(
            shared.params, shared.mapper, shared.bcc, self._flags, self.queue_id, local=local
        )
        await found.add_all(self._recipients, envelope.sender)
        if envelope.redirect:
            await found.redirect(envelope.redirect)
        self._expanded = found
        return found

    async def _commit(self) -> None:
        envelope, shared = self._require_envelope(), self._shared
        found = self._expanded or await self._expand_recipients(envelope)
        recipients = found.recipients
        if not recipients:
            raise Refused(CleanupStatus.RECIPIENTS, "5.1.0", "no recipients specified")
        if found.expanded:
            await shared.reports.expanded(self.queue_id, found.expanded)
        writer = self._writer
        size = writer.header.length + writer.body.length
        if self._limit and exceeds(self._limit, size, self.queue_id, envelope, recipients):
            raise self._too_large()
        if self._flags & _HOLD:
            writer.rename("hold")
        final = final_envelope(envelope, recipients, shared.params, self._findings(found))
        writer.complete(final, recipients, self._content_flags)
        durable = shared.commit.fsync(writer.fd)
        if self.meanwhile is not None:
            asyncio.get_running_loop().call_soon(self._prepare_next, self.meanwhile)
        await durable
        writer.close()
        self._open = False
        self.queued = writer.queue_name == "incoming"

    def _prepare_next(self, meanwhile: Callable[[], QueueId]) -> None:
        """Called when the disk has begun to work."""
        self._next_id = meanwhile()

    def _findings(self, found: RecipientList) -> Findings:
        header, autodetect = self._header, bool(self._flags & _SMTPUTF8_AUTODETECT)
        if header is None:
            raise AssertionError("before the end of the header")
        expanded, redirect = bool(found.expanded), found.redirected
        return Findings(self._content_flags, header, expanded, autodetect, redirect)

    def _returns(self, err: Refused) -> bool:
        """Whether the message is to be returned to its sender instead of refused."""
        return bool(
            self._envelope is not None
            and self._recipients
            and err.status & _BOUNCED
            and self._flags & _BOUNCE
        )

    async def _bounce(self, err: Refused) -> bool:
        """Return the message to its sender. False: not possible now."""
        writer, envelope = self._writer, self._require_envelope()
        try:
            writer.rename("hold")  # where bounce can read it and qmgr does not look
            writer.complete(envelope, (), self._content_flags)
        except OSError as system:
            LOG.warning(f"{self.queue_id}: write queue file: {system.strerror}")
            return False
        if err.status & (CleanupStatus.SIZE | CleanupStatus.CONTENT):  # not sent back whole
            envelope = envelope._replace(flags=envelope.flags | _DSN_HEADERS)
        found = self._expanded
        done = await self._shared.reports.bounce(
            self.queue_id, writer.queue_name, envelope,
            self._recipients if found is None else found.recipients, err,
        )  # fmt: skip
        if done:
            self.discard("discarded")
        return done

    def discard(self, why: Literal["canceled", "discarded"] = "canceled") -> None:
        """Remove the file, unless the message has been accepted. Never raises. why: for the log."""
        for link in self.links:
            link.close(goodbye=False)
        if not self._open:
            return
        self._open = False
        try:
            self._writer.discard()
        except OSError as err:
            LOG.warning(f"{self.queue_id}: remove queue file: {err.strerror}")
        LOG.event(QueueRemoved(self.queue_id, why))
