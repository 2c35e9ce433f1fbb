"""smtp_header_checks and its kin: changes of outgoing content by tables.

The header is checked first and its addresses are mapped afterwards, so that rules see the message
as it is in the queue. Where 7-bit data is made of it, they see what the server gets.
Asks: tables.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from daemons.smtp.events import CheckLine
from daemons.smtp.failure import LocalTrouble
from daemons.smtp.generic import GenericMaps
from libmail.ipc.messages import QueueId
from libmail.log import LOG
from libmail.lookup.content_checks import Action, ChecksFailed, CheckTables, LineChecks, Part
from libmail.message.downgrade import Downgrade
from libmail.message.mime import MimeLimits, MimeSplitter, Piece, Place
from libmail.tables.table import TableRetry

__all__ = ["ContentChecks", "OutgoingChecks"]

_TURN: Final = 500  # pieces, after which other sessions have their turn
_AT_ONCE: Final = 1 << 14  # octets that are converted at once
_SHOWN: Final = 200  # characters of a line in the log


class ContentChecks:
    """The checks of the process; `begin` starts those of one message."""

    def __init__(self, tables: CheckTables, limits: MimeLimits, *, line_limit: int) -> None:
        """line_limit: `line_length_limit`."""
        self.tables: Final = tables
        self._limits = limits
        self._line_limit = line_limit

    def __bool__(self) -> bool:
        """Whether anything is checked."""
        return self.tables.any

    def begin(self, queue_id: QueueId, generic: GenericMaps, *, convert: bool) -> "OutgoingChecks":
        """For one message to one server. generic: maps the addresses of its header. convert: the
        server takes 7-bit data only."""
        return OutgoingChecks(
            queue_id, self.tables, self._limits, generic, self._line_limit, convert=convert
        )


class OutgoingChecks:
    """One message. Its methods raise LocalTrouble when a table does not answer."""

    def __init__(
        self,
        queue_id: QueueId,
        tables: CheckTables,
        limits: MimeLimits,
        generic: GenericMaps,
        line_limit: int,
        *,
        convert: bool,
    ) -> None:
        self._queue_id = queue_id
        self._tables = tables
        self._downgrade = Downgrade(limits) if convert else None
        downgrade = self._downgrade
        self._splitter = MimeSplitter(limits) if downgrade is None else downgrade.splitter
        self._generic = generic
        self._checks = LineChecks(tables, self._log, self._unsupported, line_limit=line_limit)

    def _log(self, word: str, part: Part, text: str) -> None:
        LOG.event(CheckLine(self._queue_id, word, part.where, part.line[:_SHOWN], text))

    async def _unsupported(self, action: Action, _: Part) -> None:
        LOG.warning(f"unsupported command in {action.title} map: {action.result}")

    async def header(self, data: bytes) -> bytes:
        """The header to send."""
        data = await self._pieces(self._splitter.header(data))
        try:
            return await self._generic.map_header(data) or data
        except TableRetry as error:
            raise LocalTrouble from error

    @property
    def body_too(self) -> bool:
        """Whether the body may change."""
        return self._tables.structure or self._downgrade is not None

    async def body(self, data: bytes) -> bytes:
        """The part of the body to send now, after the header."""
        return await self._pieces(self._splitter.feed(data), len(data))

    async def end(self) -> bytes:
        """The rest of the body."""
        rest = await self._pieces(self._splitter.end())
        if self._downgrade is not None:
            rest += await self._piece(self._downgrade.rest())
        return rest + await self._line_end()

    async def _pieces(self, pieces: Iterable[Piece], size: int = 0) -> bytes:
        """size: octets of what they come from."""
        if self._downgrade is not None:
            pieces = self._downgrade.pieces(pieces)
            if size > _AT_ONCE:
                pieces = await asyncio.to_thread(list, pieces)
        done: list[bytes] = []
        for piece in pieces:
            done.append(await self._piece(piece))
            if len(done) % _TURN == 0:
                await asyncio.sleep(0)
        return b"".join(done)

    async def _piece(self, piece: Piece) -> bytes:
        checks = self._checks
        try:
            if piece.place is Place.BODY:
                return await checks.body(piece.data)
            before = await checks.end()
            if piece.place is Place.END:
                return before
            if piece.place is Place.DELIMITER:
                return before + await checks.delimiter(piece.data)
            return before + await checks.field(piece.place, piece.data)
        except ChecksFailed as error:
            raise self._trouble(error) from error

    async def _line_end(self) -> bytes:
        try:
            return await self._checks.end()
        except ChecksFailed as error:
            raise self._trouble(error) from error

    def _trouble(self, error: ChecksFailed) -> LocalTrouble:
        LOG.warning(f"{self._queue_id}: smtp {error}")
        return LocalTrouble()
