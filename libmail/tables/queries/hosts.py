"""The servers of a database table: which one is asked, and what happens when it fails.

Called by: the mysql and pgsql tables, in a thread of theirs; each thread has connections of its
own. A server with a connection is asked first, otherwise one at random, UNIX sockets before TCP.
One that fails is left alone for `retry_interval`, while others are asked. mysql_table(5) has the
rules.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from libmail.tables.queries.client_file import ClientFile

__all__ = ["Host", "Hosts", "QueryFailed", "ServerFailed", "ServerLost", "host_names"]

C = TypeVar("C")
R = TypeVar("R")


class QueryFailed(Exception):
    """The server does not like the query; the connection is in order."""


class ServerFailed(Exception):
    """The server cannot be reached, or it does not answer in time."""


class ServerLost(ServerFailed):
    """The connection is closed.  One that had been kept may have been closed long ago."""


@dataclass(slots=True)
class Host(Generic[C]):
    """A server: its name in the client file, the connection, and when it may be asked (again)."""

    name: str
    connection: C | None = None
    not_before: float = 0.0

    @property
    def is_local(self) -> bool:
        """Whether the name is that of a UNIX socket."""
        return self.name.startswith(("unix:", "/"))


def host_names(client: ClientFile) -> Sequence[str]:
    """The servers of a client file.  `host` is what very old files have."""
    return (client.text("hosts") or client.text("host")).replace(",", " ").split() or ["localhost"]


class Hosts(Generic[C]):
    """The servers of one table, for one thread."""

    def __init__(
        self,
        names: Iterable[str],
        connect: Callable[[str], C],
        close: Callable[[C], None],
        retry_interval: float,
        clock: Callable[[], float] = time.monotonic,
        choose: Callable[[Sequence[Host[C]]], Host[C]] = random.choice,
    ) -> None:
        """connect: to a name; raises ServerFailed. retry_interval: seconds."""
        self._hosts: Final = [Host[C](name) for name in names]
        self._connect = connect
        self._close = close
        self._pause = retry_interval
        self._clock = clock
        self._choose = choose

    def ask(self, question: Callable[[C, str], R]) -> R:
        """The answer of a server to a question, called with a connection and the server's name.

        The question raises QueryFailed, ServerFailed, ServerLost. Raises QueryFailed or
        ServerFailed when no server answers.
        """
        problem: QueryFailed | ServerFailed = ServerFailed("no server is available")
        left = list(self._hosts)
        while (host := self._next(left)) is not None:
            left.remove(host)
            try:
                return self._ask(host, question)
            except (QueryFailed, ServerFailed) as error:
                problem = error
        raise problem

    def _next(self, left: Sequence[Host[C]]) -> Host[C] | None:
        now = self._clock()
        ready = [host for host in left if host.connection is not None or host.not_before <= now]
        for wanted in (
            [host for host in ready if host.connection is not None],
            [host for host in ready if host.is_local],
            ready,
        ):
            if wanted:
                return self._choose(wanted)
        return None

    def _ask(self, host: Host[C], question: Callable[[C, str], R]) -> R:
        try:
            if host.connection is not None:
                try:
                    return question(host.connection, host.name)
                except ServerLost:
                    self._drop(host)  # and try a new connection
            host.connection = self._connect(host.name)
            return question(host.connection, host.name)
        except ServerFailed:
            self._drop(host)
            host.not_before = self._clock() + self._pause
            raise

    def _drop(self, host: Host[C]) -> None:
        if host.connection is not None:
            self._close(host.connection)
            host.connection = None

    def close(self) -> None:
        """Close all connections; the next question opens new ones."""
        for host in self._hosts:
            self._drop(host)
