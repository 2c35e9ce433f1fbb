"""Giving up rights, and acting as somebody else for a moment.

A daemon is born with the rights of master(8) and gives up what it does not need before it serves
anybody: `enter_jail`. The few that deliver as users keep root and use `acting_as`. In rootless
mode (started by an ordinary user) nothing can be given up and nobody else be acted as.
"""

import ctypes
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

__all__ = ["Identity", "Jail", "acting_as", "enter_jail", "identity_of", "in_process_of"]

_PR_SET_NO_NEW_PRIVS: Final = 38
_MOST_TEXT: Final = 4096  # a pipe takes at least that at once
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to run as. groups: supplementary group ids, the primary one included."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Jail:
    """What a process keeps.

    root: directory to chroot to; None: no chroot. user: whom to become; None: stay. no_new_privs:
    never gain rights by executing a set-uid program.
    """

    root: str | None
    user: Identity | None
    no_new_privs: bool


def identity_of(name: str) -> Identity:
    """Look up an account in the user database. Raises KeyError."""
    entry = pwd.getpwnam(name)
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Identity(name, entry.pw_uid, entry.pw_gid, groups)


def enter_jail(jail: Jail) -> None:
    """Give up all that `jail` does not grant, for good. Raises OSError."""
    if jail.root is not None:
        os.chroot(jail.root)
        os.chdir("/")
    if jail.user is not None:
        os.setgroups([jail.user.gid])
        os.setresgid(jail.user.gid, jail.user.gid, jail.user.gid)
        os.setresuid(jail.user.uid, jail.user.uid, jail.user.uid)
    if jail.no_new_privs and _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")


@contextmanager
def acting_as(user: Identity) -> Iterator[None]:
    """Have the effective rights of `user` inside the block, which must not await.

    Raises PermissionError when the process is neither root nor that user.
    """
    if os.geteuid() == user.uid:
        yield
        return
    groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
    os.setgroups(user.groups)
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


def in_process_of(user: Identity, work: Callable[[], str]) -> str:
    """What `work` gives in a process that has become `user` for good.

    For work on files of that user which parses them, too: who is root and only acts as somebody is
    root again as soon as the parser goes wrong.  Raises OSError where the process fails.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            enter_jail(Jail(None, user, no_new_privs=True))
            os.write(writing, work().encode("utf-8", "surrogateescape")[:_MOST_TEXT])
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as result:
        text = result.read().decode("utf-8", "surrogateescape")
    if os.waitpid(child, 0)[1] != 0:
        raise OSError(0, f"the process of {user.name} failed")
    return text
