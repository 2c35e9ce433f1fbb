"""Reasons for which a message is not accepted, with the texts for the reply."""

import errno

from libmail.ipc.messages import CleanupStatus

__all__ = [
    "Refused",
    "bad_recipient",
    "bad_sender",
    "no_space",
    "not_returned",
    "refused_by_system",
]


class Refused(Exception):
    """The message is not accepted. status, and dsn and reason for the client's reply.

    code: of that reply, 0 where the status says enough.
    """

    def __init__(self, status: CleanupStatus, dsn: str, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.status = status
        self.dsn = dsn
        self.reason = reason
        self.code = code


def bad_recipient() -> Refused:
    """A recipient address that no program of the mail system accepts."""
    return Refused(CleanupStatus.CONTENT, "5.1.3", "Bad recipient address syntax")


def bad_sender() -> Refused:
    """As `bad_recipient`, for the sender."""
    return Refused(CleanupStatus.CONTENT, "5.1.7", "Bad sender address syntax")


def not_returned() -> Refused:
    """A rejected message that cannot be returned to its sender now."""
    return Refused(CleanupStatus.DEFER, "4.3.0", "bounce service unavailable")


def no_space() -> Refused:
    """The queue file system is full, or about to be."""
    return Refused(CleanupStatus.SPACE, "4.3.1", "Insufficient system storage")


def refused_by_system(err: OSError) -> Refused:
    """An error while the queue file was written."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space()
    return Refused(CleanupStatus.WRITE, "4.3.0", "queue file write error")
