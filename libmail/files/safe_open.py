"""Opening files as root where somebody else may have planted the name.

Whoever may write in a directory decides what a name in it leads to: a symbolic link there makes a
process with more rights read or write a file in its place.  Looking at a name first and opening it
afterwards does not help, as the name may have changed meanwhile.  So a path is followed here one
name at a time, each opened relative to the directory before it and without following a link, and
what is judged is what was opened.  The rules:

- a link that does not belong to root leads only to files, or into directories,
  of the link's owner: nobody reaches more by his link than he reaches by himself;
- in a directory that is not root's, a file with several links that belongs to somebody other than
  the directory has been linked to there, and is left alone.

Processes without root open files as the kernel does: the kernel judges them by their own rights.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Final, Self

__all__ = ["Place", "PlantedName", "safe_open"]

_MOST_LINKS: Final = 40  # as the kernel
_PATH: Final = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW


class PlantedName(PermissionError):
    """A name leads to where whoever put it there has no business."""


class Place:
    """Where a path leads: a name in a directory that is held open. Close it, or use it in `with`.

    passed: the directories and links on the way, with their status.
    """

    def __init__(self, path: str, *, follow: bool = True) -> None:
        """follow: a link of that name, too. Raises OSError; not where the last name is missing."""
        self.path = path
        self.passed: list[tuple[str, os.stat_result]] = []
        self.name = ""
        self._magic = False  # a link of /proc, which only the kernel can follow
        self._links = 0
        start = "/" if path.startswith("/") else "."
        self.folder = _directory(start)
        try:
            self.passed.append((start, os.fstat(self.folder)))
            self._follow(_names(path), follow=follow)
        except BaseException:
            os.close(self.folder)
            raise

    def _follow(self, pending: list[str], *, follow: bool) -> None:
        """pending: the names that are left, the next one at the end."""
        while pending:
            name = pending.pop()
            try:
                fd = os.open(name, _PATH, dir_fd=self.folder)
            except FileNotFoundError:
                if pending:
                    raise
                self.name = name
                return
            try:
                status = os.fstat(fd)
                if stat.S_ISLNK(status.st_mode) and (pending or follow):
                    self._pass_link(name, fd, status, pending)
                elif pending or name in (".", ".."):
                    self._move_to(os.dup(fd), self._below(name))
                else:
                    self.name = name
            finally:
                os.close(fd)

    def _below(self, name: str) -> str:
        """How the log calls a name in the directory at hand."""
        folders = (path for path, one in reversed(self.passed) if stat.S_ISDIR(one.st_mode))
        return os.path.join(next(folders), name)

    def _move_to(self, fd: int, path: str) -> None:
        os.close(self.folder)
        self.folder = fd
        self.passed.append((path, os.fstat(fd)))

    def _pass_link(self, name: str, fd: int, status: os.stat_result, pending: list[str]) -> None:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self.path)
        self.passed.append((self._below(name), status))
        if status.st_dev == os.stat("/proc").st_dev:
            self._pass_magic(name, pending)
            return
        target = os.readlink("", dir_fd=fd)
        pending += _names(target)
        if target.startswith("/"):
            self._move_to(_directory("/"), "/")

    def _pass_magic(self, name: str, pending: list[str]) -> None:
        if not pending:
            self.name, self._magic = name, True
            return
        fd = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self.folder)
        self._move_to(fd, self._below(name))

    def beside(self, name: str) -> str:
        """A path of a name in the same directory, whatever becomes of the names above it."""
        return f"/proc/self/fd/{self.folder}/{name}"

    def open(self, flags: int, mode: int = 0o600) -> int:
        """A descriptor. Raises OSError, PlantedName."""
        flags |= os.O_CLOEXEC | (0 if self._magic else os.O_NOFOLLOW)
        fd = self._open(flags, mode)
        try:
            self._judge(os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _open(self, flags: int, mode: int) -> int:
        name = self.name or "."
        if not flags & os.O_EXCL:
            try:
                return os.open(name, flags & ~os.O_CREAT, dir_fd=self.folder)
            except FileNotFoundError as error:
                error.filename = self.path
                if not flags & os.O_CREAT:
                    raise
        self.check()
        return os.open(name, flags, mode, dir_fd=self.folder)

    def check(self) -> None:
        """Whether a new file may be made here. Raises PlantedName."""
        self._judge(None)

    def _judge(self, found: os.stat_result | None) -> None:
        """found: what has been opened."""
        if os.geteuid() != 0:
            return
        folder = os.fstat(self.folder).st_uid
        reached = {folder} if found is None else {folder, found.st_uid}
        for path, status in self.passed:
            if stat.S_ISLNK(status.st_mode) and status.st_uid not in {0, *reached}:
                raise self._planted(f"{path} is a link of user {status.st_uid} to what is not his")
        if found is None or folder == 0 or self._magic or not stat.S_ISREG(found.st_mode):
            return
        if found.st_nlink > 1 and found.st_uid != folder:
            raise self._planted(f"it has {found.st_nlink} hard links, and another owner than its "
                                "directory")  # fmt: skip

    def _planted(self, why: str) -> PlantedName:
        return PlantedName(errno.EPERM, f"not used: {why}", self.path)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _directory(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY)


def _names(path: str) -> list[str]:
    """The names of a path, the first one at the end."""
    return [name for name in reversed(path.split("/")) if name]


def safe_open(path: str, flags: int, mode: int = 0o600, *, follow: bool = True) -> int:
    """As os.open, by the rules of this module where this is root; fit as an `opener`.

    follow: a link in the place of the file, too. Raises OSError, PlantedName.
    """
    if os.geteuid() != 0:
        return os.open(path, flags | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW), mode)
    with Place(path, follow=follow) as place:
        return place.open(flags, mode)
