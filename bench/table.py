"""How the figures are printed."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Final

from bench.measure import Result

TITLE: Final = 34
COLUMNS: Final = f"{'per s':>9}{'user ms':>9}{'sys ms':>9}{'PSS MB':>8}"
MEGABYTE: Final = 1 << 20


def surroundings(rounds: int, scale: float) -> str:
    """One line on what this was measured on and how."""
    return (
        f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}; "
        f"{rounds} rounds, {scale:g} of the mail; deliveries per second end to end, "
        "CPU of the mail system per delivery"
    )


def head(names: Sequence[str]) -> str:
    """Two lines above the rows."""
    first = " " * TITLE + "".join(f"{name:^{len(COLUMNS)}}" for name in names)
    second = " " * TITLE + COLUMNS * len(names)
    return f"{first}\n{second}" + ("   speed  CPU" if len(names) == 2 else "")


def figures(result: Result) -> str:
    """The columns of one side."""
    memory = f"{result.memory / MEGABYTE:8.0f}"
    return f"{result.rate:9.1f}{result.user:9.2f}{result.system:9.2f}{memory}"


def row(title: str, results: Mapping[str, Result]) -> str:
    """One line: both sides, then speed and CPU as ours in relation to Postfix."""
    text = f"{title:{TITLE}}" + "".join(figures(result) for result in results.values())
    if len(results) == 2:
        ours, postfix = results.values()
        if postfix.rate and postfix.cpu:
            text += f"   {ours.rate / postfix.rate:4.2f}x {ours.cpu / postfix.cpu:4.2f}x"
    notes = [f"{name}: {result.note}" for name, result in results.items() if result.note]
    return text + ("   (" + "; ".join(notes) + ")" if notes else "")
