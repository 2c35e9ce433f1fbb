"""Milters inspect a message: its header and body, and at its end they may change everything.

Mail from smtpd(8) comes with the Milter connections of its session, which have seen the envelope.
For other mail, with non_smtpd_milters, an SMTP session is simulated that could have brought it.
Each Milter sees the whole message with the changes of those before it. The body stays in the queue
file: it is read in pieces, and a new body is appended to the file. A Milter that breaks off amid
its changes has changed nothing: half of them could be half a body.

A message that is refused or discarded in the end may have been changed: its file is removed anyway.

Macros of the content and of simulated sessions are in `_MilterInspection._macro`, those of an SMTP
session in daemons.smtpd.milters, those of the configuration in libmail.clients.milters.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from daemons.cleanup.envelope_limits import recipient_fault
from daemons.cleanup.events import MilterLine
from daemons.cleanup.inspection import Discarded, Inspection, Inspector, RequestedActions
from daemons.cleanup.recipients import RecipientList
from daemons.cleanup.status import Refused
from libmail.clients.milter import MilterLink
from libmail.clients.milters import MilterChain, Milters
from libmail.ipc.messages import CleanupFlag, CleanupStatus, DsnNotify, Envelope, QueueId, Recipient
from libmail.log import LOG
from libmail.lookup.facts import END_OF_MESSAGE
from libmail.message.addresses import AddressField
from libmail.message.content import ContentScan
from libmail.milter.conversation import PASS, Act, Decision, Event
from libmail.milter.header import HeaderFields, header_field
from libmail.milter.protocol import (
    BODY_CHUNK,
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    Command,
    DeleteRecipient,
    Edit,
    InsertHeader,
    Quarantine,
    ReplaceBody,
    connection,
    header_event,
    strings,
)
from libmail.milter.settings import MilterSettings
from libmail.queue.file import ContentFlag, Extent, QueueFileWriter
from libmail.smtp.address import (
    AddressSyntax,
    address_fault,
    parse_parameters,
    parse_path,
    quote_local,
)

__all__ = ["FileContent", "MessageMilters", "MilterSelection", "Outcome"]

_PIECE: Final = BODY_CHUNK
_NOTIFY: Final = {
    "SUCCESS": DsnNotify.SUCCESS,
    "FAILURE": DsnNotify.FAILURE,
    "DELAY": DsnNotify.DELAY,
}
# Attributes of enumerations are slow.
_HEADER: Final = Command.HEADER
_END_OF_HEADER: Final = Command.END_OF_HEADER
_BODY: Final = Command.BODY
_END_OF_BODY: Final = Command.END_OF_BODY
_EIGHTBIT_HEADER: Final = int(ContentFlag.EIGHTBIT_HEADER)
_EIGHTBIT_BODY: Final = int(ContentFlag.EIGHTBIT_BODY)
_LONG_LINES: Final = int(ContentFlag.LONG_LINES)
_DOT_LINES: Final = int(ContentFlag.DOT_LINES)
_MIME_CONTENT: Final = int(ContentFlag.MIME_CONTENT)
_OF_BODY: Final = _EIGHTBIT_BODY | _LONG_LINES | _DOT_LINES
_MIME: Final = re.compile(rb"(?im)^(?:mime-version|content-type)[ \t]*:")
_TURN: Final = 64  # events or changes, after which other messages have their turn
_MAX_ADDRESS: Final = 1 << 12  # characters that a Milter may write for one
_MILTER: Final = int(CleanupFlag.MILTER)
_FieldEdit: TypeAlias = AddHeader | InsertHeader | ChangeHeader
_LOCAL_CLIENT: Final = ("localhost", "127.0.0.1")


class FileContent:
    """Header and body of a queue file that is being written, for Milters to read and replace.

    flags: ContentFlag bits, kept up to date. own: the field that this system has put on top, which
    they do not see.
    """

    def __init__(self, file: QueueFileWriter, flags: int, own: bytes) -> None:
        self._file = file
        self.own = own
        self._scan = ContentScan()
        self._line_ends = _LineEnds()
        self.flags = flags

    def header(self) -> bytes:
        """The header in wire form."""
        return self._file.read(*self._file.header)

    def replace_header(self, data: bytes) -> None:
        """Replace the header; wire form."""
        self.flags &= ~_EIGHTBIT_HEADER
        if not data.isascii():
            self.flags |= _EIGHTBIT_HEADER
        if _MIME.search(data):
            self.flags |= _MIME_CONTENT
        self._file.replace_header(data)

    def body_size(self) -> int:
        """Octets, with the empty line before it."""
        return self._file.body.length

    def read_body(self, offset: int, length: int) -> bytes:
        """A piece of the body."""
        return self._file.read(self._file.body.offset + offset, length)

    def body_state(self) -> tuple[Extent, int]:
        """What `restore_body` takes; the body stays in the file when there is another."""
        return self._file.body, self.flags

    def restore_body(self, state: tuple[Extent, int]) -> None:
        """The body that there was."""
        self._file.body, self.flags = state

    def begin_body(self) -> None:
        """Begin a new body, which `write_body` fills."""
        self._scan, self._line_ends = ContentScan(), _LineEnds()
        self.flags &= ~_OF_BODY
        self._file.begin_body(b"\r\n")

    def write_body(self, data: bytes) -> None:
        """A piece of the new body, with line ends of any kind."""
        self._write(self._line_ends.feed(data))

    def end_body(self) -> None:
        """The new body is complete."""
        self._write(self._line_ends.end())
        scan = self._scan
        self.flags |= _EIGHTBIT_BODY * scan.eightbit | _LONG_LINES * scan.long_lines
        self.flags |= _DOT_LINES * scan.dots

    def _write(self, data: bytes) -> None:
        if data:
            self._scan.feed(data)
            self._file.write_body(data)


class _LineEnds:
    """Makes every line end CRLF, over pieces; a CR that ends no line becomes a space."""

    def __init__(self) -> None:
        self._held = b""  # a final CR, which may belong to the next piece
        self._last = b"\n"

    def feed(self, data: bytes) -> bytes:
        """The next piece."""
        data, self._held = self._held + data, b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        if data:
            self._last = data[-1:]
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b" ")
        return data.replace(b"\n", b"\r\n")

    def end(self) -> bytes:
        """The line end that the last line lacks, if any."""
        return b"" if self._last == b"\n" and not self._held else b"\r\n"


@dataclass(slots=True)
class Outcome:
    """The decisions of Milters, besides changes of content and recipients.

    actions: of milter_header_checks.
    """

    hold: bool
    sender: str
    actions: RequestedActions | None = None


class _Before(NamedTuple):
    """A message before a Milter has changed it."""

    outcome: Outcome
    header: HeaderFields
    body: tuple[Extent, int]
    recipients: list[Recipient]
    added: list[Recipient]


class MilterSelection:
    """Chooses the Milters of each message."""

    def __init__(
        self,
        milters: Milters,
        others: Sequence[MilterSettings],
        inspector: Inspector | None = None,
    ) -> None:
        """others: non_smtpd_milters. inspector: of the fields that they make."""
        self.milters = milters
        self.others = others
        self._inspector = inspector

    async def for_message(self, links: Sequence[MilterLink], flags: int) -> "MessageMilters | None":
        """The Milters that see a message, None if there are none.

        links: those of the SMTP session that brought it. flags: CleanupFlag bits.
        """
        if links:
            return MessageMilters(self.milters, links, self._inspector, flags, simulated=False)
        if not self.others or not flags & _MILTER:
            return None
        ours = [MilterLink(one) for one in self.others]
        for link in ours:
            await link.open(self.milters.dial(link.settings))
        return MessageMilters(self.milters, ours, self._inspector, flags, simulated=True)


class MessageMilters:
    """The Milters of one message."""

    def __init__(
        self,
        milters: Milters,
        links: Sequence[MilterLink],
        inspector: Inspector | None,
        flags: int,
        *,
        simulated: bool,
    ) -> None:
        """inspector: of the fields that they make. flags: CleanupFlag bits of the message.

        simulated: there was no SMTP session, so that one has to be simulated first.
        """
        self._links = links
        self._inspector = inspector
        self._flags = flags
        self._simulated = simulated
        self._chain = MilterChain(milters, links)

    async def inspect(
        self,
        queue_id: QueueId,
        envelope: Envelope,
        content: FileContent,
        recipients: RecipientList,
        *,
        held: bool,
    ) -> Outcome:
        """Report the message to each Milter. held: it is on hold already.

        Raises Refused, Discarded.
        """
        one = _MilterInspection(self._chain, queue_id, envelope, content, recipients)
        if self._inspector is not None:
            one.check_fields(self._inspector, self._flags)
        one.outcome.hold = held
        try:
            if self._simulated:
                await one.simulate()
            for link in self._links:
                await one.show(link)
            await one.apply()
        finally:
            for link in self._links:
                link.close(goodbye=self._simulated)  # those of a session go on in smtpd(8)
        return one.outcome


class _MilterInspection:
    """One message while Milters inspect it: what they see, and what they have changed."""

    def __init__(
        self,
        chain: MilterChain,
        queue_id: QueueId,
        envelope: Envelope,
        content: FileContent,
        recipients: RecipientList,
    ) -> None:
        self._chain = chain
        self._queue_id = queue_id
        self._envelope = envelope
        self._content = content
        self._recipients = recipients
        self._header = HeaderFields(content.header(), own=content.own)
        self._header_changed = False
        self._before: _Before | None = None  # before the changes of the current Milter
        self._new_body = False  # the current Milter has begun to replace the body
        self._added: list[Recipient] = []
        self._checks: Inspection | None = None  # of fields that a Milter makes
        self._unchecked: list[_FieldEdit] = []
        self._told: dict[str, str] = {}  # macros of the envelope, in a simulated session
        self._log_recipient = recipients.last
        self._addressed = bool(recipients.recipients)
        self.outcome = Outcome(hold=False, sender=envelope.sender)

    def check_fields(self, inspector: Inspector, flags: int) -> None:
        """Have fields inspected that Milters make."""
        self._checks = inspector.begin(flags, self._envelope, self._recipients.last, self._queue_id)
        if self._checks is not None:
            self.outcome.actions = self._checks.actions

    # the simulated session

    async def simulate(self) -> None:
        """Report the events of a session that could have brought the message."""
        envelope = self._envelope
        name, address = _client(envelope)
        client = connection(name, address, envelope.client_port)
        last, self._log_recipient = self._log_recipient, ""
        await self._tell_all(Command.CONNECT, client, "CONNECT")
        await self._tell_all(Command.HELO, strings(envelope.helo_name or name), "HELO")
        self._told = {"mail_addr": envelope.sender}
        await self._tell_all(Command.MAIL, strings(quote_local(envelope.sender)), "MAIL")
        for address in self._recipients.given:
            self._told["rcpt_addr"] = self._log_recipient = address
            await self._tell_all(Command.RCPT, strings(quote_local(address)), "RCPT")
        self._log_recipient = last
        await self._tell_all(Command.DATA, b"", "DATA")

    async def _tell_all(self, command: Command, data: bytes, where: str) -> None:
        self._decide(await self._chain.event(command, data, self._macro), where)

    # the content

    async def show(self, link: MilterLink) -> None:
        """Report the message as it is now to one Milter, and take its changes.

        Raises Refused, Discarded.
        """
        macros = self._chain.milters.macros
        at_header = macros(link, _END_OF_HEADER, self._macro)
        at_end = macros(link, _END_OF_BODY, self._macro)
        events = self._content_events(link, at_header, at_end)
        while portion := _portion(events):
            self._decide(await link.events(portion), END_OF_MESSAGE)
            if len(portion) == _TURN:
                await asyncio.sleep(0)
        self._new_body, self._before = False, None
        decision = await link.event(_END_OF_BODY, b"", at_end, partial(self._change, link))
        if link.failed:
            self._undo()
        else:
            await self._check_changes()
            if self._new_body:
                self._content.end_body()
        self._decide(decision, END_OF_MESSAGE)

    def _content_events(
        self, link: MilterLink, at_header: bytes | None, at_end: bytes | None
    ) -> Iterator[Event]:
        """What a Milter is told before the end of the message, as long as it wants that.

        at_header, at_end: macros.
        """
        spaced = link.leading_space
        for number, (name, value) in enumerate(self._header.shown()):
            if not (number % _TURN or link.wants(_HEADER)):
                break
            if not spaced and value[:1] == b" ":
                value = value[1:]
            yield _HEADER, header_event(name, value), at_header
        yield _END_OF_HEADER, b"", at_header
        size = self._content.body_size()
        at = min(2, size)  # the empty line
        while at < size and link.wants(_BODY):
            data = self._content.read_body(at, min(_PIECE, size - at))
            yield _BODY, data, at_end
            at += len(data)

    def _decide(self, decision: Decision, where: str) -> None:
        """Raises Refused, Discarded."""
        if decision is PASS:
            return
        match decision.act:
            case Act.HOLD:
                self._hold()
            case Act.DISCARD:
                self._log("milter-discard", where, "milter triggers DISCARD action")
                raise Discarded
        reply = decision.reply
        if reply is None:
            return
        lines = reply.wire().decode("utf-8", "surrogateescape").removesuffix("\r\n")
        self._log("milter-reject", where, lines[len("550 ") :].replace("\r\n", "??"))
        permanent = reply.code >= 500
        status = CleanupStatus.CONTENT if permanent else CleanupStatus.DEFER
        # A report needs an enhanced status code, a reply has what the Milter says.
        dsn = f"{reply.code // 100}.7.1" if self._told and not reply.dsn else reply.dsn
        raise Refused(status, dsn, reply.text, code=reply.code)

    def _hold(self) -> None:
        if not self.outcome.hold:
            self._log("milter-hold", END_OF_MESSAGE, "milter triggers HOLD action")
        self.outcome.hold = True

    def _log(self, action: str, where: str, what: str) -> None:
        envelope = self._envelope
        name, address = _client(envelope)
        LOG.event(
            MilterLine(
                queue_id=self._queue_id,
                action=action,
                where=where,
                client=f"{name}[{address}]",
                what=what,
                sender=envelope.sender,
                recipient=self._log_recipient,
                protocol=envelope.protocol_name,
                helo_name=envelope.helo_name,
            )
        )

    # changes

    def _change(self, link: MilterLink, edit: Edit) -> None:
        if self._before is None:
            self._before = self._state()
        match edit:
            case AddHeader() | InsertHeader() | ChangeHeader():
                spaced = edit if _removes(edit) else _spaced(link, edit)
                if self._checks is None:
                    self._change_field(spaced, spaced.name)
                else:
                    self._unchecked.append(spaced)
            case ReplaceBody(data):
                self._replace_body(data)
            case AddRecipient(address, arguments):
                self._add_recipient(link, address, arguments)
            case DeleteRecipient(address):
                self._delete_recipient(_plain(address) or address)
            case ChangeSender(address, _):
                self._change_sender(link, address)
            case Quarantine():
                self._hold()

    def _change_field(self, edit: _FieldEdit, name: bytes) -> None:
        """name: of the field that is made."""
        header = self._header
        self._header_changed = True
        match edit:
            case AddHeader(_, value):
                header.add(name, value)
            case InsertHeader(position, _, value):
                header.insert(position, name, value)
            case ChangeHeader(position, old_name, value):
                header.change(position, old_name, value, name)

    async def _check_changes(self) -> None:
        """Make the changes of fields that milter_header_checks let pass."""
        edits, self._unchecked = self._unchecked, []
        for number, edit in enumerate(edits):
            await self._check_change(edit)
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)

    async def _check_change(self, edit: _FieldEdit) -> None:
        """Raises Refused, Discarded."""
        made = header_field(edit.name, edit.value)
        if self._checks is not None and not _removes(edit):
            made = await self._checks.made_field(made)
        if made:
            name, _, value = made.removesuffix(b"\r\n").partition(b":")
            self._change_field(edit._replace(value=value), name.rstrip())

    def _state(self) -> _Before:
        return _Before(
            Outcome(self.outcome.hold, self.outcome.sender, self.outcome.actions),
            self._header.copy(),
            self._content.body_state(),
            self._recipients.recipients.copy(),
            self._added.copy(),
        )

    def _undo(self) -> None:
        """The Milter at hand has broken off."""
        self._unchecked.clear()
        before = self._before
        if before is not None:
            self.outcome = before.outcome
            self._header = before.header
            self._content.restore_body(before.body)
            self._recipients.recipients = before.recipients
            self._added = before.added

    def _change_sender(self, link: MilterLink, text: str) -> None:
        sender = _plain(text)
        if sender is None:
            self._warn(link, "sender", text)
        else:
            self.outcome.sender = sender

    def _warn(self, link: MilterLink, what: str, text: str) -> None:
        LOG.warning(
            f"{self._queue_id}: milter {link.settings.endpoint}: bad {what}: {text[:100]!a}"
        )

    def _replace_body(self, data: bytes) -> None:
        if not self._new_body:
            self._new_body = True
            self._content.begin_body()
        self._content.write_body(data)

    def _add_recipient(self, link: MilterLink, text: str, arguments: str) -> None:
        address = _plain(text)
        notify, orcpt = _dsn_arguments(arguments)
        recipient = Recipient(address or "", address or "", orcpt, notify)
        if not address or recipient_fault(recipient):
            self._warn(link, "recipient", text)
        else:
            self._added.append(recipient)

    def _delete_recipient(self, address: str) -> None:
        """Also one that a Milter has added."""
        self._recipients.remove(address)
        folded = address.lower()
        self._added = [one for one in self._added if one.address.lower() != folded]

    async def apply(self) -> None:
        """Apply the changes that wait until all Milters are done. Raises Refused, Discarded."""
        if self._header_changed:
            self._content.replace_header(self._header.data())
        if self.outcome.sender != self._envelope.sender:
            self.outcome.sender = await self._recipients.new_sender(self.outcome.sender)
        for recipient in self._added:
            try:
                await self._recipients.add_found(recipient)
            except Refused as refused:
                if refused.status is not CleanupStatus.CONTENT:
                    raise
                # That is not the fault of whoever sends the message.
                shown = recipient.address[:100]
                LOG.warning(f"{self._queue_id}: milter: bad recipient: {shown!a}")
        if self._addressed and not self._recipients.recipients:
            raise Discarded  # they were all taken away

    # macros

    def _macro(self, name: str) -> str | None:
        if name in self._told:
            return self._told[name]
        return self._value(name) or None

    def _value(self, name: str) -> str:
        envelope = self._envelope
        match name:
            case "i":
                return self._queue_id
            case "auth_authen":
                return envelope.sasl_username
            case "auth_author":
                return envelope.sasl_sender
            case "auth_type":
                return envelope.sasl_method
        client, address = _client(envelope)
        return {
            "_": f"{client} [{address}]",
            "client_addr": address,
            "client_name": client,
            "client_port": envelope.client_port,
            "client_ptr": envelope.reverse_client_name or client,
            "daemon_addr": envelope.server_address or _LOCAL_CLIENT[1],
            "daemon_port": envelope.server_port,
        }.get(name, "")


def _client(envelope: Envelope) -> tuple[str, str]:
    """(name, address) of the client; localhost where the mail did not come by SMTP."""
    if not envelope.client_address:
        return _LOCAL_CLIENT
    return envelope.client_name, envelope.client_address


def _plain(text: str) -> str | None:
    """The first address that a Milter gives, internal form; "" for the null address, None for none.

    It may be written as in a header.
    """
    if len(text) > _MAX_ADDRESS or text.count("<") > text.count(">"):
        return None
    if text.lstrip().startswith("<"):
        try:
            address = parse_path(text, utf8=True, strict=False)[0]
        except AddressSyntax:
            return None
    else:
        mailboxes = AddressField(text).mailboxes
        address = mailboxes[0].plain if mailboxes else ""
    return None if address_fault(address) else address


def _dsn_arguments(text: str) -> tuple[int, str]:
    """(DsnNotify bits, ORCPT) of ESMTP arguments; invalid ones are ignored."""
    notify, orcpt = 0, ""
    for name, value in parse_parameters(text):
        if name == "NOTIFY" and value is not None:
            words = value.upper().split(",")
            notify = int(DsnNotify.NEVER) if words == ["NEVER"] else 0
            for word in words:
                notify |= int(_NOTIFY.get(word, 0))
        elif name == "ORCPT" and value is not None:
            orcpt = value
    return notify, orcpt


def _portion(events: Iterator[Event]) -> list[Event]:
    """The next events: some dozens of small ones, or a large one."""
    portion, octets = [], 0
    for event in islice(events, _TURN):
        portion.append(event)
        octets += len(event[1])
        if octets >= _PIECE:
            break
    return portion


def _removes(edit: _FieldEdit) -> bool:
    return isinstance(edit, ChangeHeader) and not edit.value


def _spaced(link: MilterLink, edit: _FieldEdit) -> _FieldEdit:
    """With the space behind the colon, which most Milters leave to us."""
    return edit if link.leading_space else edit._replace(value=b" " + edit.value)
