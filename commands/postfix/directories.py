"""The directories of the mail system: created where missing, and looked at by `postfix check`.

There are no set-gid programs: so users may enter `public`, where sockets are, and may add files
to `maildrop`, where they can neither list nor remove another's. Files there inherit the group of
mail_owner, by which pickup(8) may read them, and no other user may.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from commands.postfix.report import info, warning
from libmail.config import Config
from libmail.config.programs import program_directory
from libmail.files.safe_open import Place, safe_open
from libmail.log import Fatal
from libmail.privileges import Identity
from libmail.service.account import entry_group, network_account

__all__ = ["check_ownership", "create_missing", "network_problems", "open_to_users", "repair"]

_PROGRAMS = ("daemon", "command")
_PRIVATE = (
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "saved",
    "spare", "tlstrace", "trace",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Directory:
    """path: absolute. own: belongs to mail_owner, not to root. group: -1: any."""

    path: str
    mode: int
    own: bool
    group: int = -1

    def belongs_to(self, owner: Identity) -> tuple[int, int]:
        """User and group for chown(2), -1: as it is."""
        return owner.uid if self.own else 0, self.group


def directories(config: Config, owner: Identity, *, privileged: bool) -> list[Directory]:
    """All that must exist, parents first. Raises Fatal."""
    queue = config.text("queue_directory")
    network = network_account(config, owner, privileged=privileged)
    private = Directory(f"{queue}/private", 0o700, own=True)
    if network.uid != owner.uid:  # the services that face the network ask others
        private = Directory(private.path, 0o710, own=True, group=entry_group(network))
    return [
        Directory(queue, 0o755, own=False),
        Directory(f"{queue}/pid", 0o755, own=False),
        *(Directory(f"{queue}/{name}", 0o700, own=True) for name in _PRIVATE),
        private,
        Directory(f"{queue}/maildrop", 0o3733, own=True, group=owner.gid),
        Directory(f"{queue}/public", 0o711, own=True),
        Directory(config.text("data_directory"), 0o700, own=True),
    ]


def create_missing(config: Config, owner: Identity, *, privileged: bool) -> None:
    """Make the directories. Raises Fatal.

    privileged: this is root, who gives them to their owners.
    """
    for wanted in directories(config, owner, privileged=privileged):
        try:
            if not os.path.isdir(wanted.path):
                _create(wanted, owner, privileged=privileged)
        except OSError as err:
            raise Fatal(
                f"unable to create missing queue directories: {wanted.path}: {err.strerror}"
            ) from err


def open_to_users(config: Config, owner: Identity, *, privileged: bool) -> None:
    """Open maildrop and public, which in a queue that set-gid programs used only a group may enter.

    And private to the group of mail_network_user. Raises Fatal.
    """
    for wanted in directories(config, owner, privileged=privileged):
        if not wanted.path.endswith(("/maildrop", "/public", "/private")):
            continue
        try:
            with _opened(wanted.path) as fd:
                _open_to_users(wanted, fd, privileged=privileged)
        except OSError as err:
            raise Fatal(f"unable to open to users: {wanted.path}: {err.strerror}") from err


def repair(config: Config, owner: Identity, *, privileged: bool) -> None:
    """Set owner and mode of all directories that exist. Raises Fatal."""
    for wanted in directories(config, owner, privileged=privileged):
        try:
            with _opened(wanted.path) as fd:
                if privileged:
                    os.fchown(fd, *wanted.belongs_to(owner))
                os.fchmod(fd, wanted.mode)
        except OSError as err:
            raise Fatal(f"set-permissions: {wanted.path}: {err.strerror}") from err


def _create(wanted: Directory, owner: Identity, *, privileged: bool) -> None:
    with Place(wanted.path) as place:
        place.check()
        os.mkdir(place.name, 0o700, dir_fd=place.folder)
    with _opened(wanted.path) as fd:
        if privileged and wanted.own:
            os.fchown(fd, *wanted.belongs_to(owner))
        os.fchmod(fd, wanted.mode)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """A directory by its descriptor: somebody may have put something else in its place."""
    fd = safe_open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_to_users(wanted: Directory, fd: int, *, privileged: bool) -> None:
    found = os.fstat(fd)
    if privileged and wanted.group not in (-1, found.st_gid):
        os.fchown(fd, -1, wanted.group)
        info(f"setting the group of {wanted.path} to {wanted.group}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & wanted.mode != wanted.mode:
        os.fchmod(fd, mode | wanted.mode)
        info(f"setting permissions of {wanted.path} to {mode | wanted.mode:o}")


def check_ownership(config: Config, owner: Identity, *, privileged: bool) -> None:
    """Warn about what others could change, and about messages that are damaged."""
    queue, data = config.text("queue_directory"), config.text("data_directory")
    if privileged:
        programs = (program_directory(config, f"{name}_directory") for name in _PROGRAMS)
        for folder in (config.text("config_directory"), *programs):
            for path in _files(folder):
                _check(path, 0, "root")
        _check(queue, 0, "root")
        _check(f"{queue}/pid", 0, "root")
        for wanted in directories(config, owner, privileged=privileged):
            if wanted.own:
                _check(wanted.path, owner.uid, owner.name, writable=wanted.mode & 0o022)
        for path in _files(data):
            _check(path, owner.uid, owner.name)
    for path in _files(f"{queue}/corrupt"):
        warning(f"damaged message: {os.path.relpath(path, queue)}")
    if any(os.path.basename(path) != "record" for path in _files(f"{queue}/import")):
        warning("an import was interrupted: run postsuper --import again")


def network_problems(config: Config, owner: Identity) -> Iterator[str]:
    """As root: what keeps the services that face the network from having a user of their own.

    An installation that never had the account is as it was, and needs no warning for that.
    """
    name = config.text("mail_network_user")
    account = network_account(config, owner, privileged=True)
    if config.is_set("mail_network_user") and account.name != name:
        yield (
            f"mail_network_user: there is no account {name}: the services that face the network "
            f"run as {owner.name}, and could open the queue"
        )


def _files(directory: str) -> Iterator[str]:
    for folder, _, names in os.walk(directory):
        yield from (os.path.join(folder, name) for name in names)


def _check(path: str, uid: int, name: str, *, writable: int = 0) -> None:
    try:
        found = os.lstat(path)
    except OSError:
        return  # it has gone meanwhile
    if found.st_uid != uid:
        warning(f"not owned by {name}: {path}")
    if found.st_mode & 0o022 & ~writable and not stat.S_ISLNK(found.st_mode):
        warning(f"group or other writable: {path}")
