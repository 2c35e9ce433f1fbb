"""header_checks(5) and its kin: what tables say about fields and lines of content.

Called by: smtp for outgoing mail. `CheckTables` are opened once; a `LineChecks` works on one
message and knows the actions that change a line. Other actions are up to the program.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from libmail.log import LOG
from libmail.message.mime import Place
from libmail.tables.maps import Maps
from libmail.tables.table import TableRetry

__all__ = ["Action", "CheckTables", "ChecksFailed", "LineChecks", "Part"]

_HEADER: Final = re.compile(r"[!-9;-~]+[ \t]*:")
_LINE_END: Final = re.compile(rb"\r?\n\Z")
_LOGGED: Final = {"STRIP": "strip", "WARN": "warning", "INFO": "info"}


class ChecksFailed(Exception):
    """A table does not answer. part: "header" or "body"."""

    def __init__(self, part: str) -> None:
        super().__init__(f"{part} checks lookup error")
        self.part = part


class CheckTables(NamedTuple):
    """The tables, titled with the names of their parameters."""

    header: Maps
    mime: Maps
    nested: Maps
    body: Maps

    @property
    def structure(self) -> bool:
        """Whether more than the header of the message is looked at."""
        return bool(self.mime or self.nested or self.body)

    @property
    def any(self) -> bool:
        """Whether anything is looked at."""
        return bool(self.header) or self.structure

    def at(self, place: Place) -> Maps:
        """Those for a place."""
        if place is Place.PRIMARY:
            return self.header
        if place is Place.MIME:
            return self.mime
        return self.nested if place is Place.NESTED else self.body


class Part(NamedTuple):
    """What an action is about. where: "header" or "body". line: as the table saw it."""

    where: str
    line: str


class Action(NamedTuple):
    """A result of a table. verb: in upper case. title: of the tables. result: all of it."""

    verb: str
    text: str
    title: str
    result: str


class LineChecks:
    """The checks of one message. `field` and `body` give what is to stand there instead."""

    def __init__(
        self,
        tables: CheckTables,
        log: Callable[[str, Part, str], None],
        other: Callable[[Action, Part], Awaitable[None]],
        *,
        line_limit: int,
        body_limit: int = 0,
    ) -> None:
        """log: called with the word of the action, what it is about, and its text. other: for
        actions that are not known here. line_limit: octets of a line that are matched at once.
        body_limit: octets of each part that are looked at, 0 for all.
        """
        self._tables = tables
        self._log = log
        self._other = other
        self._line_limit = line_limit
        self._body_limit = body_limit
        self._seen = 0  # octets of the part
        self._rest = b""  # of a line that has not ended

    async def field(self, place: Place, data: bytes) -> bytes:
        """A field of a header, with its line end. Raises ChecksFailed, and what `other` raises."""
        self._seen = 0
        maps = self._tables.at(place)
        if not maps:
            return data
        new = await self._check(maps, "header", data)
        return data if new is None else new

    async def delimiter(self, line: bytes) -> bytes:
        """A line between parts; raises as `field` does."""
        self._seen = 0
        return await self.body(line)

    async def body(self, data: bytes) -> bytes:
        """Some body; the end of a line that has not ended is kept back. Raises as `field` does."""
        if not self._tables.body:
            return data
        if self._rest:
            data, self._rest = self._rest + data, b""
        out: list[bytes] = []
        copied = at = 0
        while (end := data.find(b"\n", at) + 1) or len(data) - at > self._line_limit + 2:
            if not end or end - at > self._line_limit + 2:
                end = at + self._line_limit
            new = await self._line(data[at:end])
            if new is not None:
                out += (data[copied:at], new)
                copied = end
            at = end
        self._rest = data[at:]
        if not out:
            return data[:at] if self._rest else data
        out.append(data[copied:at])
        return b"".join(out)

    async def end(self) -> bytes:
        """What `body` has kept back; raises as `field` does."""
        rest, self._rest = self._rest, b""
        if not rest:
            return b""
        new = await self._line(rest)
        return rest if new is None else new

    async def _line(self, line: bytes) -> bytes | None:
        if self._body_limit:
            if self._seen >= self._body_limit:
                return None
            self._seen += len(line)
        if line in (b"\r\n", b"\n"):
            return None  # not all tables can be asked for the empty string
        return await self._check(self._tables.body, "body", line)

    async def _check(self, maps: Maps, where: str, data: bytes) -> bytes | None:
        """What is to be written instead; None: what is there."""
        ending = _LINE_END.search(data)
        text = data if ending is None else data[: ending.start()]
        line = text.replace(b"\r\n", b"\n").decode("utf-8", "surrogateescape")
        try:
            result = await maps.find(line)
        except TableRetry as error:  # has been logged
            raise ChecksFailed(where) from error
        if result is None:
            return None
        verb, _, rest = result.partition(" ")
        action = Action(verb.upper(), rest.strip(), maps.title, result)
        part = Part(where, line)
        if action.verb in ("DUNNO", "OK"):
            return None
        if action.verb in ("IGNORE", "STRIP", "WARN", "INFO"):
            if word := _LOGGED.get(action.verb):
                self._log(word, part, action.text)
            return b"" if action.verb in ("IGNORE", "STRIP") else None
        if action.verb not in ("REPLACE", "PREPEND"):
            await self._other(action, part)
            return None
        if not self._usable(action, where):
            return None
        self._log(action.verb.lower(), part, action.text)
        new = action.text.encode("utf-8", "surrogateescape")
        if action.verb == "PREPEND":
            return new + b"\r\n" + data
        return new if ending is None else new + ending[0]

    @staticmethod
    def _usable(action: Action, where: str) -> bool:
        if not action.text:
            LOG.warning(f"{action.verb} action without text in {action.title} map")
            return False
        if where == "header" and not _HEADER.match(action.text):
            LOG.warning(
                f'bad {action.verb} header text "{action.text}" in {action.title} map'
                ' -- need "headername: headervalue"'
            )
            return False
        return True
