"""Waiting for a condition in an event loop: never for a time, which a loaded machine stretches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 60.0  # seconds


async def until(condition: Callable[[], bool], limit: float = PATIENCE) -> None:
    """Lets the loop run until the condition is true."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true"
        await asyncio.sleep(0.005)
