"""Actions of header_checks(5) that change fields and lines."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.log import LOG
from libmail.lookup.content_checks import Action, ChecksFailed, CheckTables, LineChecks, Part
from libmail.message.mime import Place
from libmail.tables.maps import Maps


class World:
    """The checks of one message, with the same table for all places unless told otherwise."""

    def __init__(self, *rules: str, table: str = "", line_limit: int = 2048, body_limit: int = 0
                 ) -> None:  # fmt: skip
        spec = table or "pcre:{ " + " ".join(f"{{{rule}}}" for rule in rules) + " }"
        maps = [
            Maps(f"x_{name}checks", spec)
            for name in ("header_", "mime_header_", "nested_header_", "body_")
        ]
        self.tables = CheckTables(*maps)
        self.logged: list[str] = []
        self.warned: list[str] = []
        self.others: list[Action] = []
        LOG.open(lambda severity, head, text: self.warned.append(text), "postfix/x")
        self.checks = LineChecks(
            self.tables, self._log, self._other, line_limit=line_limit, body_limit=body_limit
        )

    def _log(self, word: str, part: Part, text: str) -> None:
        self.logged.append(f"{word}: {part.where} {part.line}: {text}")

    async def _other(self, action: Action, _: Part) -> None:
        self.others.append(action)

    def field(self, data: bytes, place: Place = Place.PRIMARY) -> bytes:
        return asyncio.run(self.checks.field(place, data))

    def body(self, *pieces: bytes) -> bytes:
        async def main() -> bytes:
            done = [await self.checks.body(piece) for piece in pieces]
            return b"".join((*done, await self.checks.end()))

        return asyncio.run(main())


CASES = [
    ("DUNNO", b"X: a\r\n", ""),
    ("ok with text", b"X: a\r\n", ""),
    ("IGNORE", b"", ""),
    ("STRIP", b"", "strip: header X: a: "),
    ("strip why", b"", "strip: header X: a: why"),
    ("INFO  two  words", b"X: a\r\n", "info: header X: a: two  words"),
    ("WARN", b"X: a\r\n", "warning: header X: a: "),
    ("REPLACE Y: b", b"Y: b\r\n", "replace: header X: a: Y: b"),
    ("PREPEND Y: b", b"Y: b\r\nX: a\r\n", "prepend: header X: a: Y: b"),
]


@pytest.mark.parametrize(("result", "sent", "logged"), CASES)
def test_actions(result: str, sent: bytes, logged: str) -> None:
    world = World(f"/^X:/ {result}")
    assert world.field(b"X: a\r\n") == sent
    assert world.logged == ([logged] if logged else [])
    assert world.field(b"Other: a\r\n") == b"Other: a\r\n"


@pytest.mark.parametrize(
    ("result", "warning"),
    [
        ("REPLACE", "REPLACE action without text in x_header_checks map"),
        ("PREPEND", "PREPEND action without text in x_header_checks map"),
        ("REPLACE no header",
         'bad REPLACE header text "no header" in x_header_checks map'
         ' -- need "headername: headervalue"'),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_left(result: str, warning: str) -> None:
    world = World(f"/^X:/ {result}")
    assert world.field(b"X: a\r\n") == b"X: a\r\n"
    assert world.warned[0].endswith(warning)


def test_other_actions_are_the_programs() -> None:
    world = World("/^X:/ reject 5.7.1 no")
    assert world.field(b"X: a\r\n", Place.MIME) == b"X: a\r\n"
    assert world.others == [
        Action("REJECT", "5.7.1 no", "x_mime_header_checks", "reject 5.7.1 no")
    ]  # fmt: skip


def test_a_folded_field_is_one_line() -> None:
    world = World(r"/^X: a\n b\n\tc$/ IGNORE")
    assert world.field(b"X: a\r\n b\r\n\tc\r\n") == b""


@pytest.mark.parametrize("pieces", [(b"bad\r\nempty:\r\n\r\nbad end",), (b"ba", b"d\r\nempty:\r",
                                    b"\n\r\nbad", b" end")])  # fmt: skip
def test_body(pieces: tuple[bytes, ...]) -> None:
    world = World("/^bad$/ REPLACE good", "/^bad e/ PREPEND before", "/^$/ WARN empty")
    assert world.body(*pieces) == b"good\r\nempty:\r\n\r\nbefore\r\nbad end"


def test_long_lines_are_matched_in_chunks() -> None:
    world = World("/^.{11}/ WARN long", "/a/ INFO", line_limit=10)
    assert world.body(b"a" * 25 + b"\r\n" + b"b\r\n") == b"a" * 25 + b"\r\nb\r\n"
    assert [len(line) for line in world.logged] == [len("info: body : ") + n for n in (10, 10, 5)]


def test_beginning_of_each_part() -> None:
    world = World("/a/ IGNORE", body_limit=6)
    assert world.body(b"a1\r\n", b"a2\r\n", b"a3\r\n") == b"a3\r\n"
    assert world.field(b"X: b\r\n") == b"X: b\r\n"
    assert world.body(b"a4\r\n") == b""


def test_a_table_that_fails() -> None:
    world = World(table="fail:x")
    for part, work in (("header", world.field), ("body", world.body)):
        with pytest.raises(ChecksFailed) as caught:
            work(b"X: a\r\n")
        assert str(caught.value) == f"{part} checks lookup error"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"\r\n", b"\r", b"\n", b"\xff", b"bb"])).map(b"".join),
       st.integers(1, 5))  # fmt: skip
def test_what_no_rule_changes_stays(data: bytes, size: int) -> None:
    world = World("/./ INFO", line_limit=4)
    assert world.body(*[data[i : i + size] for i in range(0, len(data), size)]) == data
