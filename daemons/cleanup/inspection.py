"""header_checks, body_checks and the strict_* parameters: which content is allowed.

An `Inspector` belongs to the process, an `Inspection` to a message. The latter sees the header
field by field and the body in pieces of any size, parses their MIME structure where a table or
parameter needs that, and returns the content to be written. Actions that concern the whole message
(HOLD, FILTER, REDIRECT, BCC) are collected, and applied at its end. Asks: tables.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from daemons.cleanup.events import MimeErrorLine, check_line, shown_origin
from daemons.cleanup.params import InspectionParams
from daemons.cleanup.recipients import RecipientList
from daemons.cleanup.status import Refused
from libmail.dsn.codes import adapt_class, split_dsn
from libmail.ipc.messages import CleanupFlag, CleanupStatus, Envelope, QueueId
from libmail.log import LOG
from libmail.lookup.content_checks import (
    Action,
    Checked,
    ChecksFailed,
    CheckTables,
    LineChecks,
    Part,
)
from libmail.message.headers import Field, cut_behind_piece
from libmail.message.mime import STRUCTURE, MimeLimits, MimeSplitter, Piece, Place
from libmail.text.printable import printable, printable_octets

__all__ = ["Discarded", "Inspection", "Inspector", "RequestedActions"]

_FILTER: Final = int(CleanupFlag.FILTER)
_BOUNCE: Final = int(CleanupFlag.BOUNCE)
_AT_ONCE: Final = 500  # pieces, after which other sessions have their turn
_SHOWN: Final = 200  # octets of a line in the log
_SHOWN_FAULT: Final = 100  # and of one whose form is wrong
_ENCODED: Final = (b"base64", b"quoted-printable")
_IN_HEADER: Final = "improper use of 8-bit data in message header"
_IN_BODY: Final = "improper use of 8-bit data in message body"
_DOMAIN: Final = "invalid message/* or multipart/* encoding domain"
_NESTING: Final = "MIME nesting exceeds safety limit"
_FAULTS: Final = (_NESTING, _IN_HEADER, _IN_BODY, _DOMAIN)  # the first one is told to the client
_WIDE_OCTET: Final = re.compile(rb"[\x80-\xff]")


class Discarded(Exception):
    """A DISCARD action: the message is to be accepted and dropped."""


class Strictness(NamedTuple):
    """strict_7bit_headers, strict_8bitmime_body and strict_mime_encoding_domain, as they apply."""

    header: bool
    body: bool
    domain: bool


@dataclass(slots=True)
class RequestedActions:
    """Actions of tables that apply to the whole message, once it is complete."""

    hold: bool = False
    content_filter: str = ""
    redirect: str = ""
    bcc: list[str] | None = None
    refused: Refused | None = None  # of a message that goes back to its sender
    passed: bool = False  # Milters need not see it either

    async def apply(self, recipients: RecipientList) -> None:
        """Refuse the message, or change its recipients, as requested. Raises Refused."""
        if self.refused is not None:
            raise self.refused
        for address in self.bcc or ():
            await recipients.add_bcc(address)
        if self.redirect:
            await recipients.redirect(self.redirect)


class Inspector:
    """The checks of a process, for all messages.

    bounded: messages beyond mime_nesting_limit are refused, as their inner headers would escape
    the tables and strict_* parameters. structure: the MIME structure of messages is parsed.
    parts: how far it is, None if not at all (disable_mime_input_processing).
    """

    def __init__(self, params: InspectionParams, tables: CheckTables) -> None:
        self.params: Final = params
        self.tables: Final = tables
        size_limit, line_limit = params.header_size_limit, params.line_length_limit
        self.limits: Final = MimeLimits(
            nesting=params.mime_nesting_limit,
            boundary=params.mime_boundary_length_limit,
            field=size_limit,
            cut=lambda text: cut_behind_piece(text, size_limit, line_limit),
        )
        mime = not params.disable_mime_input_processing
        self.parts: Final = self.limits if mime else None
        both = params.strict_8bitmime
        self.strict: Final = Strictness(
            mime and (both or params.strict_7bit_headers),
            mime and (both or params.strict_8bitmime_body),
            mime and params.strict_mime_encoding_domain,
        )
        headers = bool(tables.header or tables.mime or tables.nested)
        self.bounded: Final = mime and (headers or any(self.strict))
        self.structure: Final = self.bounded or (mime and bool(tables.body))
        self._wanted = tables.any or any(self.strict)

    def begin(
        self, flags: int, envelope: Envelope, recipient: str, queue_id: QueueId
    ) -> "Inspection | None":
        """The inspection of one message; None if it is not to be inspected.

        flags: CleanupFlag bits. recipient: for the log.
        """
        if not self._wanted or not flags & _FILTER:
            return None
        returned = bool(flags & _BOUNCE)
        return Inspection(self, envelope, recipient, queue_id, returned=returned)


class Inspection:
    """The checks of one message. Methods raise Refused and Discarded.

    actions: requested so far; complete after `end`.
    """

    def __init__(
        self, inspector: Inspector, envelope: Envelope, recipient: str, queue_id: QueueId, *,
        returned: bool,
    ) -> None:  # fmt: skip
        """returned: a rejected message is returned to its sender, so it is read to its end."""
        self._word = ""  # in front of what is done, in the log
        self.actions = RequestedActions()
        self._inspector = inspector
        self._envelope = envelope
        self._recipient = recipient
        self._queue_id = queue_id
        self._returned = returned
        self._splitter = MimeSplitter(inspector.limits)
        params = inspector.params
        self._checks = LineChecks(
            inspector.tables, self._log, self._act,
            line_limit=params.line_length_limit, body_limit=params.body_checks_size_limit,
        )  # fmt: skip
        self._in_parts = False  # the body has, and so it is parsed
        self._show = printable if params.smtputf8_enable else printable_octets
        self._rejected: Refused | None = None  # raised when the field at hand is done
        self._faults: set[str] = set()  # of the form; they count when all has been looked at

    # the message header

    def worthwhile(self, data: bytes, found: Sequence[Field]) -> Sequence[Field]:
        """The fields of the message header that `field` has to see, in order."""
        strict = self._inspector.strict.header and not data.isascii()
        if strict or self._splitter.may_go_too_deep(data):
            return found
        looked = self._checks.worthwhile(data, found)
        if len(looked) == len(found):
            return found
        told = {*looked, *(field for field in found if field[0] in STRUCTURE)}
        return [field for field in found if field in told] if told else ()

    async def field(self, data: bytes, field: Field) -> Checked:
        """What to write instead of a field of the message header."""
        (piece,) = self._splitter.fields(data, (field,))
        self._check_field(piece)
        return await self._checked(piece)

    def field_done(self) -> None:
        """The field has been edited, too: a rejection may be raised now."""
        if self._rejected is not None:
            raise self._rejected

    async def end_header(self) -> bool:
        """The message header is complete. Returns whether the body has to be inspected."""
        self._splitter.end_header()
        self._check_domain()
        inspector = self._inspector
        self._in_parts = inspector.structure and not self._splitter.plain
        lines = bool(inspector.tables.body) or inspector.strict.body
        return self._in_parts or lines or bool(self._faults)

    async def made_field(self, data: bytes) -> bytes:
        """What to write instead of a field that a Milter has made, b"" for nothing."""
        self._word = "milter-header-"
        checked = await self._checked(Piece(Place.PRIMARY, data))
        self.field_done()
        if checked.before:
            LOG.warning("the milter_header/body_checks prepend action is not implemented")
        return data if checked.instead is None else checked.instead

    # the body

    async def body(self, data: bytes) -> bytes:
        """What to write of the body now."""
        if self._in_parts:
            return await self._pieces(self._splitter.feed(data))
        return await self._text(data)

    async def end(self) -> bytes:
        """The rest of the body."""
        rest = b""
        if self._in_parts:
            rest = await self._pieces(self._splitter.end())
        try:
            rest += await self._checks.end()
        except ChecksFailed as err:
            raise self._failed(err) from err
        self.field_done()
        self._raise_fault()
        return rest

    async def _pieces(self, pieces: Iterable[Piece]) -> bytes:
        done: list[bytes] = []
        for piece in pieces:
            done.append(await self._piece(piece))
            if len(done) % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return b"".join(done)

    async def _piece(self, piece: Piece) -> bytes:
        place, data = piece
        if place is Place.BODY:
            return await self._text(data)
        try:
            before = await self._checks.end()
            if place is Place.DELIMITER:
                if self._wide_line(data) >= 0:
                    self._mime_error(_IN_BODY, data[:-2])
                return before + await self._checks.delimiter(data)
        except ChecksFailed as err:
            raise self._failed(err) from err
        if place is Place.END:
            self._check_domain()
            return before
        self._check_field(piece)
        checked = await self._checked(piece)
        self.field_done()
        return before + checked.joined(data)

    async def _checked(self, piece: Piece) -> Checked:
        try:
            return await self._checks.check(piece.place, piece.data)
        except ChecksFailed as err:
            raise self._failed(err) from err

    async def _text(self, data: bytes) -> bytes:
        at = self._wide_line(data)
        if at < 0:
            return await self._lines(data)
        before = await self._lines(data[:at]) if at else b""
        self._mime_error(_IN_BODY, data[at : at + _SHOWN_FAULT].partition(b"\r\n")[0])
        return before + await self._lines(data[at:])

    async def _lines(self, data: bytes) -> bytes:
        try:
            checked = await self._checks.body(data)
        except ChecksFailed as err:
            raise self._failed(err) from err
        self.field_done()
        return checked

    def _failed(self, err: ChecksFailed) -> Refused:
        problem = f"{err.title} map lookup problem -- message not accepted, try again later"
        LOG.warning(f"{self._queue_id}: {problem}")
        return Refused(CleanupStatus.WRITE, "4.3.0", "Temporary lookup failure")

    # strict_ parameters and mime_nesting_limit

    def _check_field(self, piece: Piece) -> None:
        if self._inspector.strict.header and not piece.data.isascii():
            self._mime_error(_IN_HEADER, piece.data[:-2])
        if self._splitter.too_deep and self._inspector.bounded:
            self._mime_error(_NESTING, piece.data[:-2])

    def _wide_line(self, data: bytes) -> int:
        """Where the first line of the body begins that is wrong by its octets; -1: none is."""
        strict = self._inspector.strict.body and _IN_BODY not in self._faults
        if not strict or data.isascii() or not self._splitter.narrow_body:
            return -1
        found = _WIDE_OCTET.search(data)
        return -1 if found is None else data.rfind(b"\n", 0, found.start()) + 1

    def _check_domain(self) -> None:
        """RFC 2045 §6.4, RFC 2046 §5.2: what is made of parts has no encoding of its own."""
        kind, encoding = self._splitter.type, self._splitter.encoding
        if self._inspector.strict.domain and (
            (kind.holds_parts and encoding in _ENCODED) or (kind.is_7bit and self._splitter.wide)
        ):
            self._mime_error(_DOMAIN, encoding)

    def _mime_error(self, reason: str, text: bytes) -> None:
        """The form is wrong: each fault is told once, and the message is looked at to its end."""
        if reason in self._faults:
            return
        self._faults.add(reason)
        line = text[: 2 * _SHOWN_FAULT].replace(b"\r\n", b"\n")[:_SHOWN_FAULT]
        shown = self._show(line.decode("utf-8", "surrogateescape"))
        sender, origin = self._envelope.sender, shown_origin(self._envelope)
        LOG.event(MimeErrorLine(self._queue_id, reason, shown, origin, sender, self._recipient))

    def _raise_fault(self) -> None:
        """Refuse the message for its form, unless that has been done for its content."""
        if not self._faults or self.actions.refused is not None:
            return
        reason = next(fault for fault in _FAULTS if fault in self._faults)
        err = Refused(CleanupStatus.CONTENT, "5.6.0", reason)
        if not self._returned:
            raise err
        self.actions.refused = err

    # actions

    def _log(self, word: str, part: Part, text: str) -> None:
        shown, action = self._show(part.line[:_SHOWN]), self._word + word
        LOG.event(
            check_line(
                self._envelope, self._queue_id, self._recipient, action, part.where, shown,
                self._show(text),
            )
        )  # fmt: skip

    async def _act(self, action: Action, part: Part) -> None:
        """Carry out an action that is not about the line itself."""
        handle = _ACTIONS.get(action.verb)
        if handle is None or (self._word and action.verb == "PASS"):  # others have written the rest
            known = "unsupported" if self._word else "unknown"
            LOG.warning(f"{known} command in {action.title} map: {action.result}")
        else:
            handle(self, action, part)

    def _reject(self, action: Action, part: Part) -> None:
        dsn, text = split_dsn(action.text, "5.7.1")
        if dsn.startswith("2"):
            LOG.warning(f"bad DSN action in {action.text} -- need 4.x.x or 5.x.x")
            dsn = adapt_class(dsn, "4")
        text = text or "message content rejected"
        self._log("reject", part, f"{dsn} {text}")
        self._checks.stopped = True
        status = CleanupStatus.DEFER if dsn.startswith("4") else CleanupStatus.CONTENT
        err = Refused(status, dsn, text.replace("\n", " "))
        if self._returned and status is CleanupStatus.CONTENT:
            self.actions.refused = err
        else:
            self._rejected = err

    def _discard(self, action: Action, part: Part) -> None:
        self._log("discard", part, action.text)
        raise Discarded

    def _hold(self, action: Action, part: Part) -> None:
        if not self.actions.hold:
            self._log("hold", part, action.text)
            self.actions.hold = True

    def _filter(self, action: Action, part: Part) -> None:
        if not action.text:
            LOG.warning(f"missing FILTER command argument in {action.title} map")
        elif ":" not in action.text:
            LOG.warning(
                f"bad FILTER command {action.text} in {action.title} -- need transport:destination"
            )
        else:
            self._log("filter", part, action.text)
            self.actions.content_filter = action.text

    def _redirect(self, action: Action, part: Part) -> None:
        if "@" not in action.text:
            self._need_address("REDIRECT target", action)
            return
        self._log("redirect", part, action.text)
        self.actions.redirect = action.text
        self._checks.stopped = self.actions.passed = True

    def _bcc(self, action: Action, part: Part) -> None:
        if "@" not in action.text:
            self._need_address("BCC address", action)
            return
        self._log("bcc", part, action.text)
        self.actions.bcc = [*(self.actions.bcc or ()), action.text]

    def _need_address(self, what: str, action: Action) -> None:
        LOG.warning(f'bad {what} "{action.text}" in {action.title} map -- need user@domain')

    def _pass(self, action: Action, part: Part) -> None:
        self._log("pass", part, action.text)
        self._checks.stopped = self.actions.passed = True


_ACTIONS: Final = {
    "BCC": Inspection._bcc,
    "DISCARD": Inspection._discard,
    "FILTER": Inspection._filter,
    "HOLD": Inspection._hold,
    "PASS": Inspection._pass,
    "REDIRECT": Inspection._redirect,
    "REJECT": Inspection._reject,
}
