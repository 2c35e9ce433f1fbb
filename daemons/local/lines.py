"""The members that a .forward or :include: file lists, a line each or several with commas."""

import os
import stat
from typing import Final

from daemons.local.stage import members_of
from daemons.local.user import acting
from libmail.message.addresses import Mailbox
from libmail.privileges import Identity

__all__ = ["read_members"]

_LIMIT: Final = 64 << 20


def read_members(path: str, identity: Identity, line_limit: int) -> tuple[Mailbox, ...]:
    """Read a list with the rights of `identity`. Lines that begin with "#" are comments.

    line_limit: line_length_limit, at which longer lines are broken. Raises OSError, CannotAct.
    """
    with acting(identity):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(22, "not a regular file", path)
        data = file.read(_LIMIT)
    members: list[Mailbox] = []
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        for start in range(0, len(line), line_limit):
            part = line[start : start + line_limit]
            if not part.startswith("#"):
                members += members_of(part)
    return tuple(members)
