"""Templates that make queries of keys and values of results: `%s`, `%u`, `%d`, `%1`, ...

Called by: the table types with a client file. Without I/O.

In a query template everything comes from the key. In a result template the lower-case letters stand
for the result, the upper-case letters and the digits for the key. The manual pages of Postfix
say what the letters mean, and when there is nothing to ask: mysql_table(5), ldap_table(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from libmail.log import LOG
from libmail.tables.table import Log, TableConfigError, TableFailed

__all__ = ["Quote", "ResultFormat", "Template"]

Quote = Callable[[str], str]
"""Makes text safe for the place in a query where the template has it."""

_PIECE: Final = re.compile(r"%(.?)", re.DOTALL)
_LETTERS: Final = frozenset("%sudSUD123456789")


class _Address:
    """A key or a result, in parts."""

    __slots__ = ("domain", "text", "user")

    def __init__(self, text: str) -> None:
        user, at, domain = text.rpartition("@")
        self.text = text
        self.user = user if at else text
        self.domain = domain if at else ""

    def part(self, letter: str) -> str:
        """What the letter, in lower case, or digit stands for; "" where there is no such part."""
        if letter == "s":
            return self.text
        if letter == "u":
            return self.user
        if letter == "d":
            return self.domain
        labels = [label for label in self.domain.split(".") if label]
        number = int(letter)
        return labels[-number] if number <= len(labels) else ""


class Template:
    """The template of a query.

    pieces: text and letters in turn, text first and last. letters: what it takes from keys (and
    results), without "%".
    """

    def __init__(self, spec: str, parameter: str, text: str) -> None:
        """spec: the table's. parameter: its name in the client file. Raises TableConfigError."""
        self.pieces: Final = _PIECE.split(text)
        for letter in self.pieces[1::2]:
            if letter not in _LETTERS or not letter:
                raise TableConfigError(f"{spec}: invalid {parameter} template: {text}")
        self.letters: Final = frozenset(self.pieces[1::2]) - {"%"}
        self._of_key: Final = self.letters - frozenset("sud")
        # The two templates that most tables have are answered without more ado.
        self._fixed = None if self.letters else "".join(self.pieces)
        self._as_is = self.pieces == ["", "s", ""]

    def query(self, key: str, quote: Quote = str) -> str | None:
        """The query for a key; None where the key lacks what the template wants of it."""
        if self._fixed is not None:
            return self._fixed
        if self._as_is:
            return quote(key) if key else None
        address = _Address(key)
        out = []
        for number, piece in enumerate(self.pieces):
            if number % 2 == 0 or piece == "%":
                out.append(piece)
                continue
            part = address.part(piece.lower())
            if not part:
                return None
            out.append(quote(part))
        return "".join(out)

    def result(self, key: str, value: str) -> str | None:
        """A result in the wanted format; None where key or result lacks what it wants of them."""
        if self._as_is:
            return value or None
        asked, found = _Address(key), _Address(value)
        out = []
        for number, piece in enumerate(self.pieces):
            if number % 2 == 0 or piece == "%":
                out.append(piece)
                continue
            part = (found if piece in "sud" else asked).part(piece.lower())
            if not part:
                return None
            out.append(part)
        return "".join(out)

    def takes(self, key: str) -> bool:
        """Whether the key has all that this result format wants of it."""
        if not self._of_key:
            return True
        address = _Address(key)
        return all(address.part(letter.lower()) for letter in self._of_key)


class ResultFormat:
    """result_format with expansion_limit: many results become one value."""

    def __init__(self, spec: str, text: str, limit: int = 0, log: Log = LOG) -> None:
        """limit: most results of one lookup, 0 for no limit. Raises TableConfigError."""
        self._spec = spec
        self._template = Template(spec, "result_format", text)
        self._limit = limit
        self._log = log

    def takes(self, key: str) -> bool:
        """Whether anything can be found for the key."""
        return self._template.takes(key)

    def join(self, key: str, values: Iterable[str]) -> str | None:
        """The values in the wanted format, with commas; None where nothing is left of them.

        Raises TableRetry for more values than expansion_limit.
        """
        found = list(self._limited(key, values))
        return ",".join(found) if found else None

    def _limited(self, key: str, values: Iterable[str]) -> Iterator[str]:
        number = 0
        for value in values:
            if not value:
                shown = f'empty lookup result for: "{key}" -- ignored'
                self._log.warning(f'table "{self._spec}": {shown}')
                continue
            result = self._template.result(key, value)
            if result is None:
                continue
            number += 1
            if 0 < self._limit < number:
                problem = f"Expansion limit exceeded for key: '{key}'"
                self._log.warning(f"{self._spec}: {problem}")
                raise TableFailed(self._spec, problem)
            yield result
