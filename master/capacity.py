"""How many processes a service may have, and how many clients each of them serves at a time.

In Postfix a process serves one client, so the maxproc column of master.cf limits clients, and
existing files rely on that. Here a process serves many, and the column keeps its meaning:

- N: at most N clients at a time, however many processes serve them;
- 0: no limit;
- "-": default_process_limit processes of sessions_per_process clients each; where each client takes
  a thread, default_process_limit clients.

Two kinds of program count processes instead: those that serve one client at a time, because all
they do is to run a command for it, and those that serve many clients in Postfix, too (qmgr,
trivial-rewrite, ...), where `1` means that there is exactly one process, which takes all clients,
whatever sessions_per_process is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["NO_LIMIT", "Limit", "limit_of", "sessions_in_a_life"]

NO_LIMIT: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limit:
    """per_process: clients of one process. processes, clients: of the service in all."""

    per_process: int
    processes: int = NO_LIMIT
    clients: int = NO_LIMIT

    @property
    def places(self) -> int:
        """The number that the maxproc column stands for."""
        return self.processes if self.counts_processes else self.clients

    @property
    def counts_processes(self) -> bool:
        """Whether it is processes that are limited, however many clients they serve."""
        return self.clients == NO_LIMIT

    def next_capacity(self, held: Iterable[int]) -> int:
        """The clients that one more process may serve; 0: there may be none.

        held: for each process, the clients that it may serve or, when it is retiring, that it
        still serves.
        """
        held = tuple(held)
        if len(held) >= self.processes:
            return 0
        return max(0, min(self.per_process, self.clients - sum(held)))


def limit_of(
    maxproc: int | None,
    *,
    default_process_limit: int,
    sessions_per_process: int,
    one_client: bool = False,
    threads: bool = False,
    shared: bool = False,
) -> Limit:
    """The limit for a maxproc column. maxproc: None for "-", 0 for no limit.

    one_client: the program serves one client at a time. threads: it serves each in a thread.
    shared: it serves many in Postfix, too.
    """
    if one_client or shared:
        processes = default_process_limit if maxproc is None else maxproc or NO_LIMIT
        return Limit(1 if one_client else sessions_per_process, processes)
    if maxproc is None and threads:
        maxproc = default_process_limit
    if maxproc is None:
        return Limit(sessions_per_process, default_process_limit)
    return Limit(sessions_per_process, clients=maxproc or NO_LIMIT)


def sessions_in_a_life(max_use: int, capacity: int) -> int:
    """The sessions after which a process retires; 0: never.

    max_use bounds what one client after the other can make a process leak. A process with room
    for 250 clients lives as long as 250 processes of Postfix together, so it gets their uses
    together; otherwise a busy one would retire several times a second.
    """
    return max_use * capacity
