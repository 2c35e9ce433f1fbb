"""Giving up rights, and acting as somebody else for a moment.

A daemon is born with the rights of master(8) and gives up what it does not need before it serves
anybody: `enter_jail`. The few that deliver as users keep root and use `acting_as`. In rootless
mode (started by an ordinary user) nothing can be given up and nobody else be acted as.

To the kernel each thread has ids of its own. The C library changes those of all threads together,
as POSIX wants it; `Actor` makes the system calls itself, by number, so that it is one thread that
acts as a user, and no other one ever gets to see files as that user. Only effective ids change: to
signals and ptrace(2) of that user it stays a thread of root.
"""

import ctypes
import errno
import os
import platform
import pwd
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = [
    "BY_THREAD",
    "MAX_ID",
    "Actor",
    "Identity",
    "Jail",
    "acting_as",
    "enter_jail",
    "identity_of",
    "in_process_of",
]

_PR_SET_NO_NEW_PRIVS: Final = 38
_MOST_TEXT: Final = 4096  # a pipe takes at least that at once
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_AT_ONCE: Final = ctypes.PyDLL(None, use_errno=True)  # lets no other thread run meanwhile
_KEEP: Final = -1  # of the three ids of setresuid(2), one that is to stay


class _Numbers(NamedTuple):
    """System call numbers."""

    setgroups: int
    setresgid: int
    setresuid: int


_GENERIC: Final = _Numbers(159, 149, 147)  # asm-generic/unistd.h
_KNOWN: Final = {
    "x86_64": _Numbers(116, 119, 117),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
}
_NUMBERS: Final = _KNOWN.get(platform.machine()) if ctypes.sizeof(ctypes.c_long) == 8 else None


def _system_call(*arguments: type) -> Callable[..., int]:
    """syscall(2) for a number and arguments of these types."""
    function = _AT_ONCE["syscall"]  # an object of its own each time
    function.argtypes = (ctypes.c_long, *arguments)
    return function


_SET_IDS: Final = _system_call(ctypes.c_long, ctypes.c_long, ctypes.c_long)
_SET_GROUPS: Final = _system_call(ctypes.c_long, ctypes.c_void_p)

MAX_ID: Final = 2**32 - 2
"""The largest number of a user or group: the next one stands for none."""

BY_THREAD: Final = _NUMBERS is not None
"""Whether acting is for the calling thread alone. If not, no other one may run meanwhile."""


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
        os.setgroups(jail.user.groups)
        os.setresgid(jail.user.gid, jail.user.gid, jail.user.gid)
        os.setresuid(jail.user.uid, jail.user.uid, jail.user.uid)
    if jail.no_new_privs and _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")


class Actor(threading.local):
    """Whom the calling thread acts as, which changes its ids by nothing else.

    It goes on acting as a user until it becomes another one, which may be the same again. Threads
    may share one: it has a state for each.
    """

    def __init__(self) -> None:
        self._own = Identity("", os.geteuid(), os.getegid(), tuple(os.getgroups()))
        self._now = self._own

    @property
    def user(self) -> Identity:
        """Who that is now."""
        return self._now

    def become(self, user: Identity) -> None:
        """Have the effective rights of `user`.

        Raises PermissionError when the process is neither root nor that user; OSError when there
        can be no user of these numbers: the kernel would leave an id as it is for 2**32 - 1, and
        take 2**32 for 0.
        """
        own, now = self._own, self._now
        if user is now or (now is not own and user == now):
            return
        if user.uid == own.uid:
            self.restore()
            return
        if own.uid != 0:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        if not (0 <= user.uid <= MAX_ID and 0 <= user.gid <= MAX_ID):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        try:
            if now is not own:
                _set_user(own.uid)
            _set_groups(user.groups)
            _set_group(user.gid)
            _set_user(user.uid)
        except BaseException:
            self._leave()
            raise
        self._now = user

    def restore(self) -> None:
        """Act as nobody else any more."""
        if self._now is not self._own:
            self._leave()

    def _leave(self) -> None:
        try:
            _set_user(self._own.uid)
            _set_group(self._own.gid)
            _set_groups(self._own.groups)
        except OSError:
            os._exit(1)  # whatever came next would be done as somebody else
        self._now = self._own


@contextmanager
def acting_as(user: Identity) -> Iterator[None]:
    """Have the effective rights of `user` inside the block, in this thread; it must not await.

    Raises PermissionError when the process is neither root nor that user.
    """
    if os.geteuid() == user.uid:
        yield
        return
    actor = Actor()
    actor.become(user)
    try:
        yield
    finally:
        actor.restore()


def _set_groups(groups: Sequence[int]) -> None:
    if _NUMBERS is None:
        os.setgroups(groups)
    else:
        ids = (ctypes.c_uint32 * len(groups))(*groups)
        _check(_SET_GROUPS(_NUMBERS.setgroups, len(groups), ids))


def _set_group(gid: int) -> None:
    if _NUMBERS is None:
        os.setegid(gid)
    else:
        _check(_SET_IDS(_NUMBERS.setresgid, _KEEP, gid, _KEEP))


def _set_user(uid: int) -> None:
    if _NUMBERS is None:
        os.seteuid(uid)
    else:
        _check(_SET_IDS(_NUMBERS.setresuid, _KEEP, uid, _KEEP))


def _check(result: int) -> None:
    """Raises OSError if a system call of this thread has failed."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


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
