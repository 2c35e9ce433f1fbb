"""smtpd_tls_loglevel and its like: how much is logged, and whether sessions are traced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from libmail.tls.errors import TlsConfigError
from libmail.tls.settings import words

__all__ = ["LogLevel", "parse_loglevel"]

_HIGHEST: Final = 4


@dataclass(frozen=True, slots=True)
class LogLevel:
    """level: 0 to 4. trace: each session has a file that tells its handshake."""

    level: int
    trace: bool = False

    @property
    def summary(self) -> bool:
        """Whether a line tells what was agreed upon."""
        return self.level >= 1

    @property
    def states(self) -> bool:
        """Whether the states of a handshake are told, and certificates that nobody asked for."""
        return self.level >= 2


def parse_loglevel(text: str, where: str) -> LogLevel:
    """Of `1` or `1,trace`. where: the parameter or table. Raises TlsConfigError."""
    parts = words(text)
    numbers = [part for part in parts if part.isascii() and part.isdecimal() and len(part) <= 3]
    others = [part.lower() for part in parts if part not in numbers]
    if len(numbers) > 1 or any(other != "trace" for other in others) or not parts:
        raise TlsConfigError(f'{where}: bad TLS log level "{text[:100]}"')
    level = min(int(numbers[0]), _HIGHEST) if numbers else 0
    return LogLevel(level, bool(others))
