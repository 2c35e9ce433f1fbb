"""What code of a stranger could do in a service: it tries, and logs what it got away with.

Copied as daemons/intruder.py into the installation under test, with a module daemons/in_NAME.py for
each program: that program as it is, prepared, in its jail and serving, and then this code. It runs
where the program runs, with the descriptors and the user ids that this has.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from libmail.ipc.codec import Unframer
from libmail.ipc.messages import (
    CODEC,
    BounceFlush,
    ConnectReply,
    ConnectRequest,
    QueueFlush,
    QueueId,
)
from libmail.log import LOG
from libmail.service.skeleton import Handlers, Runtime, Service

_AGENTS: Final = ("local", "virtual", "error", "retry", "discard", "smtp")
_FLUSH: Final = BounceFlush("bounce", "hold", QueueId("ABCDEF1234"), "a@b", 0, "", "", ())
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH: Final = 16
_PATIENCE: Final = 60.0  # seconds


def answer(path: str, message: object | None = None) -> object | None:
    """What a service says to us, after this message if there is one; None: it hangs up."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE)
        sock.connect(path)
        if message is not None:
            sock.sendall(CODEC.encode(message))
        unframer = Unframer(CODEC)
        with suppress(ConnectionError):
            while data := sock.recv(65536):
                unframer.receive_data(data)
                found = unframer.next_event()
                if found is not None:
                    return found
    return None


def says(path: str) -> bool:
    """Whether a service says anything to us, in whatever words."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE)
        sock.connect(path)
        with suppress(ConnectionError):
            return bool(sock.recv(1))
    return False


def opened(path: str) -> bool:
    os.close(os.open(path, os.O_RDONLY))
    return True


def made(path: str) -> bool:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)
    return True


def listed(path: str) -> bool:
    os.listdir(path)
    return True


def changed_to(uid: int) -> bool:
    os.setresuid(uid, uid, uid)
    return True


def traced(pid: int) -> bool:
    if _LIBC.ptrace(_PTRACE_ATTACH, pid, 0, 0) == 0:
        return True
    raise OSError(ctypes.get_errno(), "ptrace")


def started() -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True


def executed() -> bool:
    """Without a fork, which is refused, too: it may look for a program that is not there."""
    try:
        os.execv("/no/such/program", ["program"])
    except FileNotFoundError:
        return True  # it was looked for


def talked(family: int) -> bool:
    socket.socket(family, socket.SOCK_RAW).close()
    return True


def signalled(pid: int) -> bool:
    os.kill(pid, 0)
    return True


def attempts(top: str, owner: int) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Each succeeds, says no, or raises OSError. top: of the test's directories."""
    queue = f"{top}/queue"
    for name in ("incoming", "active", "deferred", "hold", "defer", "private", "maildrop"):
        yield f"list {name}", lambda name=name: listed(f"{queue}/{name}")  # type: ignore[misc]
        if name != "maildrop":  # where every user may leave mail
            yield f"write in {name}", lambda name=name: made(f"{queue}/{name}/x")  # type: ignore[misc]
    yield "write in public", lambda: made(f"{queue}/public/x")
    yield "write in pid", lambda: made(f"{queue}/pid/x")
    yield "write in data_directory", lambda: made(f"{top}/data/x")
    yield "read a message", lambda: opened(f"{queue}/hold/SECRET")
    yield "read a table", lambda: opened(f"{top}/etc/passwords")
    yield "read a cache", lambda: opened(f"{top}/data/cache.lmdb")
    for name in _AGENTS:
        yield f"ask {name}", lambda name=name: answer(f"{queue}/private/{name}") is not None  # type: ignore[misc]
    yield "flush a report", lambda: answer(f"{queue}/private/bounce", _FLUSH) is not None
    yield (
        "flush the queue",
        lambda: answer(f"{queue}/public/qmgr", QueueFlush(QueueId(""))) is not None,
    )
    yield "list the queue", lambda: says(f"{queue}/public/showq")
    yield "make a file", lambda: made(f"/tmp/intruder.{os.getpid()}")
    yield "start a process", started
    yield "execute a program", executed
    yield "talk to the kernel", lambda: talked(socket.AF_NETLINK)
    yield "become mail_owner", lambda: changed_to(owner)
    yield "become root", lambda: changed_to(0)
    for pid in map(int, Path(f"{top}/etc/pids").read_text().split()):  # not of our user
        yield f"signal {pid}", lambda pid=pid: signalled(pid)  # type: ignore[misc]
        yield f"trace {pid}", lambda pid=pid: traced(pid)  # type: ignore[misc]
        yield f"read memory of {pid}", lambda pid=pid: opened(f"/proc/{pid}/mem")  # type: ignore[misc]
    for name in ("private/local", "private/smtp", "public/qmgr"):
        yield f"be introduced to {name}", lambda name=name: introduced(queue, name)  # type: ignore[misc]


def introduced(queue: str, name: str) -> bool:
    reply = answer(f"{queue}/private/connector", ConnectRequest(name))
    return isinstance(reply, ConnectReply) and reply.error != errno.EACCES


def success(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    except OSError:
        return False


def intrude(service: Service[object]) -> Service[object]:
    """That service, with an intruder in it."""

    async def start(prepared: object, runtime: Runtime) -> Handlers:
        handlers = await service.start(prepared, runtime)
        top = os.path.dirname(runtime.config.directory)
        owner = os.stat(f"{top}/data").st_uid
        tried = 0
        for name, attempt in attempts(top, owner):
            tried += 1
            if success(attempt):
                LOG.info(f"intruder in {service.program}: {name}: done")
        LOG.info(f"intruder in {service.program}: {tried} attempts as {os.getuid()}")
        return handlers

    return replace(service, start=start)
