"""What DNS lists say of clients: one question for all connections of an address at a time."""

from collections.abc import Callable

from daemons.postscreen.dnsbl import Score, Sites
from libmail.clients.dnsblog import DnsblogClient
from libmail.log import LOG
from libmail.service.pool import ServiceUnavailable
from libmail.service.skeleton import Runtime

__all__ = ["Question", "Scores"]


class Question:
    """A question that was asked. score: by the answers so far. complete: all are there."""

    __slots__ = ("complete", "score", "waiting")

    def __init__(self) -> None:
        self.complete = False
        self.score = Score()
        self.waiting: set[Callable[[], None]] = set()


class Scores:
    """Asks for clients."""

    def __init__(self, client: DnsblogClient, sites: Sites, runtime: Runtime) -> None:
        self._client = client
        self._sites = sites
        self._runtime = runtime
        self._asked: dict[str, Question] = {}

    def ask(self, address: str, tell: Callable[[], None]) -> Question:
        """Ask about a client. tell: called when all answers are there."""
        question = self._asked.get(address)
        if question is None:
            question = self._asked[address] = Question()
            self._runtime.spawn(self._answered(address, question))
        question.waiting.add(tell)
        return question

    async def _answered(self, address: str, question: Question) -> None:
        try:
            async for answer in self._client.ask(address, tuple(self._sites)):
                sites = self._sites.get(answer.domain, ())
                question.score.add(sites, answer.addresses, answer.ttl)
        except ServiceUnavailable as error:
            question.score.add((), (), 0)  # what is not known does not hold for long
            LOG.seldom("DNS lists are not asked", f": {error}")
        del self._asked[address]
        question.complete = True
        for tell in question.waiting:
            tell()
