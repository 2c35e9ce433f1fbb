"""The members that a .forward or :include: file lists, a line each or several with commas."""

import os
import stat

from daemons.local.budget import Budget
from daemons.local.stage import members_of
from daemons.local.user import act_as
from libmail.message.addresses import Mailbox
from libmail.privileges import Actor, Identity

__all__ = ["read_members"]


def read_members(
    actor: Actor, path: str, identity: Identity, budget: Budget
) -> tuple[Mailbox, ...]:
    """Read a list with the rights of `identity`. Lines that begin with "#" are comments.

    All of it or nothing. Raises OSError, CannotAct, ListTooLarge.
    """
    act_as(actor, identity)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(22, "not a regular file", path)
        budget.take_octets(path, status.st_size)
        data = file.read(status.st_size)
    members: list[Mailbox] = []
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        if not line.startswith("#"):
            members += members_of(line)
            if len(members) > budget.members:
                break
    budget.take_members(path, len(members))
    return tuple(members)
