"""What the kernel refuses to a process that talks with strangers: a filter of system calls.

The user mail_network_user keeps code of a stranger from the files of the mail system. The filter
keeps it from what that user could do all the same: execute programs, start processes, make or
change names in the file system, send signals to or look into other processes of that user, and use
those parts of the kernel that had the most holes (io_uring, namespaces, bpf, sockets of kinds that
no mail needs). It lists what is refused, not what is allowed: libraries that we do not know (of
SASL, of name services, of the C library of tomorrow) go on working.

libseccomp (seccomp_rule_add(3)) knows the numbers of system calls on each machine. Where it is
missing, or the kernel does not have filters, a process goes without.
"""

import ctypes
import errno
import os
import platform
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["forbid"]

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_NOT_EQUAL, _EQUAL, _GREATER, _MASKED_EQUAL = 1, 4, 6, 7
_SYNCHRONIZE: Final = 4  # SCMP_FLTATR_CTL_TSYNC: threads of libraries that are there already, too
_NO_SUCH_CALL: Final = -1  # of a library that is older than it, as the kernel is then, probably
_CLONE_THREAD: Final = 0x10000
_TMPFILE: Final = 0x400000  # of O_TMPFILE, without O_DIRECTORY; the same number everywhere

# clone(2) has its flags elsewhere on some machines, for one.
_MACHINES: Final = frozenset({"x86_64", "aarch64", "riscv64", "armv7l", "i686", "ppc64le"})

_NEVER: Final = """
    execve execveat fork vfork
    ptrace process_vm_readv process_vm_writev process_madvise kcmp
    pidfd_open pidfd_getfd pidfd_send_signal tkill
    unshare setns mount umount umount2 move_mount open_tree fsopen fspick mount_setattr pivot_root
    chroot open_by_handle_at name_to_handle_at
    bpf perf_event_open userfaultfd keyctl add_key request_key
    shmget semget msgget mq_open
"""
_NAMES: Final = """
    creat mknod mknodat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat
    symlink symlinkat truncate truncate64 chmod fchmodat fchmodat2 chown chown32 lchown lchown32
    fchownat setxattr lsetxattr removexattr lremovexattr utime utimes utimensat futimesat
"""
_UNKNOWN: Final = "io_uring_setup io_uring_enter io_uring_register clone3 openat2"
"""Said not to exist, so that libraries do without: what these are to do stands behind a pointer."""
_TO_ITSELF: Final = "kill tgkill rt_sigqueueinfo rt_tgsigqueueinfo"
_FAMILIES: Final = frozenset({1, 2, 10})  # AF_UNIX, AF_INET, AF_INET6
_MAKES: Final = (os.O_CREAT, _TMPFILE)


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp: an argument of a system call, by its number from 0, and two operands."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class _Rule(NamedTuple):
    """Refuse these system calls (names between white space) with `error`, if `when` is so."""

    names: str
    error: int = errno.EPERM
    when: tuple[int, int, int, int] | None = None


def _load() -> ctypes.CDLL | None:
    if platform.machine() not in _MACHINES:
        return None
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_load.argtypes = library.seccomp_release.argtypes = [ctypes.c_void_p]
    return library


_LIBRARY: Final = _load()


def forbid(*, names: bool) -> bool:
    """From now on, for all threads of this process, what the top of the module says.

    names: whether changes of names in the file system are forbidden, too. Returns whether there is
    a filter now. It cannot be taken back, and knows the process by its id: call it after the fork.
    """
    if _LIBRARY is None:
        return False
    context = _LIBRARY.seccomp_init(_ALLOW)
    if not context:
        return False
    try:
        _LIBRARY.seccomp_attr_set(context, _SYNCHRONIZE, 1)
        for rule in _rules(os.getpid(), names=names):
            _add(_LIBRARY, context, rule)
        return int(_LIBRARY.seccomp_load(context)) == 0
    finally:
        _LIBRARY.seccomp_release(context)


def _rules(pid: int, *, names: bool) -> Iterable[_Rule]:
    yield _Rule(_NEVER)
    yield _Rule(_UNKNOWN, errno.ENOSYS)
    yield _Rule("clone", when=(0, _MASKED_EQUAL, _CLONE_THREAD, 0))
    yield _Rule(_TO_ITSELF, when=(0, _NOT_EQUAL, pid, 0))
    last = max(_FAMILIES)
    for family in frozenset(range(last)) - _FAMILIES:
        yield _Rule("socket socketpair", errno.EAFNOSUPPORT, (0, _EQUAL, family, 0))
    yield _Rule("socket socketpair", errno.EAFNOSUPPORT, (0, _GREATER, last, 0))
    if names:
        yield _Rule(_NAMES)
        for flag in _MAKES:
            yield _Rule("open", when=(1, _MASKED_EQUAL, flag, flag))
            yield _Rule("openat", when=(2, _MASKED_EQUAL, flag, flag))


def _add(library: ctypes.CDLL, context: object, rule: _Rule) -> None:
    count = 0 if rule.when is None else 1
    comparisons = (_Comparison * 1)(*(() if rule.when is None else (_Comparison(*rule.when),)))
    for name in rule.names.split():
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != _NO_SUCH_CALL:
            library.seccomp_rule_add_array(context, _ERRNO | rule.error, number, count, comparisons)
