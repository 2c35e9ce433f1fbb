"""fsync by the kernel's asynchronous I/O, io_submit(2): no thread, and one wake-up for many.

A thread that calls fsync takes the interpreter lock afterwards, away from the event loop, which
costs more than the call itself. Here a worker of the kernel does it, and an eventfd says that some
are done. The C library has no functions for these system calls, so they are made by number.
"""

import errno
import os
import platform
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, cast

import cffi

__all__ = ["AT_ONCE", "KernelFsync"]

_FSYNC: Final = 2  # IOCB_CMD_FSYNC
_TELL: Final = 1  # IOCB_FLAG_RESFD
_IN_FLIGHT: Final = 1024  # more than one process delivers at a time, should all be stuck
AT_ONCE: Final = 64
"""Requests begun, and results taken, by one call."""


class _Numbers(NamedTuple):
    """System call numbers."""

    setup: int
    destroy: int
    getevents: int
    submit: int


_GENERIC: Final = _Numbers(0, 1, 4, 2)  # asm-generic/unistd.h
_NUMBERS: Final = {
    "x86_64": _Numbers(206, 207, 208, 209),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
}

_FFI: Final = cffi.FFI()
_FFI.cdef(
    """
    struct iocb {
        uint64_t data; uint32_t key; int32_t rw_flags; uint16_t opcode; int16_t priority;
        uint32_t fd; uint64_t buffer; uint64_t size; int64_t offset; uint64_t reserved;
        uint32_t flags; uint32_t eventfd;
    };
    struct io_event { uint64_t data; uint64_t object; int64_t result; int64_t result2; };
    long syscall(long number, long a, long b, long c, long d, long e);
    """
)
# The text of a type is parsed once, before a fork: each takes a millisecond.
_LONG: Final = _FFI.typeof("long")
_CONTEXT: Final = _FFI.typeof("unsigned long *")
_REQUESTS: Final = _FFI.typeof("struct iocb[]")
_POINTERS: Final = _FFI.typeof("struct iocb *[]")
_RESULTS: Final = _FFI.typeof("struct io_event[]")


class _Libc(Protocol):
    """syscall(2), with all arguments given as numbers."""

    def syscall(self, number: int, a: int, b: int, c: int, d: int, e: int) -> int: ...


class _Request(Protocol):
    """struct iocb."""

    data: int
    opcode: int
    fd: int
    flags: int
    eventfd: int


class _Result(Protocol):
    """struct io_event. result: 0, or a negative error number."""

    data: int
    result: int


def _address(of: cffi.FFI.CData) -> int:
    return int(_FFI.cast(_LONG, of))


class KernelFsync:
    """eventfd: readable when there is something to `collect`.

    The constructor raises OSError where the kernel does not offer this.
    """

    def __init__(self) -> None:
        numbers = _NUMBERS.get(platform.machine())
        if numbers is None or _FFI.sizeof("long") != 8:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self._syscall = cast(_Libc, _FFI.dlopen(None)).syscall
        self._numbers = numbers
        context = _FFI.new(_CONTEXT)
        if self._syscall(numbers.setup, _IN_FLIGHT, _address(context), 0, 0, 0) != 0:
            raise OSError(_FFI.errno, os.strerror(_FFI.errno))
        self._context = _address(context[0])
        self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        requests = _FFI.new(_REQUESTS, AT_ONCE)
        self._requests = cast(list[_Request], requests)
        for request in requests:
            request.opcode = _FSYNC
            request.flags = _TELL
            request.eventfd = self.eventfd
        pointers = _FFI.new(_POINTERS, [requests + at for at in range(AT_ONCE)])
        results = _FFI.new(_RESULTS, AT_ONCE)
        self._results = cast(list[_Result], results)
        self._memory = (requests, pointers, results)  # cffi frees what nobody refers to
        self._pointers_at = _address(pointers)
        self._results_at = _address(results)

    def __del__(self) -> None:
        if hasattr(self, "eventfd"):
            self._syscall(self._numbers.destroy, self._context, 0, 0, 0, 0)
            os.close(self.eventfd)

    def submit(self, files: Sequence[tuple[int, int]]) -> int:
        """Begin to fsync some, at most AT_ONCE: descriptor and tag of each.

        Returns how many of these have begun, one at least. Raises OSError if not even the first
        has: BlockingIOError when too many are under way.
        """
        for request, (fd, tag) in zip(self._requests, files, strict=False):
            request.fd = fd
            request.data = tag
        numbers, at = self._numbers, self._pointers_at
        begun = self._syscall(numbers.submit, self._context, len(files), at, 0, 0)
        if begun > 0:
            return begun
        raise OSError(_FFI.errno, os.strerror(_FFI.errno))

    def collect(self, done: Callable[[int, int], None]) -> None:
        """Call `done` with tag and error number (0: success) of each fsync that has ended."""
        try:
            os.eventfd_read(self.eventfd)
        except BlockingIOError:
            return
        taken = AT_ONCE
        while taken == AT_ONCE:
            taken = self._syscall(
                self._numbers.getevents, self._context, 0, AT_ONCE, self._results_at, 0
            )
            for at in range(taken):
                result = self._results[at]
                done(result.data, -result.result)
