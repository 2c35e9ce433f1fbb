"""postlock(1): run a command while a mailbox is locked as for a delivery by local(8)."""

import getopt
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from libmail.config import ConfigError, open_config
from libmail.mailbox.mbox import MboxLocking, locked_mbox
from libmail.text.mistakes import option_mistake
from libmail.text.printable import complain

__all__ = ["main"]

_USAGE: Final = "usage: postlock [-c config_dir] [-l lock_style] [-v] folder command..."
_METHODS: Final = frozenset({"fcntl", "flock", "dotlock"})
_EX_TEMPFAIL: Final = 75
_EX_FAILED: Final = 1  # the command could not be executed, or was killed


class Failure(Exception):
    """The text after "fatal: "."""


@dataclass(frozen=True, slots=True)
class PostlockParams:
    """Parameters of postlock(1)."""

    deliver_lock_attempts: int
    deliver_lock_delay: float
    mailbox_delivery_lock: tuple[str, ...]
    stale_lock_time: float


def _locking(config_directory: str | None, style: str | None) -> MboxLocking:
    """style: of option -l. Raises Failure, ConfigError."""
    params = open_config(config_directory, process_name="postlock").load(PostlockParams)
    methods = params.mailbox_delivery_lock if style is None else style.replace(",", " ").split()
    for method in methods:
        if method not in _METHODS:
            text = " ".join(methods) if style is None else style
            raise Failure(f'unknown mailbox_delivery_lock value "{method}" in "{text}"')
    return MboxLocking(
        tuple(methods),
        params.deliver_lock_attempts,
        params.deliver_lock_delay,
        params.stale_lock_time,
    )


def _execute(command: Sequence[str]) -> int:
    """Run the command; its exit status."""
    sys.stdout.flush()
    try:
        pid = os.posix_spawnp(command[0], list(command), os.environ)
    except OSError as err:
        _say(f"fatal: execvp {command[0]}: {err.strerror}")
        return _EX_FAILED
    while True:
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except KeyboardInterrupt:  # the command has got it, too, and the lock is its
            continue
        return status if status >= 0 else _EX_FAILED


def _say(text: str) -> None:
    complain("postlock", text)


def _run(argv: Sequence[str]) -> int:
    try:
        pairs, words = getopt.getopt(list(argv), "c:l:v")
    except getopt.GetoptError as err:
        _say(option_mistake(err))
        raise Failure(_USAGE) from None
    if len(words) < 2:
        raise Failure(_USAGE)
    given = dict(pairs)
    locking = _locking(given.get("-c"), given.get("-l"))
    folder, *command = words
    try:
        with locked_mbox(folder, locking):
            return _execute(command)
    except OSError as err:
        raise Failure(f"open file {folder}: {err.strerror}") from err


def main(argv: Sequence[str]) -> int:
    """argv: without the program name. Exit status 75 where there is no lock."""
    try:
        return _run(argv)
    except (Failure, ConfigError) as err:
        _say(f"fatal: {err}")
        return _EX_TEMPFAIL
