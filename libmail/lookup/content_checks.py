"""header_checks(5) and its kin: what tables say about fields and lines of content.

Called by: cleanup for mail that comes in, smtp for mail that leaves. `CheckTables` are opened once;
a `LineChecks` works on one message and knows the actions that change a line. Other actions are up
to the program.

Neither is a body looped over line by line, nor a header field by field: where the tables tell what
text a line needs to be in one of them (patterns do), the whole piece is searched for that, and only
the lines that hold it are looked up.
"""

import asyncio
import re
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, Self

from libmail.log import LOG
from libmail.message.headers import Field
from libmail.message.mime import Place
from libmail.tables.maps import Maps
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["Action", "CheckTables", "Checked", "ChecksFailed", "LineChecks", "Part"]

_PARAMETERS: Final = ("header_checks", "mime_header_checks", "nested_header_checks", "body_checks")
_HEADER: Final = re.compile(r"[!-9;-~]+[ \t]*:")
_LINE_END: Final = re.compile(rb"\r?\n\Z")
_WORDS: Final = re.compile(r"[ \t]+")
_AT_ONCE: Final = 250  # lines, after which other sessions have their turn
_start: Final = itemgetter(1)  # of a field
_LOGGED: Final = {"STRIP": "strip", "WARN": "warning", "INFO": "info"}


class ChecksFailed(Exception):
    """A table does not answer. part: "header" or "body". title: of the tables."""

    def __init__(self, part: str, title: str) -> None:
        super().__init__(f"{part} checks lookup error")
        self.part = part
        self.title = title


class CheckTables(NamedTuple):
    """The tables, titled with the names of their parameters."""

    header: Maps
    mime: Maps
    nested: Maps
    body: Maps

    @classmethod
    def open(cls, prefix: str, specs: Sequence[Sequence[str]], options: TableOptions) -> Self:
        """The tables of four parameters, whose names begin with `prefix`.

        Those for parts are by default those for the header: they are opened once. Raises
        TableConfigError.
        """
        header, *others = specs
        first = Maps(f"{prefix}{_PARAMETERS[0]}", header, options)
        maps = [
            first.titled(prefix + name) if spec == header else Maps(prefix + name, spec, options)
            for name, spec in zip(_PARAMETERS[1:], others, strict=True)
        ]
        return cls(first, *maps)

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


class Checked(NamedTuple):
    """What is to be written: before a field or line, and in its place (None: what is there)."""

    before: bytes
    instead: bytes | None

    def joined(self, data: bytes) -> bytes:
        """All of it, for a field or line that is `data`."""
        return self.before + (data if self.instead is None else self.instead)


_UNCHANGED: Final = Checked(b"", None)


class LineChecks:
    """The checks of one message. `field` and `body` give what is to stand there instead.

    stopped: nothing more is looked at; set by actions of the program.
    """

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
        self.stopped = False
        self._tables = tables
        self._log = log
        self._other = other
        self._line_limit = line_limit
        self._body_limit = body_limit
        self._seen = 0  # octets of the part, with one for each line end
        self._rest = b""  # of a line that has not ended

    def worthwhile(self, data: bytes, found: Sequence[Field]) -> Sequence[Field]:
        """Those fields of the message's header that may be in a table, in order."""
        tables = self._tables
        screens = [maps.screen for maps in (tables.header, tables.mime) if maps]
        if None in screens:
            return found
        # Without the white space before its colon, a field may hold a text that is not in the data.
        places = {at for at, one in enumerate(found) if one[2] - one[1] != len(one[0]) + 1}
        for screen in filter(None, screens):
            at = screen(data, found[0].start) if found else -1
            while 0 <= at < found[-1].end:
                place = bisect_right(found, at, key=_start) - 1
                places.add(place)
                at = screen(data, found[place].end)
        return [found[place] for place in sorted(places)]

    async def check(self, place: Place, data: bytes) -> Checked:
        """A field of a header, with its line end. Raises ChecksFailed, and what `other` raises."""
        self._seen = 0
        maps = self._tables.at(place)
        if not maps or self.stopped:
            return _UNCHANGED
        return await self._check(maps, "header", data)

    async def field(self, place: Place, data: bytes) -> bytes:
        """As `check`: all that is to be written."""
        return (await self.check(place, data)).joined(data)

    async def delimiter(self, line: bytes) -> bytes:
        """A line between parts; raises as `check` does."""
        self._seen = 0
        return await self.body(line)

    async def body(self, data: bytes) -> bytes:
        """Some body; the end of a line that has not ended is kept back. Raises as `check` does."""
        if not self._tables.body or self.stopped:
            return data
        if self._rest:
            data, self._rest = self._rest + data, b""
        complete = data.rfind(b"\n") + 1
        if len(data) - complete > self._line_limit + 2:
            over = len(data) - complete - 2
            complete += over - over % self._line_limit
        if complete < len(data):
            self._rest = data[complete:]
        looked = self._within_limit(data, complete)
        out: list[bytes] = []
        copied = 0
        for number, (start, end) in enumerate(self._worthwhile(data, looked)):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            checked = await self._line(data[start:end])
            if checked is not _UNCHANGED:
                out += (data[copied:start], checked.joined(data[start:end]))
                copied = end
            if self.stopped:
                break
        if not out:
            return data[:complete] if complete < len(data) else data
        out.append(data[copied:complete])
        return b"".join(out)

    async def end(self) -> bytes:
        """What `body` has kept back; raises as `check` does."""
        rest, self._rest = self._rest, b""
        if not rest or self.stopped or (self._body_limit and self._seen >= self._body_limit):
            return rest
        return (await self._line(rest)).joined(rest)

    def _within_limit(self, data: bytes, end: int) -> int:
        """Where the last line ends that is looked at; counts all."""
        limit, seen = self._body_limit, self._seen
        if not limit:
            return end
        if seen >= limit:
            return 0
        self._seen += end - data.count(b"\n", 0, end)
        if self._seen <= limit:
            return end
        at, before = min(limit - seen, end), -1
        while at != before and at < end:  # line ends count once
            at, before = min(limit - seen + data.count(b"\n", 0, at), end), at
        line_end = min(data.find(b"\n", max(at - 1, 0)) + 1 or end, end)
        start = data.rfind(b"\n", 0, max(at - 1, 0)) + 1
        if line_end - start <= self._line_limit + 2:
            return line_end
        pieces = -(-(at - start) // self._line_limit)  # of which the last one is looked at in part
        return min(start + pieces * self._line_limit, line_end)

    def _worthwhile(self, data: bytes, end: int) -> Iterator[tuple[int, int]]:
        """The lines, and pieces of long lines, before `end` that may be in a table, in order."""
        screen = self._tables.body.screen
        if screen is None:
            yield from self._pieces(data, 0, end)
            return
        at = screen(data, 0)
        while 0 <= at < end:
            start = data.rfind(b"\n", 0, at) + 1
            after = data.find(b"\n", at, end) + 1 or end
            yield from self._pieces(data, start, after)
            at = screen(data, after)

    def _pieces(self, data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
        while at < end:
            after = data.find(b"\n", at, end) + 1 or end
            if after - at > self._line_limit + 2:
                after = at + self._line_limit
            yield at, after
            at = after

    async def _line(self, line: bytes) -> Checked:
        if line in (b"\r\n", b"\n"):
            return _UNCHANGED  # not all tables can be asked for the empty string
        return await self._check(self._tables.body, "body", line)

    async def _check(self, maps: Maps, where: str, data: bytes) -> Checked:
        ending = _LINE_END.search(data)
        text = data if ending is None else data[: ending.start()]
        line = text.replace(b"\r\n", b"\n").decode("utf-8", "surrogateescape")
        try:
            result = await maps.find(line)
        except TableRetry as error:  # has been logged
            raise ChecksFailed(where, maps.title) from error
        if result is None:
            return _UNCHANGED
        verb, *rest = _WORDS.split(result, 1)
        action = Action(verb.upper(), rest[0] if rest else "", maps.title, result)
        part = Part(where, line)
        if action.verb in ("DUNNO", "OK"):
            return _UNCHANGED
        if action.verb in ("IGNORE", "STRIP", "WARN", "INFO"):
            if word := _LOGGED.get(action.verb):
                self._log(word, part, action.text)
            return Checked(b"", b"") if action.verb in ("IGNORE", "STRIP") else _UNCHANGED
        if action.verb not in ("REPLACE", "PREPEND"):
            await self._other(action, part)
            return _UNCHANGED
        if not self._usable(action, where):
            return _UNCHANGED
        self._log(action.verb.lower(), part, action.text)
        new = action.text.encode("utf-8", "surrogateescape").replace(b"\n", b"\r\n")
        if action.verb == "PREPEND":
            return Checked(new + b"\r\n", None)
        return Checked(b"", new if ending is None else new + ending[0])

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
