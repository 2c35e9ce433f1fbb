"""What can go wrong with TLS, as typed errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from libmail.log import LOG

__all__ = [
    "LibraryMissing",
    "TlsClosed",
    "TlsConfigError",
    "TlsError",
    "TlsFailed",
    "possibly",
    "warn_of_problems",
]

T = TypeVar("T")


class TlsError(Exception):
    """Base of what this package raises."""


class LibraryMissing(TlsError):
    """There is no OpenSSL 3 on this machine, or it cannot be loaded."""


class TlsConfigError(TlsError):
    """Settings or files that cannot be used. problems: what the library says of it."""

    def __init__(self, reason: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.problems = problems


class TlsFailed(TlsError):
    """The session cannot go on: a failed handshake, garbage, or a connection that was cut off.

    reason: what stands behind "SSL_accept error from peer: ". problems: lines for the log, with
    "TLS library problem: " in front. lost: the peer has gone without a closing message.
    """

    def __init__(self, reason: str, problems: tuple[str, ...] = (), *, lost: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.problems = problems
        self.lost = lost

    @property
    def words(self) -> str:
        """In short: what the library calls its first problem, or else the reason."""
        parts = self.problems[0].split(":") if self.problems else []
        return parts[4] if len(parts) > 4 else self.reason


class TlsClosed(TlsError):
    """The peer has closed the session in due form (close_notify)."""


def possibly(make: Callable[[], T]) -> T | None:
    """The result of `make`; None, with warnings, if files or settings cannot be used."""
    try:
        return make()
    except TlsConfigError as error:
        LOG.warning(error.reason)
        warn_of_problems(error.problems)
    except LibraryMissing as error:
        LOG.warning(f"{error}: disabling TLS support")
    return None


def warn_of_problems(problems: tuple[str, ...]) -> None:
    """Log what the library says of an error."""
    for problem in problems:
        LOG.warning(f"TLS library problem: {problem}")
