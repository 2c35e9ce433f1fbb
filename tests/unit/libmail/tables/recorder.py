"""A log that remembers its lines."""

from __future__ import annotations


class Recorder:
    """Takes the place of the process's log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str) -> None:
        self.lines.append(f"warning: {text}")

    def error(self, text: str) -> None:
        self.lines.append(f"error: {text}")
