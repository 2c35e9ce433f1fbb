"""Services of the mail system, played by a function that makes the replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["PlayedService"]

M = TypeVar("M")


class PlayedService:
    """A `libmail.service.pool.ServiceClient`; asked: all requests so far."""

    def __init__(self, answer: Callable[[object], object]) -> None:
        self._answer = answer
        self.asked: list[object] = []

    async def call(self, request: object, reply: type[M]) -> M:
        self.asked.append(request)
        found = self._answer(request)
        assert isinstance(found, reply)
        return found
