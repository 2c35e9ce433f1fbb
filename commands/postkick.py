"""postkick(1): send a request, usually one letter, to a service of the mail system.

Tells: any service, through its socket (or fifo) in the public or private directory.
"""

import errno
import getopt
import os
import socket
import stat
from collections.abc import Sequence
from typing import Final

from libmail.config import Config, ConfigError, open_config
from libmail.ipc.rendezvous import beside_fifo
from libmail.log import Fatal
from libmail.text.mistakes import option_mistake
from libmail.text.printable import complain

__all__ = ["main"]

_USAGE: Final = "usage: postkick [-c config_dir] [-v] class service request"
_CLASSES: Final = ("public", "private")


class NotReached(Exception):
    """The service was not found, or did not take the request. The text is fit for a warning."""


def kick(config: Config, kind: str, service: str, request: bytes) -> None:
    """Send the request. Raises NotReached.

    Waits while the service has no room for it, for application_event_drain_time at most.
    """
    if kind not in _CLASSES or "/" in service:
        raise NotReached(f"unable to look up {kind}/{service}: {os.strerror(errno.ENOENT)}")
    path = f"{config.text('queue_directory')}/{kind}/{service}"
    limit = config.seconds("application_event_drain_time")
    try:
        if not stat.S_ISFIFO(os.lstat(path).st_mode):
            _send(path, request, limit)
        elif not _write(path, request, limit):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    except OSError as err:
        problem = f"unable to look up {kind}/{service}: {err.strerror or err}"
        raise NotReached(problem) from err


def _write(path: str, request: bytes, limit: float) -> bool:
    """Write to a named pipe; False if something else has the name by now."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:  # the service knows who may ask: by its socket
        _send(beside_fifo(path), request, limit)
        return True
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return False
        os.write(fd, request)
        return True
    finally:
        os.close(fd)


def _send(path: str, request: bytes, limit: float) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
        client.settimeout(limit)
        client.connect(path)
        client.sendall(request)


def main(arguments: Sequence[str]) -> int:
    """Run postkick; returns the exit status. arguments: without the program's name."""
    try:
        pairs, words = getopt.getopt(arguments, "c:v")
        if len(words) != 3:
            raise Fatal(_USAGE)
        config = open_config(dict(pairs).get("-c"), process_name="postkick")
        kind, service, request = words
        if ("-v", "") in pairs:
            complain("postkick", f"{kind}/{service}: {request}")
        kick(config, kind, service, os.fsencode(request))
    except getopt.GetoptError as err:
        complain("postkick", option_mistake(err))
        complain("postkick", f"fatal: {_USAGE}")
        return 1
    except NotReached as err:
        contact = f"Cannot contact class {kind} service {service} - perhaps the mail system is down"
        complain("postkick", f"warning: {err}")
        complain("postkick", f"warning: {contact}")
        return 1
    except (Fatal, ConfigError) as err:
        complain("postkick", f"fatal: {err}")
        return 1
    return 0
