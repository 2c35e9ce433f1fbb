"""A table that asks a database or directory by the queries of its client file.

Called by: the drivers of such types, which say how to ask. Here is what they have in common:
for which keys to ask at all, where the asking runs, and what becomes of the results.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from libmail.tables.queries.client_file import ClientFile
from libmail.tables.queries.templates import ResultFormat
from libmail.tables.table import TableOptions, is_utf8, key_filter, usable_value

__all__ = ["QueryTable", "Runner"]

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
R = TypeVar("R")


class Runner(Protocol[S_co]):
    """Where lookups run, with what they need; `libmail.tables.worker.Worker` is one."""

    def run(self, work: Callable[[S_co], R], /) -> Awaitable[R]:
        """Return what `work` returns; raises what it raises, and TableRetry."""

    def close(self) -> None:
        """Give everything back."""


class QueryTable(Generic[S]):
    """A table of fixed strings behind a query."""

    pattern = False

    def __init__(
        self,
        client: ClientFile,
        options: TableOptions,
        runner: Runner[S],
        takes: Callable[[str], bool],
        ask: Callable[[S, str], Sequence[str]],
        result_format: str = "%s",
    ) -> None:
        """takes: whether the query can be made of a key.

        ask: called where the runner runs, gives the results of a key in the order of the server;
        raises TableRetry. result_format: for a client file that has none.
        """
        self.spec: Final = client.spec
        self._options = options
        self._ready = key_filter(client.spec, options)
        self._domains = client.domains()
        self._format = ResultFormat(
            client.spec,
            client.text("result_format", result_format),
            client.int("expansion_limit", 0),
            options.log,
        )
        self._runner = runner
        self._takes = takes
        self._ask = ask

    async def lookup(self, key: str) -> str | None:
        """Return the results with commas between them, or None. Raises TableRetry."""
        wanted = self._ready(key)
        # No database has a key that is no text, and some drivers cannot even ask for it.
        if not wanted or "\0" in wanted or not is_utf8(wanted):
            return None
        if not (self._format.takes(wanted) and self._takes(wanted)):
            return None
        if not await self._domains.allows(wanted):
            return None
        found = await self._runner.run(lambda state: self._ask(state, wanted))
        value = self._format.join(wanted, found)
        if value is None or value.isascii():
            return value
        return usable_value(self.spec, key, value, self._options)

    def close(self) -> None:
        """Close the connections."""
        self._runner.close()
