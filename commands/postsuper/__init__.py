"""postsuper(1): delete, hold, release, requeue and expire mail, and tidy up the queue.

Ours: `--import DIR` takes over the queue of an original Postfix (importing, spool, staging,
in_place); `--export DIR` hands all mail over to another mail system (exporting).
"""

import getopt
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from commands.postsuper.exporting import Exported, ExportError, export_queue
from commands.postsuper.importing import ImportParams, Tally, import_spool
from commands.postsuper.in_place import import_in_place
from commands.postsuper.spool import Spool, SpoolError
from commands.postsuper.staging import ImportUnderWay
from libmail.config import Config, ConfigError, open_config
from libmail.ipc.messages import QueueId
from libmail.log import LOG
from libmail.log.setup import open_log
from libmail.privileges import Identity, Jail, enter_jail, identity_of
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import FORCED_EXPIRY
from libmail.queue.ids import is_queue_id
from libmail.service.master_lock import LockHeld
from libmail.text.mistakes import option_mistake
from libmail.text.printable import complain

__all__ = ["main"]

_USAGE: Final = (
    "usage: postsuper [-c config_dir] [-d queue_id (delete)] [-e queue_id (expire)] [-f queue_id "
    "(expire and/or un-hold)] [-h queue_id (hold)] [-H queue_id (un-hold)] [-p (purge temporary "
    "files)] [-r queue_id (requeue)] [-s (structure fix)] [-S (redundant structure fix)][-v "
    "(verbose)] [--import directory (of a stopped Postfix)] [--export directory] [queue...]"
)
_QUEUES: Final = ("maildrop", "incoming", "active", "deferred", "hold")
_LOGS: Final = ("bounce", "defer", "trace")
_NAMES: Final = frozenset((*_QUEUES, *_LOGS, "flush"))
_IMPORT: Final = "--import"
_EXPORT: Final = "--export"
_STALE: Final = 7 * 86400.0  # seconds after which a file that was not finished never will be


class Failure(Exception):
    """The text after "fatal: "."""


@dataclass(frozen=True, slots=True)
class PostsuperParams:
    """Parameters of postsuper(1)."""

    hash_queue_depth: int
    hash_queue_names: tuple[str, ...]
    mail_owner: str
    queue_directory: str


@dataclass(slots=True)
class Orders:
    """What the command line asks for. tasks: (letter, queue id, ALL or -).

    import_from, export_to: directory of a queue to import, or for what is exported; None for the
    usual work.
    """

    tasks: list[tuple[str, str]] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    config_directory: str | None = None
    import_from: str | None = None
    export_to: str | None = None


def _parse(argv: Sequence[str]) -> Orders:
    try:
        pairs, queues = getopt.gnu_getopt(list(argv), "c:d:e:f:h:H:pr:sSv", ["import=", "export="])
    except getopt.GetoptError as err:
        _complain(option_mistake(err))
        raise Failure(_USAGE) from None
    orders = Orders(queues=queues)
    for option, value in pairs:
        letter = option[1:]
        if option == _IMPORT:
            orders.import_from = value
        elif option == _EXPORT:
            orders.export_to = value
        elif letter == "c":
            orders.config_directory = value
        elif letter in "psS":
            orders.tasks.append((letter.lower(), ""))
        elif letter != "v":
            orders.tasks.append((letter, value))
    for queue in orders.queues:
        if queue not in _NAMES:
            raise Failure(f"invalid directory name: {queue}")
    moves = [one for one in (orders.import_from, orders.export_to) if one is not None]
    if moves and (orders.tasks or orders.queues or len(moves) > 1):
        option = _EXPORT if orders.import_from is None else _IMPORT
        raise Failure(f"{option} goes with no other option, and takes all queues")
    return orders


def _complain(text: str) -> None:
    complain("postsuper", text)


@dataclass(frozen=True, slots=True)
class Action:
    """What is done to one message. queues: where it may be; done, total: words of the log."""

    queues: tuple[str, ...]
    apply: Callable[[QueueDirectory, str, QueueId], bool]
    done: str
    total: str


def _delete(directory: QueueDirectory, queue_name: str, queue_id: QueueId) -> bool:
    _remove_logs(directory, queue_id)
    return directory.remove(queue_name, queue_id)


def _requeue(directory: QueueDirectory, queue_name: str, queue_id: QueueId) -> bool:
    """The message will have another id, by which nobody will find its logs."""
    moved = _move("maildrop")(directory, queue_name, queue_id)
    if moved:
        _remove_logs(directory, queue_id)
    return moved


def _remove_logs(directory: QueueDirectory, queue_id: QueueId) -> None:
    for log in _LOGS:
        directory.remove(log, queue_id)


def _move(target: str) -> Callable[[QueueDirectory, str, QueueId], bool]:
    def move(directory: QueueDirectory, queue_name: str, queue_id: QueueId) -> bool:
        try:
            path = directory.rename(queue_id, queue_name, target)
            os.utime(path)  # due now
        except FileNotFoundError:
            return False
        return True

    return move


def _expire(directory: QueueDirectory, queue_name: str, queue_id: QueueId) -> bool:
    path = directory.path(queue_name, queue_id)
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
        if mode & FORCED_EXPIRY:
            return False
        os.chmod(path, stat.S_IMODE(mode) | FORCED_EXPIRY)
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


_ACTIONS: Final = {
    "d": Action(_QUEUES, _delete, "removed", "Deleted"),
    "h": Action(("incoming", "active", "deferred"), _move("hold"),
                "placed on hold", "Placed on hold"),
    "H": Action(("hold",), _move("deferred"), "released from hold", "Released from hold"),
    "r": Action(("hold", "incoming", "active", "deferred"), _requeue, "requeued", "Requeued"),
    "e": Action(("hold", "incoming", "active", "deferred"), _expire, "expired", "Force-expired"),
}  # fmt: skip
_STEPS: Final = {"f": "eH"}  # an option that is more than one action
_ORDER: Final = "drehH"  # what is to be deleted is not moved first
_TOTALS: Final = "rdehH"


def _named(words: Iterable[str]) -> Iterator[QueueId]:
    for word in words:
        name = word.rstrip("\n")
        if is_queue_id(name):
            yield QueueId(name)
        elif not name.isalnum():
            LOG.warning(f"invalid mail queue id: {name}")


def _one(directory: QueueDirectory, action: Action, queues: Iterable[str], name: QueueId) -> int:
    for queue_name in queues:
        if _is_complete(directory, queue_name, name) and action.apply(directory, queue_name, name):
            _report(f"{name}: {action.done}")
            return 1
    return 0


def _all(directory: QueueDirectory, action: Action, queues: Iterable[str]) -> int:
    count = 0
    for queue_name in queues:
        for entry in list(directory.scan(queue_name)):
            name = QueueId(entry.name)
            if _is_complete(directory, queue_name, name):
                count += action.apply(directory, queue_name, name)
    return count


def _is_complete(directory: QueueDirectory, queue_name: str, queue_id: QueueId) -> bool:
    """Whether it is a message yet; who is still writing it must find it where it was."""
    try:
        mode = os.stat(directory.path(queue_name, queue_id), follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IXUSR)


def _perform(directory: QueueDirectory, tasks: list[tuple[str, str]], chosen: list[str]) -> None:
    """Each action once for all messages that were named for it, with one line of total."""
    wanted: dict[str, list[QueueId] | None] = {}  # None: all
    for option, what in tasks:
        names = None if what == "ALL" else list(_named(sys.stdin if what == "-" else [what]))
        for letter in _STEPS.get(option, option):
            known = wanted.get(letter, [])
            wanted[letter] = None if names is None or known is None else [*known, *names]
    counts: dict[str, int] = {}
    for letter in filter(wanted.__contains__, _ORDER):
        action, named = _ACTIONS[letter], wanted[letter]
        queues = [name for name in action.queues if not chosen or name in chosen]
        if named is None:
            counts[letter] = _all(directory, action, queues)
        else:
            counts[letter] = sum(_one(directory, action, queues, name) for name in named)
    for letter in filter(counts.__contains__, _TOTALS):
        _report(f"{_ACTIONS[letter].total}: {_messages(counts[letter])}")


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _report(text: str) -> None:
    LOG.info(text)
    _complain(text)


def _purge(queues: Iterable[str]) -> None:
    """Remove files that were begun and never finished."""
    limit = time.time() - _STALE
    for queue_name in queues:
        with suppress(FileNotFoundError), os.scandir(queue_name) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    unfinished = stat.S_ISREG(status.st_mode) and not status.st_mode & stat.S_IXUSR
                    if unfinished and status.st_mtime < limit:
                        os.unlink(entry.path)


def _repair(directory: QueueDirectory, queues: Iterable[str]) -> None:
    """Move files to where `hash_queue_names` and `hash_queue_depth` want them."""
    for queue_name in queues:
        for entry in list(directory.scan(queue_name)):
            queue_id = QueueId(entry.name)
            path = directory.path(queue_name, queue_id)
            if entry.path == path:
                continue
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            with suppress(FileNotFoundError):
                os.rename(entry.path, path)


def _import(top: str, directory: QueueDirectory, config: Config, owner: Identity) -> int:
    """Import a queue; the exit status. Raises Failure, OSError, ConfigError."""
    privileged = os.geteuid() == 0 and owner.uid != 0
    params = config.load(ImportParams)
    try:
        if os.path.isdir(top) and os.path.samefile(top, "."):
            tally = import_in_place(directory, params, owner, privileged=privileged)
        else:
            spool = Spool(top)
            try:
                tally = import_spool(spool, directory, params, owner, privileged=privileged)
            finally:
                spool.close()
    except (SpoolError, LockHeld) as err:
        raise Failure(str(err)) from err
    except ImportUnderWay as err:
        raise Failure("another import into this queue is under way") from err
    return _report_import(tally)


def _export(target: str, directory: QueueDirectory, owner: Identity) -> int:
    """Export the queue; the exit status. Raises Failure, OSError."""
    privileged = os.geteuid() == 0 and owner.uid != 0
    try:
        done = export_queue(target, directory, owner, privileged=privileged)
    except (ExportError, LockHeld) as err:
        raise Failure(str(err)) from err
    return _report_export(target, done)


def _report_export(target: str, done: Exported) -> int:
    _report(f"Exported: {_messages(done.exported + done.held)}")
    if done.exported:
        _report(f"To have them delivered by another mail system: {target}/submit")
    if done.held:
        _report(f"On hold, for {target}/hold/submit: {_messages(done.held)}")
    if done.failed:
        _report(f"Not exported: {_messages(done.failed)}")
    return 1 if done.failed else 0


def _report_import(tally: Tally) -> int:
    _report(f"Imported: {_messages(tally.imported)}")
    for count, what in (
        (tally.known, "Imported before"),
        (tally.unfinished, "Never received completely, left out"),
        (tally.probes, "Address probes, left out"),
        (tally.failed, "Not imported"),
    ):
        if count:
            _report(f"{what}: {_messages(count)}")
    return 1 if tally.failed else 0


def _run(orders: Orders) -> int:
    config = open_config(orders.config_directory, process_name="postsuper")
    params = config.load(PostsuperParams)
    owner = identity_of(params.mail_owner)
    if os.geteuid() not in (0, owner.uid):
        raise Failure("use of this command is reserved for the superuser")
    open_log(config, "postsuper", echo=True)
    source, target = (
        os.path.abspath(path) if path is not None else ""
        for path in (orders.import_from, orders.export_to)
    )
    os.chdir(params.queue_directory)
    directory = QueueDirectory(frozenset(params.hash_queue_names), params.hash_queue_depth)
    if source:
        return _import(source, directory, config, owner)
    if target:
        return _export(target, directory, owner)
    if os.geteuid() == 0 and owner.uid != 0:
        enter_jail(Jail(None, owner, no_new_privs=True))
    _maintain(orders, directory)
    return 0


def _maintain(orders: Orders, directory: QueueDirectory) -> None:
    """The queue is put in order before anything else is done to it."""
    letters = {letter for letter, _ in orders.tasks} or {"s", "p"}
    if "s" in letters:
        _repair(directory, orders.queues or (*_QUEUES, *_LOGS))
    if "p" in letters:
        _purge(orders.queues or _QUEUES)
    _perform(directory, [task for task in orders.tasks if task[0] not in "ps"], orders.queues)


def main(argv: Sequence[str]) -> int:
    """argv: without the program name."""
    try:
        return _run(_parse(argv))
    except (Failure, ConfigError) as err:
        _complain(f"fatal: {err}")
        return 1
    except KeyError as err:
        _complain(f"fatal: file main.cf: parameter mail_owner: unknown user: {err}")
        return 1
    except OSError as err:
        _complain(f"fatal: {err.filename}: {err.strerror}")
        return 1
